"""A plugin of pytest: each test's beginning and outcome as a line of JSON, to be read also of a run that was ended."""

import json
import os
from pathlib import Path
from typing import Any

NOTES = Path(os.environ["BNENGINE_GPU_NOTES"])


def note(test: str, outcome: str, why: str = "") -> None:
    with NOTES.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"test": test, "outcome": outcome, "why": why}) + "\n")


def pytest_runtest_logstart(nodeid: str, location: Any) -> None:  # noqa: ARG001 -- pytest's name
    note(nodeid, "started")


def pytest_runtest_logreport(report: Any) -> None:
    """The call, and whatever went wrong or was skipped before and after it."""
    if report.when == "call" or report.outcome != "passed":
        note(report.nodeid, report.outcome, _why(report))


def pytest_collectreport(report: Any) -> None:
    if report.failed:
        note(report.nodeid, "failed", _why(report))


def _why(report: Any) -> str:
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = str(crash.message if crash else report.longrepr or "").strip().splitlines() or [""]
    return (lines[0] if crash else lines[-1])[:500]
