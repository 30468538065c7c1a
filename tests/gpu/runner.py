"""Parts of a run: each a process that ends at its deadline, written down as soon as it has ended.

Nothing but the standard library is imported here: what is missing on a machine is a part's outcome, not a crash.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PASSED, FAILED, LATE, REFUSED, NOT_RUN = "passed", "failed", "out of time", "refused", "not run"
KEPT = 6000  # characters of a part's output, its end
ENDED = "the run was ended {} it"
GRACE = 3.0  # seconds in which a part that is late may print its stack
START_UP = 0.5  # a part is begun if this share of its deadline is left to the whole run
STOOD = re.compile(r"most recent call first\):\s*File (.*)")  # the innermost line of a process that was ended
ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONFAULTHANDLER": "1",  # a part that is ended prints its stack
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "BNENGINE_REQUIRE": "cupy",
    "COLUMNS": "120",
}


@dataclass(frozen=True)
class Ended:
    """The result of a process; `status` is None if it was ended at its deadline."""

    status: int | None
    output: str
    notes: Path  # a file that it could write to


@dataclass(frozen=True)
class Outcome:
    """How a part went. `result`: what it measured or found, as JSON has it."""

    status: str
    why: str = ""
    result: Any = None


def by_exit_status(ended: Ended) -> Outcome:
    """Passed if it exits with 0; the last line that it printed says why not."""
    lines = [line for line in ended.output.splitlines() if line.strip()]
    last = lines[-1].strip() if lines else ""
    if ended.status is None:
        stood = STOOD.findall(ended.output)
        where = f"in {stood[-1]}" if stood else f"after printing {last!r}"
        return Outcome(LATE, f"ended at its deadline {where}")
    return Outcome(PASSED, last) if ended.status == 0 else Outcome(FAILED, last or f"exit status {ended.status}")


@dataclass(frozen=True)
class Part:
    """A command and what becomes of it.

    `needs`: modules without which it is not run. `alone`: nothing else runs at the same time. `refusal`: why this
    machine cannot run it at all, if that is known beforehand. `notes`: the path that replaces {notes} in its
    command, so that something is left if the whole run is ended; it is removed once it is part of the report.
    """

    name: str
    command: tuple[str, ...]
    deadline: float
    outcome_of: Callable[[Ended], Outcome] = by_exit_status
    needs: tuple[str, ...] = ()
    alone: bool = False
    refusal: str = ""
    notes: Path | None = None


def run_process(
    command: Sequence[str], seconds: float, environment: dict[str, str], groups: set[int]
) -> tuple[int | None, str]:
    """Exit status and output; None if it was ended, with every process of its group, after `seconds`.

    The group is in `groups` as long as it runs.
    """
    with tempfile.TemporaryFile() as output:  # not a pipe: a child that outlives the part must not be waited for
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        status = None
        groups.add(process.pid)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            _signal(process.pid, signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        finally:
            _signal(process.pid, signal.SIGKILL)  # also what a part left running
            process.wait()
            groups.discard(process.pid)
        output.seek(0)
        return status, output.read().decode(errors="replace")


def _signal(group: int, which: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, which)


class Report:
    """The JSON file of a run, whole after every part."""

    def __init__(self, path: Path, head: dict[str, Any], names: Iterable[str]) -> None:
        self.path, self.head = path, head
        self._parts = {name: {"part": name, "status": NOT_RUN, "why": ENDED.format("before")} for name in names}
        self._lock = threading.Lock()
        self.write()

    def record(self, part: Part, outcome: Outcome, seconds: float, output: str) -> None:
        kept = {"part": part.name, "status": outcome.status, "why": outcome.why, "seconds": round(seconds, 1)}
        kept |= {"deadline_seconds": part.deadline, "command": " ".join(part.command)}
        kept |= {} if outcome.result is None else {"result": outcome.result}
        kept |= {} if outcome.status in (PASSED, NOT_RUN) else {"output": output[-KEPT:]}
        with self._lock:
            self._parts[part.name] = kept
        self.write()

    def write(self) -> None:
        """Replace the file at once: a run that is ended leaves a whole one."""
        with self._lock:
            found = {**self.head, "failed": self.failed, "parts": list(self._parts.values())}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            partial.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            partial.replace(self.path)

    @property
    def parts(self) -> list[dict[str, Any]]:
        return list(self._parts.values())

    @property
    def failed(self) -> list[str]:
        """The parts that failed or did not end in time."""
        return [name for name, part in self._parts.items() if part["status"] in (FAILED, LATE)]


def print_at_once(line: str) -> None:
    print(line, flush=True)


class Runner:
    """Runs parts in their order, `jobs` of them side by side, until the run's own deadline.

    `missing`: modules that cannot be imported. `say` prints a line.
    """

    def __init__(
        self, report: Report, seconds: float, jobs: int = 1, missing: Sequence[str] = (),
        say: Callable[[str], None] = print_at_once,
    ) -> None:  # fmt: skip
        self.report, self.jobs, self.missing, self.say = report, jobs, set(missing), say
        self._running, self._stopped = set[int](), False
        self.seconds, self._end = seconds, time.monotonic() + seconds

    def run(self, parts: Sequence[Part]) -> None:
        """All of them; those in a row that do not run alone share the machine."""
        for alone, group in groupby(parts, key=lambda part: part.alone):
            with ThreadPoolExecutor(1 if alone else self.jobs) as pool:
                for future in [pool.submit(self._run, part) for part in group]:
                    future.result()

    def stop(self) -> None:
        """End the parts that run, and begin no other."""
        self._stopped = True
        for group in list(self._running):
            _signal(group, signal.SIGKILL)

    def _run(self, part: Part) -> None:
        began = time.monotonic()
        left = self._end - began
        if why := self._held_back(part, left):
            outcome, output = why, ""
        else:
            outcome, output = self._judged(part, min(part.deadline, left))
            if self._stopped:
                outcome = Outcome(NOT_RUN, ENDED.format("in"), outcome.result)
        seconds = time.monotonic() - began
        self.report.record(part, outcome, seconds, output)
        if part.notes is not None and outcome.result is not None:
            part.notes.unlink()
        why = outcome.why if outcome.status == PASSED else outcome.why[:160]  # in full at the end
        self.say(f"{seconds:7.1f} s  {part.name:28}  {outcome.status:11}  {why}".rstrip())

    def _held_back(self, part: Part, left: float) -> Outcome | None:
        if self._stopped:
            return Outcome(NOT_RUN, ENDED.format("before"))
        if absent := [name for name in part.needs if name in self.missing]:
            return Outcome(NOT_RUN, f"{', '.join(absent)} cannot be used here")
        if part.refusal:
            return Outcome(REFUSED, part.refusal)
        if left < START_UP * part.deadline:
            needed = f"its deadline is {part.deadline:.0f}"
            return Outcome(NOT_RUN, f"{max(left, 0):.0f} s were left of the run's {self.seconds:.0f}; {needed}")
        return None

    def _judged(self, part: Part, seconds: float) -> tuple[Outcome, str]:
        with tempfile.TemporaryDirectory() as folder:
            notes = part.notes or Path(folder) / "notes"
            notes.unlink(missing_ok=True)
            command = [sys.executable if word == "python" else word.replace("{notes}", str(notes))
                       for word in part.command]  # fmt: skip
            environment = {**ENVIRONMENT, "BNENGINE_GPU_NOTES": str(notes)}
            try:
                status, output = run_process(command, seconds, environment, self._running)
            except OSError as error:
                return Outcome(FAILED, f"it cannot be started: {error}"), ""
            return part.outcome_of(Ended(status, output, notes)), output
