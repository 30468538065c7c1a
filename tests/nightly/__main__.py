"""The checks too long for CI, in parts of under 45 minutes: python -m tests.nightly [PART ...] | --list

Each part runs a target of the Makefile. `record.json` keeps when a part last ran, on which commit, for how long, and
how it ended: commit it. `--list` prints that record and runs nothing. Exit status 1 if a part failed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
RECORD = Path(__file__).with_name("record.json")
LIMIT_S = 45 * 60
INSTALL = ["peers-install"]  # .ci/environment makes a missing one a failure
PARTS = {
    "slow": [*INSTALL, "test-slow"],
    "peers": ["peers-slow"],
    "sanitizers": [*INSTALL, "kernels-sanitized"],
    "aarch64": [*INSTALL, "kernels-aarch64"],
    "cuda": [*INSTALL, "cuda-instances"],
    "mutants-cpu": ["mutants", "POPULATION=cpu"],
    "mutants-cuda": ["mutants", "POPULATION=cuda"],
    "mutants-package": ["mutants", "POPULATION=package"],
    "mutants-baseline": ["mutants-baseline"],
}


class Run(NamedTuple):
    """The last run of a part; "+" after the commit means changes that were not committed."""

    commit: str
    began: str
    seconds: int
    ended: str


def run(part: str, limit: float = LIMIT_S) -> Run:
    """Run a part to its end, or to the limit."""
    began, start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), time.monotonic()
    command = ["bash", "-c", '. .ci/environment && exec make "$@"', "make", *PARTS[part]]
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdin=subprocess.DEVNULL) as child:
        try:
            status = child.wait(limit)
            ended = f"failed, exit status {status}" if status else "passed"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {limit / 60:.3g} minutes"
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
    return Run(commit(), began, round(time.monotonic() - start), ended)


def commit() -> str:
    """The commit that is checked out, with "+" where the package, its kernels or its tests differ from it."""
    what = ("status", "--porcelain", "--", "bnengine", "kernels", "tests/**/*.py")
    head, changed = (
        subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        for words in (("rev-parse", "--short=12", "HEAD"), what)
    )
    return head + ("+" if changed else "")


def load() -> dict[str, Run]:
    """The last run of each part that has run."""
    entries = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    return {part: Run(**entry) for part, entry in entries.items()}


def save(runs: dict[str, Run]) -> None:
    entries = {part: runs[part]._asdict() for part in PARTS if part in runs}
    RECORD.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def table(runs: dict[str, Run]) -> str:
    """A line for each part, also for those that never ran."""
    rows = [("part", "began", "commit", "minutes", "ended")]
    for part in PARTS:
        last = runs.get(part)
        rows.append(
            (part, last.began, last.commit, f"{last.seconds / 60:.1f}", last.ended) if last else (part, *"----")
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.nightly", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to run (all): {', '.join(PARTS)}")
    parser.add_argument("--list", action="store_true", help="print the record")
    args = parser.parse_args()
    if unknown := sorted(set(args.parts) - PARTS.keys()):
        parser.error(f"unknown parts, got {', '.join(unknown)}. Choose among {', '.join(PARTS)}.")
    chosen = [] if args.list else args.parts or list(PARTS)
    for part in chosen:
        print(f"\n=== {part}: make {' '.join(PARTS[part])}", flush=True)
        last = run(part)
        save(load() | {part: last})
        print(f"=== {part}: {last.ended}, {last.seconds} s", flush=True)
    runs = load()
    print("\n" + table(runs))
    return int(any(runs[part].ended != "passed" for part in chosen))


if __name__ == "__main__":
    sys.exit(main())
