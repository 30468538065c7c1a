"""A contender's process, driven over pipes: a line of JSON there, a line of JSON back, or the reason why none came."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..machine import DISTORTING
from .cases import BLAS, COMPILE, EAGER, JAX, ONE_THREAD, V3, file_stem

WORKER = (sys.executable, "-m", "bnengine.lab.bench.cpu.worker")
LEAVING = 2.0  # seconds that a process may take to end by itself
COUNTED = ("BNENGINE_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
UNSET = (*DISTORTING, "BNENGINE_ISA", "MALLOC_ARENA_MAX")
# glibc's malloc keeps freed pages, which PyTorch and JAX would else give back after each temporary, and fault in again.
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(64 << 20)}


class Lost(Exception):
    """A process ended, or did not answer in time."""


class Refused(Exception):
    """A process says why it cannot do something; it goes on."""


def environment(role: str, threads: int, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a contender's process: its best settings, on so many threads."""
    found = {name: value for name, value in inherited.items() if name not in UNSET}
    found |= dict.fromkeys(COUNTED, str(1 if role in (ONE_THREAD, BLAS) else threads))
    root = str(Path(__file__).resolve().parents[4])
    found["PYTHONPATH"] = os.pathsep.join(filter(None, (root, found.get("PYTHONPATH"))))
    if role == V3:
        found["BNENGINE_ISA"] = "v3"
    if role in (EAGER, COMPILE, JAX):
        found |= KEEPING
    if role == JAX:
        found["JAX_PLATFORMS"] = "cpu"
    return found


class Process:
    """A worker: `ask` is a question and its answer. What it writes to the standard error is kept in `errors`."""

    def __init__(self, environment: Mapping[str, str], errors: Path, command: Sequence[str] = WORKER) -> None:
        self.errors = errors
        with errors.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=dict(environment), text=True,
                start_new_session=True,
            )  # fmt: skip
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self._process.poll() is None

    def ask(self, message: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """`tell`, then `hear`."""
        self.tell(message)
        return self.hear(seconds)

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a question; Lost where nobody is there to read it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise Lost(self._ended()) from None

    def hear(self, seconds: float) -> dict[str, Any]:
        """The answer. Lost, and the process is ended, where it does not come; Refused where it is a reason."""
        try:
            line = self._lines.get(timeout=None if seconds == float("inf") else max(seconds, 1e-3))
        except queue.Empty:
            self.end()
            raise Lost(f"no answer within {seconds:.0f} s") from None
        if line is None:
            raise Lost(self._ended())
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            self.end()
            raise Lost(f"it answered {line.strip()[:80]!r}") from None
        if "error" in answer:
            raise Refused(answer["error"])
        return answer

    def _ended(self) -> str:
        """Why it ended, as far as it said."""
        self.end()
        lines = self.errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = f": {lines[-1].strip()[:200]}" if lines else ""
        return f"the process ended with status {self._process.returncode}{said}"

    def close(self) -> None:
        """Let it end by itself, else end it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(LEAVING)
        except (OSError, subprocess.TimeoutExpired):
            self.end()

    def end(self) -> None:
        """End it, and what it has started."""
        assert self._process.stdin is not None
        if self.alive:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()
        with suppress(OSError):  # what was not read any more
            self._process.stdin.close()


class Crew:
    """The processes of all roles: started when they are needed, and again where one has ended."""

    def __init__(self, threads: int, folder: Path, command: Sequence[str] = WORKER) -> None:
        self.threads, self.folder, self.command = threads, folder, command
        self._members: dict[str, Process] = {}

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_error: object) -> None:
        for process in self._members.values():
            process.close()
        self._members.clear()

    def __getitem__(self, role: str) -> Process:
        process = self._members.get(role)
        if process is None or not process.alive:
            errors = self.folder / f"{file_stem(role)}.log"
            # A compiler that was ended in the middle would leave half a file where other runs look for a whole one.
            own = {"TORCHINDUCTOR_CACHE_DIR": str(self.folder / "compiled")}
            process = Process(environment(role, self.threads) | own, errors, (*self.command, role))
            self._members[role] = process
        return process
