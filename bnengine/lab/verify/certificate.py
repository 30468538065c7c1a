"""The contents of a certificate: comparisons with their errors and bounds, the machine, and what was not run."""

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, NamedTuple

import numpy as np

from ..._typing import Array
from ..._version import __version__
from ...arrays.backend import GPU, Backend, BackendReport

JSON_KEYS = "what", "a", "b", "error", "bound", "ok"  # the fields of a row in JSON


class Row(NamedTuple):
    """One comparison of `a` with `b`: the error at the element nearest to its bound, or furthest beyond it.

    `error` is infinite without a number: a NaN on one side only, another shape, an exception; `what` then says which.
    """

    what: str
    a: str
    b: str
    error: float
    bound: float
    ok: bool
    part: str  # of the certificate: "ops", "layers", "optimizers", "trainings"
    subject: str  # `what` without the case and the reason of a disagreement

    @property
    def share(self) -> float:
        """The error as a share of the bound; 0 for none at all, infinite beyond a bound of 0."""
        if self.error == 0:
            return 0.0
        return self.error / self.bound if self.bound > 0 and isfinite(self.error) else inf


class NotRun(NamedTuple):
    """What was not run, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Certificate:
    """Whether all comparisons agree, the machine, and every comparison."""

    agreed: bool
    environment: dict[str, Any]
    rows: tuple[Row, ...]
    not_run: tuple[NotRun, ...]

    def to_json(self) -> dict[str, Any]:
        """The certificate as JSON values; an error or bound that is not finite is None."""
        rows: list[dict[str, Any]] = [dict(zip(JSON_KEYS, row, strict=False)) for row in self.rows]
        for row in rows:
            row.update({key: row[key] if isfinite(row[key]) else None for key in ("error", "bound")})
        not_run = [left._asdict() for left in self.not_run]
        return {"agreed": self.agreed, "environment": self.environment, "rows": rows, "not_run": not_run}


class Ledger:
    """Collects comparisons; those of one (what, a, b) become one row, the worst of them."""

    def __init__(self) -> None:
        self.part = ""  # of the certificate, which the next comparisons belong to
        self._rows: dict[tuple[str, str, str], Row] = {}

    def compare(self, what: str, case: str, a: str, b: str, got: Array, expected: Array, bound: Array) -> None:
        """Record whether two NumPy arrays agree within `bound`, which broadcasts; a disagreement names `case`."""
        error, limit, reason = worst(got, expected, bound)
        shown = f"{what} ({case}{reason})" if reason else what
        self._note(Row(shown, a, b, error, limit, not reason, self.part, what))

    def fail(self, what: str, case: str, a: str, b: str, reason: str) -> None:
        """Record a disagreement without numbers, with its reason."""
        self._note(Row(f"{what} ({case}: {reason})", a, b, inf, 0.0, False, self.part, what))

    @contextmanager
    def guard(self, what: str, case: str, a: str, b: str) -> Iterator[None]:
        """Record an exception as a failed comparison instead of aborting."""
        try:
            yield
        except Exception as error:  # a library or kernel may raise anything
            lines = str(error).strip().splitlines() or [""]
            self.fail(what, case, a, b, f"raised {type(error).__name__}: {lines[0]}")

    def _note(self, row: Row) -> None:
        key = (row.subject, row.a, row.b)
        worst_row = self._rows.get(key)
        if worst_row is None or (worst_row.ok, -worst_row.share) > (row.ok, -row.share):
            self._rows[key] = row

    def rows(self) -> tuple[Row, ...]:
        """Every row, in the order of their first comparisons."""
        return tuple(self._rows.values())


def worst(got: Array, expected: Array, bound: Array) -> tuple[float, float, str]:
    """(error, bound, "" or the reason of a disagreement) at the element whose error is the largest share of its bound.

    Equal elements, including NaN in both, have no error; their bound may be anything, even NaN.
    """
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape:
        return inf, 0.0, f": shape {got.shape} instead of {expected.shape}"
    if got.size == 0:
        return 0.0, 0.0, ""
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    limit = np.broadcast_to(np.asarray(bound, np.float64), got.shape)
    with np.errstate(all="ignore"):
        same = (got == expected) | (np.isnan(got) & np.isnan(expected))
        error = np.where(same, 0.0, np.abs(got - expected))
        share = np.where(same, 0.0, np.where(limit > 0, error / limit, np.inf))
    share = np.where(np.isnan(share), np.inf, share)
    bad = ~same & ~(error <= limit)
    i = int(np.argmax(np.where(bad, np.maximum(share, 1.0), np.where(bad.any(), -1.0, share))))
    reason = f", element {i}: {got.flat[i]:.9g} instead of {expected.flat[i]:.9g}" if bad.any() else ""
    difference, allowed = float(error.flat[i]), float(limit.flat[i])
    return difference if isfinite(difference) else inf, allowed if allowed == allowed else 0.0, reason


def environment(backends: Sequence[Backend], reports: Sequence[BackendReport]) -> dict[str, Any]:
    """The machine and its libraries as JSON values; `driver` and `runtime` are those of CUDA, None without a GPU."""
    values: dict[str, Any] = {
        "bnengine": __version__,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "backends": [vars(report) for report in reports],
        "device": next((r.device for r in reports if r.name == GPU and r.usable), None),
        "driver": None,
        "runtime": None,
    }
    for backend in backends:
        if backend.on_gpu:
            cuda, device = backend.xp.cuda.runtime, backend.device
            values["device"] = f"{values['device']}, number {device.id}, compute capability {device.compute_capability}"
            values["driver"], values["runtime"] = int(cuda.driverGetVersion()), int(cuda.runtimeGetVersion())
    return values
