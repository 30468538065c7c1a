"""`python -m tests.gpu verify | bench | all`: what only a device can show, with a deadline for each part.

Results are written to DIR/<device>-<date>-<what>.json after every part. Exit status 1 if anything failed or ran out of
time; what was not run, or refused by the machine, is listed with its reason.
"""

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.gpu import parts
from tests.gpu.runner import PASSED, ROOT, Outcome, Part, Report, Runner

SECONDS = {"verify": 280.0, "bench": 525.0}  # of the 5 and the 9 minutes that are promised
RESULTS = ROOT / "tests" / "benchmarks" / "results"


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("verify", "bench", "all"))
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"where results go  [{RESULTS.relative_to(ROOT)}]")
    parser.add_argument("--deadline", type=float, metavar="S", help="seconds for each of the two  [280 and 525]")
    parser.add_argument("--jobs", type=int, metavar="N", help="parts side by side  [a quarter of the cores, at most 4]")
    parser.add_argument(
        "--dry-run", action="store_true", help="the simulated device, few tests; DIR is a temporary one"
    )
    return parser.parse_args(given)


def examine(dry: bool) -> tuple[Part, Outcome, float]:
    """The part that comes before all others: where it fails there is no device to name."""
    part = parts.environment(dry)
    with tempfile.TemporaryDirectory() as folder:
        report = Report(Path(folder) / "environment.json", {}, [part.name])
        runner = Runner(report, part.deadline)
        stop_on_signals(runner)
        runner.run([part])
    found = report.parts[0]
    return part, Outcome(found["status"], found["why"], found.get("result")), found["seconds"]


def head(what: str, found: dict[str, Any], dry: bool) -> dict[str, Any]:
    """What a result is worth nothing without."""
    known = {name: found.get(name) for name in ("device", "commit", "sources")}
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"what": f"gpu-{what}", **known, "began": began, "simulated": dry, "environment": found}


def file_name(what: str, device: str | None) -> str:
    """Such as nvidia-h200-2026-11-21-verify.json."""
    label = re.sub(r"[^a-z0-9]+", "-", (device or "no-device").lower()).strip("-")
    return f"{label}-{time.strftime('%Y-%m-%d', time.gmtime())}-{what}.json"


def run(what: str, options: argparse.Namespace, examined: tuple[Part, Outcome, float]) -> Report:
    """One of the two, from the environment to the last line."""
    part, outcome, examining = examined
    found, dry = outcome.result or {}, options.dry_run
    planned = getattr(parts, what)(dry, options.out)
    report = Report(options.out / file_name(what, found.get("device")), head(what, found, dry),
                    [part.name, *(p.name for p in planned)])  # fmt: skip
    report.record(part, outcome, examining, "")
    jobs = options.jobs or max(1, min(4, (os.cpu_count() or 1) // 4))
    missing = {"cupy"} if outcome.status != PASSED else set()
    seconds = options.deadline or SECONDS[what] * (parts.DRY if dry else 1)
    runner = Runner(report, seconds - examining, jobs, [*missing, *found.get("missing", {})])
    stop_on_signals(runner)
    print(f"gpu-{what}: {len(planned)} parts, {jobs} side by side, {runner.seconds:.0f} s at most", flush=True)
    runner.run(planned)
    summarize(report, what)
    return report


def stop_on_signals(runner: Runner) -> None:
    """What ends this process ends its parts, which are in process groups of their own."""

    def stop(number: int, _frame: Any) -> None:
        runner.stop()
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)


def summarize(report: Report, what: str) -> None:
    """What failed and what was not run, each reason in full and once, and where it is written down."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for part in report.parts:
        if part["status"] != PASSED:
            reasons.setdefault((part["status"], part["why"]), []).append(part["part"])
    for (status, why), names in reasons.items():
        print(f"  {status}: {', '.join(names)}: {why}")
    passed = sum(part["status"] == PASSED for part in report.parts)
    failed = f"; FAILED: {', '.join(report.failed)}" if report.failed else ""
    print(f"gpu-{what}: {passed} of {len(report.parts)} parts passed{failed}\n{report.path}", flush=True)


def main() -> None:
    options = arguments()
    if options.dry_run and options.out is None:
        options.out = Path(tempfile.mkdtemp(prefix="bnengine-gpu-"))
    options.out = (options.out or RESULTS).resolve()
    examined = examine(options.dry_run)
    chosen = ("verify", "bench") if options.what == "all" else (options.what,)
    reports = [run(what, options, examined) for what in chosen]
    sys.exit(any(report.failed for report in reports))


if __name__ == "__main__":
    main()
