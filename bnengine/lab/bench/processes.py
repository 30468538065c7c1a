"""The processes of workers on a CPU: their environment, and how they are asked."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..environment import DISTORTING
from .cases import BLAS, JAX, ONE_THREAD, V3
from .worker import accepted

WORKER = (sys.executable, "-c", "import sys; from bnengine.lab.bench.worker import main; main(sys.argv[1])")
LEAVING_S = 2.0  # that a process may take to end by itself
THREADS = ("BNENGINE_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
UNSET = (*DISTORTING, "BNENGINE_ISA", "MALLOC_ARENA_MAX")
# glibc's malloc keeps freed pages; otherwise PyTorch and JAX return them after each temporary and fault them in again.
KEEP_PAGES = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(64 << 20)}


class Lost(Exception):
    """A process ended, or did not answer in time."""


def environment(role: str, threads: int, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a contender's process: its best settings, on `threads` threads."""
    variables = {name: value for name, value in inherited.items() if name not in UNSET}
    variables |= dict.fromkeys(THREADS, str(1 if role in (ONE_THREAD, BLAS) else threads))
    root = str(Path(__file__).resolve().parents[3])
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, (root, variables.get("PYTHONPATH"))))
    if role == V3:
        variables["BNENGINE_ISA"] = "v3"
    if role == JAX or role.startswith("PyTorch"):
        variables |= KEEP_PAGES | {"JAX_PLATFORMS": "cpu"}
    return variables


class Process:
    """A worker in its own process, driven by lines of JSON; its standard error goes to the file `errors`."""

    def __init__(self, environment: Mapping[str, str], errors: Path, command: Sequence[str]) -> None:
        self.errors = errors
        with errors.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=dict(environment), text=True,
                start_new_session=True,
            )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def ask(self, message: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Send a message and return the answer.

        Raises:
            Lost: no valid answer came within `seconds`; the process is ended.
            Refused: the answer is a reason.
        """
        line, self._late = "", False
        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._kill)
        timer.start()
        with suppress(OSError, ValueError):
            print(json.dumps(message), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline() if self._process.stdout else ""
        timer.cancel()
        try:
            return accepted(json.loads(line))
        except ValueError:
            late = f"no answer within {seconds:.0f} s" if self._late else ""
            self.end()
            raise Lost(late or (f"it answered {line.strip()[:80]!r}" if line else self._why_ended())) from None

    def _why_ended(self) -> str:
        lines = self.errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = f": {lines[-1].strip()[:200]}" if lines else ""
        return f"the process ended with status {self._process.returncode}{said}"

    def _kill(self) -> None:
        """Kill the process and its children."""
        self._late = True
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def end(self, patience: float = 0.0) -> None:
        """Let the process end by itself in `patience` seconds, else kill it and its children."""
        with self._process:
            with suppress(OSError, subprocess.TimeoutExpired):
                self._process.communicate(timeout=patience)
            if self.alive:
                self._kill()


class Processes:
    """The processes of all roles, started when they are needed, and again where one has ended."""

    def __init__(self, threads: int, folder: Path, command: Sequence[str] = WORKER) -> None:
        self.threads, self.folder, self.command = threads, folder, command
        self._members: dict[str, Process] = {}

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_error: object) -> None:
        for process in self._members.values():
            process.end(LEAVING_S)
        self._members.clear()

    def __getitem__(self, role: str) -> Process:
        process = self._members.get(role)
        if process is None or not process.alive:
            errors = self.folder / f"{role.replace(' ', '-').replace(',', '')}.log"
            # A killed compiler would leave half a file in a cache that other runs share.
            cache = {"TORCHINDUCTOR_CACHE_DIR": str(self.folder / "compiled")}
            process = Process(environment(role, self.threads) | cache, errors, (*self.command, role))
            self._members[role] = process
        return process
