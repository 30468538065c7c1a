"""Compare what this version computes with the record of a5dc171."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import bnengine as bn

from . import allowed, cases, operations, trainings, values
from .digests import Digests, numpy_fingerprint

FOLDER = Path(__file__).parent / "records"
UNITS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}


class Run(NamedTuple):
    """A computation by name; what it gives in each mode must be what is recorded under `kept`."""

    name: str
    mode: str
    digests: Callable[[], Digests]

    @property
    def kept(self) -> str:
        """Native kernels have one record for every way to run them."""
        return "reference" if self.mode == "reference" else "native"


def of_operations() -> Iterator[Run]:
    """Every call of an op, by native kernels where there are any, and by its reference."""
    for name, call in operations.table().items():
        for mode in ("fused", "reference") if operations.has_kernels(name) else ("reference",):
            yield Run(name, mode, lambda call=call, mode=mode: operations.digests(call, mode))


def of_trainings() -> Iterator[Run]:
    """Every training in each of its modes."""
    for name, case in cases.table().items():
        for mode in trainings.modes(name, case):
            yield Run(name, mode, lambda case=case, mode=mode: trainings.outcome(case, mode))


def of_values() -> Iterator[Run]:
    """Everything else."""
    return (Run(*run) for run in values.runs())


SECTIONS: dict[str, Callable[[], Iterator[Run]]] = {
    "operations": of_operations, "trainings": of_trainings, "values": of_values,
}  # fmt: skip


class Recorded:
    """The record of a section."""

    def __init__(self, section: str) -> None:
        self._content = json.loads((FOLDER / f"{section}.json").read_text())
        self.made_by: dict[str, str] = self._content["made by"]
        self.same_numpy = self.made_by["fingerprint"] == numpy_fingerprint()

    def names(self, kept: str) -> set[str]:
        """The computations that are recorded."""
        return set(self._content[kept])

    def digests(self, run: Run) -> Digests:
        """What a computation gave."""
        number, *digests = self._content[run.kept][run.name].split(" ")
        return dict(zip(self._content["tensors"][int(number)], digests, strict=True))


def differences(section: str, recorded: Recorded, runs: Iterator[Run]) -> Iterator[str]:
    """A line for each computation that gives something else than what is recorded."""
    for run in runs:
        if run.kept == "reference" and not recorded.same_numpy:
            if section == "operations" and (wrong := outside_bounds(run.name)):
                yield f"{run.name} ({run.mode}): beyond the bound: {wrong}"
            continue
        expected, found = recorded.digests(run), run.digests()
        names = allowed.compared(run.name, expected.keys() | found.keys())
        if wrong := sorted(name for name in names if expected.get(name) != found.get(name)):
            yield f"{run.name} ({run.mode}): {', '.join(wrong)}"


def outside_bounds(name: str) -> str:
    """The outputs of a reference that are too far from those of native kernels, whose digests are recorded."""
    call = operations.table()[name]
    if not operations.has_kernels(name) or call.into or call.op not in bn.ops.REGISTRY:
        return ""
    unit = UNITS[call.args[0].dtype.name]
    bound = bn.ops.REGISTRY[call.op].contract.bound(unit, *call.args, **call.options)
    bounds = bound._asdict() if hasattr(bound, "_asdict") else {"out": bound}
    native, reference = operations.outputs(call, "fused"), operations.outputs(call, "reference")
    wrong = [key for key, got in native.items() if got is not None and not _near(got, reference[key], bounds[key])]
    return ", ".join(wrong)


def _near(a: Any, b: Any, bound: Any) -> bool:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return bool(np.all((np.abs(a - b) <= 2 * np.asarray(bound)) | (a == b) | (np.isnan(a) & np.isnan(b))))


def native() -> str:
    """Why there are no native kernels here; "" where there are."""
    try:
        with bn.ops.using("fused"):
            bn.ops.total(np.ones((1, 1)), np.ones((1, 1)))
    except bn.InputError as error:
        return str(error)
    return ""
