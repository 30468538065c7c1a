"""Batch normalisation by the engine's own launchers, on the path that a test asks for, under every thread schedule."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from bnengine.fused.cuda import _launch, _load
from bnengine.fused.cuda import batch_norm as launchers
from bnengine.ops import Out
from bnengine.runtime.memory import Memory
from tests.cuda_on_cpu.launch import Destination, Path
from tests.cuda_on_cpu.module import SCHEDULES
from tests.cuda_on_cpu.storage import BFLOAT, BFLOAT16
from tests.fused import simulated_cupy as device


@contextmanager
def forced(path: Path, at_once: bool) -> Iterator[None]:
    """What launchers tell from an array's shape and address is told by the path; all else is theirs."""

    def grid(_x: Any, _rows: int, channels: int, vector: int, *, sums: bool) -> tuple[int, int]:  # noqa: ARG001
        return -(-channels // _launch.slice_width(vector)), path.splits

    with pytest.MonkeyPatch.context() as patched:
        device.installed(patched)
        patched.setattr(launchers, "vector_of", lambda *_: path.vector)
        patched.setattr(launchers, "sliced_grid", grid)
        patched.setattr(launchers, "on_chip", lambda *_: at_once)
        patched.setitem(_launch.STORAGES, BFLOAT16.name, BFLOAT.name)
        yield
    device.forget()


def run(
    path: Path, launcher: Callable[..., Any], *args: Any, into: dict[str, Destination] | None = None,
    at_once: bool = False, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """The outputs by name, the same bytes under all schedules; inputs and counters must be left as they were."""
    outcomes = []
    with forced(path, at_once):
        for schedule in SCHEDULES:
            device.STATE.schedule = schedule
            given = [moved(a, path) for a in args]
            targets = {field: Out(moved(d.array, path), d.adds) for field, d in (into or {}).items()}
            result = launcher(Memory("fused").outputs(targets), *given, **options)
            for before, after in zip(args, given, strict=True):
                assert before is None or after.get().tobytes() == before.tobytes(), "wrote to an input"
            assert not any(counters.get().any() for counters in _load._arrivals.values()), "left a counter"
            outcomes.append(result._asdict() if hasattr(result, "_asdict") else {"out": result})
            outcomes[-1] = {f: None if a is None else a.get() for f, a in outcomes[-1].items()}
    for schedule, outcome in zip(SCHEDULES, outcomes, strict=True):
        for field, first in outcomes[0].items():
            same = first is None or first.tobytes() == outcome[field].tobytes()
            assert same, f"{launcher.__name__}: {field} depends on the schedule ({schedule} against forward)"
    return outcomes[0]


def moved(a: Any, path: Path) -> Any:
    """The array on the device, as many elements off a 16-byte address as the path says."""
    if a is None:
        return None
    memory = device.fresh((a.size + path.offset,), a.dtype)[path.offset :].reshape(*a.shape)
    memory[...] = device.on_device(a)
    return memory


def shape_of(x: np.ndarray) -> tuple[int, int]:
    return x.size // x.shape[-1], x.shape[-1]


def moments(path: Path, x: np.ndarray, into: dict[str, Destination] | None = None) -> Any:
    """The batch's own."""
    return run(path, launchers.moments, x, into=into)["batch"]


def normalize(path: Path, *args: Any, **options: Any) -> Any:
    return run(path, launchers.normalize, *args, **options)["out"]


def batch_norm(path: Path, *args: Any, launches: int = 1, **options: Any) -> dict[str, Any]:
    """y, batch and pending by one launch or two."""
    return run(path, launchers.batch_norm, *args, at_once=launches == 1, **options)


def normalize_backward(path: Path, *args: Any, launches: int = 2, **options: Any) -> dict[str, Any]:
    """dx, dadd, dgamma, dbeta by one launch or two."""
    return run(path, launchers.normalize_backward, *args, at_once=launches == 1, **options)
