"""`python -m tests.benchmarks`: the benchmarks of this CPU, kept with the processor's name and the date.

Runs `bnengine bench` on NumPy, which writes tests/benchmarks/results/<processor>-<date>-cpu.json and .png, and then the
README's section from them. --quick, --out DIR and --deadline S are for a trial: with --out the README stays.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from bnengine.lab.bench.machine import processor
from tests.benchmarks.table import RESULTS, ROOT, write

SECONDS = 470.0  # of the eight minutes that are promised


def stem(name: str | None, date: str) -> str:
    """Such as amd-epyc-2026-11-21-cpu."""
    label = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", (name or "cpu").lower())).strip("-")
    return f"{label}-{date}-cpu"


def command(out: Path, deadline: float, quick: bool) -> list[str]:
    """The call of `bnengine bench`."""
    place = out / stem(processor(), time.strftime("%Y-%m-%d", time.gmtime()))
    files = ["--json", f"{place}.json", "--plot", f"{place}.png"]
    call = [sys.executable, "-m", "bnengine", "bench", "--backend", "numpy", "--deadline", str(deadline), *files]
    return [*call, "--quick"] if quick else call


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"where files go  [{RESULTS.relative_to(ROOT)}]")
    parser.add_argument("--deadline", type=float, default=SECONDS, metavar="S", help="seconds in all  [470]")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    given = parser.parse_args()
    out = given.out or RESULTS
    out.mkdir(parents=True, exist_ok=True)
    status = subprocess.run(command(out, given.deadline, given.quick), cwd=ROOT, check=False).returncode
    if status == 0 and given.out is None:
        write()
    return status


if __name__ == "__main__":
    sys.exit(main())
