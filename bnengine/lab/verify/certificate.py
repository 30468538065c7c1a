"""What a certificate holds: comparisons with their errors and bounds, the machine, and what was not run."""

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, NamedTuple

import numpy as np

from ..._typing import Array
from ..._version import __version__
from ...arrays.backend import Backend, BackendReport


class Row(NamedTuple):
    """One comparison of `a` with `b`: the error at the element that is nearest to its bound, or furthest beyond it.

    `error` is infinite where there is no number to give: a NaN on one side only, another shape, an exception; `what`
    then says which.
    """

    what: str
    a: str
    b: str
    error: float
    bound: float
    ok: bool

    @property
    def share(self) -> float:
        """The error as a share of the bound; 0 for none at all, infinite beyond a bound of 0."""
        if self.error == 0:
            return 0.0
        return self.error / self.bound if self.bound > 0 and isfinite(self.error) else inf


class NotRun(NamedTuple):
    """What was left out, and why, in plain words."""

    what: str
    why: str


@dataclass(frozen=True)
class Certificate:
    """Whether everything that was compared agrees, on which machine, and every comparison."""

    agreed: bool
    environment: dict[str, Any]
    rows: tuple[Row, ...]
    not_run: tuple[NotRun, ...]

    def to_json(self) -> dict[str, Any]:
        """The certificate as JSON values; an error or bound that is not finite is None."""
        rows = [row._asdict() for row in self.rows]
        for row in rows:
            row.update({key: row[key] if isfinite(row[key]) else None for key in ("error", "bound")})
        not_run = [left._asdict() for left in self.not_run]
        return {"agreed": self.agreed, "environment": self.environment, "rows": rows, "not_run": not_run}


class Ledger:
    """Comparisons as they are made; those of one (what, a, b) become one row, the worst of them."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], Row] = {}

    def compare(self, what: str, case: str, a: str, b: str, got: Array, expected: Array, bound: Array) -> None:
        """Note whether two NumPy arrays agree within `bound`, which broadcasts; `case` is told where they do not."""
        error, limit, reason = worst(got, expected, bound)
        shown = f"{what} ({case}{reason})" if reason else what
        self._note((what, a, b), Row(shown, a, b, error, limit, not reason))

    def fail(self, what: str, case: str, a: str, b: str, reason: str) -> None:
        """Note a comparison that could not be made for a reason that is itself a disagreement."""
        self._note((what, a, b), Row(f"{what} ({case}: {reason})", a, b, inf, 0.0, False))

    @contextmanager
    def watching(self, what: str, case: str, a: str, b: str) -> Iterator[None]:
        """Whatever is raised inside is a disagreement with a name, and no end of the certificate."""
        try:
            yield
        except Exception as error:  # a library or kernel that cannot do what NumPy can
            lines = str(error).strip().splitlines() or [""]
            self.fail(what, case, a, b, f"raised {type(error).__name__}: {lines[0]}")

    def _note(self, key: tuple[str, str, str], row: Row) -> None:
        held = self._rows.get(key)
        if held is None or (held.ok, -held.share) > (row.ok, -row.share):
            self._rows[key] = row

    def rows(self) -> tuple[Row, ...]:
        """Every row, in the order in which their comparisons began."""
        return tuple(self._rows.values())


def worst(got: Array, expected: Array, bound: Array) -> tuple[float, float, str]:
    """(error, bound, "" or why they disagree) at the element whose error is the largest share of its bound.

    Equal elements, NaN in both included, have no error; their bound may then be anything, even NaN.
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
    found, allowed = float(error.flat[i]), float(limit.flat[i])
    return found if isfinite(found) else inf, allowed if allowed == allowed else 0.0, reason


def environment(backends: Sequence[Backend], reports: Sequence[BackendReport]) -> dict[str, Any]:
    """The machine and its array libraries as JSON values; `driver` and `runtime` are CUDA's, None without a GPU."""
    found: dict[str, Any] = {
        "bnengine": __version__,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "backends": [vars(report) for report in reports],
        "device": next((r.device for r in reports if r.name == "cupy" and r.usable), None),
        "driver": None,
        "runtime": None,
    }
    for backend in backends:
        if backend.name == "cupy":
            cuda, device = backend.xp.cuda.runtime, backend.device
            found["device"] = f"{found['device']}, number {device.id}, compute capability {device.compute_capability}"
            found["driver"], found["runtime"] = int(cuda.driverGetVersion()), int(cuda.runtimeGetVersion())
    return found
