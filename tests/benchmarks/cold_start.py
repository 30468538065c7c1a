"""Times a whole training process, in turns with the same training in PyTorch.

    python -m tests.benchmarks.cold_start --rounds 10

Wall time is what a user waits; processor time is less sensitive to other programs. Both processes start as from a
shell: nothing but the bytecode of modules is prepared.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support import ROOT

DIGITS = ROOT / "bnengine" / "data" / "digits.npz"
TARGET = 0.35


def commands(epochs: int, folder: str) -> dict[str, list[str]]:
    """Return the commands of both trainings, each into a new folder."""
    peer = [str(Path(__file__).with_name("torch_digits.py")), str(DIGITS), f"{folder}/torch"]
    ours = ["-m", "bnengine", "train", "digits", "--no-plot", "--out", f"{folder}/ours"]
    return {
        name: [sys.executable, *words, "--epochs", str(epochs)] for name, words in (("ours", ours), ("torch", peer))
    }


def measured(command: list[str]) -> tuple[float, float]:
    """Run a process and return (wall seconds, processor seconds)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"cold_start: {' '.join(command)} failed:\n{done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print least and median times and their ratios as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "torch": []}
    for _ in range(options.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            for name, command in commands(options.epochs, folder).items():
                times[name].append(measured(command))
    figures: dict[str, float] = {}
    for i, what in enumerate(("wall", "processor")):
        for kind, of in (("least", min), ("median", statistics.median)):
            ours, peer = (of([each[i] for each in times[name][1:]]) for name in ("ours", "torch"))
            figures |= {
                f"{what}_{kind}_ours_s": ours,
                f"{what}_{kind}_torch_s": peer,
                f"{what}_{kind}_ratio": ours / peer,
            }
    print(json.dumps({**{name: round(value, 4) for name, value in figures.items()}, "target_ratio": TARGET}))


if __name__ == "__main__":
    main()
