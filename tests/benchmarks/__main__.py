"""`python -m tests.benchmarks`: the benchmarks of this CPU, kept with the processor's name and the date.

Runs `bnengine bench` on NumPy, which writes tests/benchmarks/results/<processor>-<date>-cpu.json and the picture of the
guide on speed, and then the guide's table. For a trial: --quick, --deadline S, and --out DIR, which leaves the guide.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from bnengine.lab.environment import processor
from tests.benchmarks.table import GUIDE, RESULTS, ROOT, write

SECONDS = 470.0  # of the eight minutes that the documentation promises


def stem(name: str | None, date: str) -> str:
    """Return the name of the files, such as amd-epyc-2026-11-21-cpu."""
    label = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", (name or "cpu").lower())).strip("-")
    return f"{label}-{date}-cpu"


def command(out: Path | None, deadline: float, quick: bool) -> list[str]:
    """Return the call of `bnengine bench`."""
    place = (out or RESULTS) / stem(processor(), time.strftime("%Y-%m-%d", time.gmtime()))
    picture = f"{place}.png" if out else str(GUIDE.with_suffix(".png"))
    files = ["--json", f"{place}.json", "--plot", picture]
    call = [sys.executable, "-m", "bnengine", "bench", "--backend", "numpy", "--deadline", str(deadline), *files]
    return [*call, "--quick"] if quick else call


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"where files go  [{RESULTS.relative_to(ROOT)}]")
    parser.add_argument("--deadline", type=float, default=SECONDS, metavar="S", help="seconds in all  [470]")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    given = parser.parse_args()
    (given.out or RESULTS).mkdir(parents=True, exist_ok=True)
    status = subprocess.run(command(given.out, given.deadline, given.quick), cwd=ROOT, check=False).returncode
    if status == 0 and given.out is None:
        write()
    return status


if __name__ == "__main__":
    sys.exit(main())
