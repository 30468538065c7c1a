"""The examples of the ops as kernels get them, and what they must give: extended precision, within the op's bound."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from bnengine.ops import REGISTRY, Example
from tests.cuda_on_cpu.launch import Path
from tests.cuda_on_cpu.storage import HALF, STORAGES, Storage
from tests.ops.oracles import ORACLES, long

# The arguments that are in the storage type; the others are in its arithmetic type, or in one of their own.
STORED = {
    "moments": {0},
    "normalize": {0, 4},
    "batch_norm": {0, 3},
    "normalize_backward": {0, 1, 2, 6},
    "activation": {0},
    "activation_backward": {0, 1, 2},
    "affine": {0, 1},
    "affine_backward": {0, 1, 2, 3},
    "total": {0, 1},
    "dropout": {0},
    "dropout_backward": {0},
    "softmax_cross_entropy": {0},
    "binary_cross_entropy": {0},
    "mean_squared_error": {0},
    "correct": {0},
}
# CuPy compiles with -ftz=true, where float32 numbers below 2^-126 are 0: what that may cost, with what 1/sqrt(eps) and
# the like make of it.
FLUSHED = 2.0**10 * 2.0**-126
PATHS = [*(Path(s, s.vector) for s in STORAGES), *(Path(s, 1, offset=1) for s in STORAGES)]
PATHS_WITH_SPLITS = [path._replace(splits=splits) for path in PATHS for splits in (1, 3)]


def label(path: Path) -> str:
    split = "" if path.splits == 1 else f"-{path.splits}-splits"
    return f"{path.storage.name.strip('_')}-{path.vector}-wide{split}"


class Case:
    """An example as a path sees it: `given` as stored, `wide` in float64, and what it should give."""

    def __init__(
        self, name: str, path: Path, example: Example, reshape: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> None:
        self.op, self.options, self.storage = REGISTRY[name], example.options, path.storage
        self.what = f"{name}, {example.label}, {label(path)}"
        arrays = [a if reshape is None or a is None else reshape(a) for a in example.args]
        stored = STORED.get(name, set())
        self.given = [path.storage.of(a) if i in stored and is_floating(a) else a for i, a in enumerate(arrays)]
        self.wide = [path.storage.wide(a) if i in stored and is_floating(a) else a for i, a in enumerate(self.given)]
        self.wide = [a.astype(np.float64) if is_floating(a) else a for a in self.wide]
        with np.errstate(all="ignore"):
            reference = fields(self.op, self.op.reference(*self.wide, **self.options))
            narrow = self.op.between and path.storage.dtype != path.storage.arithmetic
            between = {"between": 2.0**-path.storage.bits} if narrow else {}
            bound = self.op.contract.bound(path.storage.unit, *self.wide, **self.options, **between)
            exact = ORACLES[name](*map(long, self.wide), **{k: long(v) for k, v in self.options.items()})
        self.expected = {field: settled(exact[field], value) for field, value in reference.items()}
        bounds = fields(self.op, bound) if hasattr(bound, "_asdict") else dict.fromkeys(self.expected, bound)
        flushed = FLUSHED if path.storage.arithmetic == np.float32 else 0.0
        self.bound = {field: None if b is None else b + np.where(b > 0, flushed, 0.0) for field, b in bounds.items()}

    def check(self, field: str, got: np.ndarray, *, stored: bool = False) -> float:
        """`stored`: the output is in the storage type and may be off by its rounding too."""
        expected, bound = self.expected[field], self.bound[field]
        with np.errstate(all="ignore"):
            if stored:
                expected = overflowing(expected, self.storage)
                got, bound = self.storage.wide(got), bound + self.storage.rounding(np.abs(expected) + bound)
        return assert_within(got, expected, bound, f"{self.what}, {field}")

    def check_all(self, got: Mapping[str, Any]) -> None:
        """Every output that is there."""
        for field, value in got.items():
            if value is not None:
                self.check(field, value)

    def check_with_reference(self, got: Mapping[str, Any], example: Example) -> None:
        """The reference's outputs and dtypes; within the bound of the exact result, and twice that of the reference."""
        self.check_all(got)
        with np.errstate(all="ignore"):
            reference = fields(self.op, self.op.reference(*example.args, **example.options))
        assert got.keys() == reference.keys()
        for field, expected in reference.items():
            if expected is None:
                assert got[field] is None, (self.what, field)
                continue
            assert got[field].dtype == expected.dtype, (self.what, field)
            with np.errstate(all="ignore"):
                assert_within(got[field], expected, 2 * self.bound[field], f"{self.what}, {field}")


def is_floating(value: Any) -> bool:
    return value is not None and (value.dtype.kind == "f" or value.dtype == np.dtype("V2"))


def fields(op: Any, result: Any) -> dict[str, Any]:
    return dict(result._asdict()) if hasattr(result, "_asdict") else {op.fields[0]: result}


def settled(exact: Any, reference: Any) -> Any:
    """Extended precision where numbers are finite; whether infinity or NaN comes out is the reference's to say."""
    return None if reference is None else np.where(np.isfinite(reference) & np.isfinite(exact), exact, reference)


def overflowing(expected: np.ndarray, storage: Storage) -> np.ndarray:
    """Float16 ends at 65504: what rounds beyond is infinite."""
    return np.where(np.abs(expected) >= 65520, np.copysign(np.inf, expected), expected) if storage is HALF else expected


def cases(name: str, path: Path, reshape: Callable[[np.ndarray], np.ndarray] | None = None) -> Iterator[Case]:
    """Every example of an op."""
    for example in REGISTRY[name].contract.examples(np.random.default_rng(0), path.storage.arithmetic.name):
        yield Case(name, path, example, reshape)


def assert_within(got: np.ndarray, expected: np.ndarray, bound: Any, what: str) -> float:
    """|got - expected| <= bound everywhere; NaN and infinities must be met exactly. Returns the largest share used."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{what}: {got.shape} for {expected.shape}"
    if not got.size:
        return 0.0
    if got.dtype == bool:
        got, expected = got.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        same = (got == expected) | (np.isnan(got) & np.isnan(expected))
        error = np.where(same, 0.0, np.abs(got - expected))
        limit = np.where(same, 1.0, np.broadcast_to(bound, got.shape))
        share = np.where(error <= limit, error / np.where(limit > 0, limit, 1), np.inf)
    i = np.unravel_index(np.argmax(share), got.shape)
    assert share[i] <= 1, f"{what}: {got[i]!r} for {expected[i]!r} at {i}; allowed are {limit[i]!r}"
    return float(share[i])
