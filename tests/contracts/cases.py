"""What an op must give for an example: the exact result, and how far each output may be from it."""

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import numpy as np

from bnengine.arrays.dtypes import LEAST, is_narrow, unit_stored
from bnengine.arrays.namespaces import dtype_name
from bnengine.ops import REGISTRY, Example
from bnengine.ops.update import RULES
from tests.contracts.examples import sized, special
from tests.contracts.oracles import ORACLES, long

UNIT = {"float16": 2.0**-24, "bfloat16": 2.0**-24, "float32": 2.0**-24, "float64": 2.0**-53}  # of the arithmetic
# CuPy compiles with -ftz=true, where float32 numbers below 2^-126 are 0: what that may cost, with what 1/sqrt(eps) and
# the like make of it.
FLUSHED = 2.0**10 * 2.0**-126


def fields(op: Any, result: Any) -> dict[str, Any]:
    """The outputs of an op by name."""
    return dict(result._asdict()) if hasattr(result, "_asdict") else {op.fields[0]: result}


def wide(value: Any) -> Any:
    """Arrays of 32 and 16 bits in float64, in which bounds and references are computed."""
    if not isinstance(value, np.ndarray) or not dtype_name(value.dtype).startswith(("float", "bfloat")):
        return value
    return value.astype(np.float32).astype(np.float64) if is_narrow(value.dtype) else value.astype(np.float64)


def finite(value: Any) -> Any:
    """0 for what is not finite, which a bound cannot grow with."""
    return np.nan_to_num(value, nan=0, posinf=0, neginf=0) if isinstance(value, np.ndarray) else value


class Case:
    """An example, its exact outputs, and the bound of each.

    Args:
        special: Whether the reference says which outputs are NaN or infinite; else the formula does.
    """

    def __init__(self, name: str, example: Example, dtype: str, special: bool = False) -> None:
        self.op, self.example, self.dtype = REGISTRY[name], example, dtype
        self.what = f"{name}, {dtype}, {example.label}"
        options = example.options
        with np.errstate(all="ignore"):
            reference = fields(self.op, self.op.reference(*example.args, **options))
            expected = ORACLES[name](*map(long, example.args), **{k: long(v) for k, v in options.items()})
            if special:
                expected = {f: where_finite(expected[f], wide(r)) for f, r in reference.items()}
            self.dtypes = {f: None if r is None else r.dtype for f, r in reference.items()}
            self.expected = {f: None if d is None else overflown(expected[f], d) for f, d in self.dtypes.items()}
            self.special = special
            self.bound = self._bounds(0.0)
            between = unit_stored(np.dtype(dtype)) if self.op.between else 0.0
            self.between = self._bounds(between) if between else self.bound

    def _bounds(self, between: float) -> dict[str, Any]:
        """`between`: the unit that kernels round intermediate results to."""
        args, options = [finite(wide(a)) for a in self.example.args], self.example.options
        more = {"between": between} if between else {}
        given = {k: finite(wide(v)) for k, v in options.items()}
        bound = self.op.contract.bound(UNIT[self.dtype], *args, **given, **more)
        bounds = fields(self.op, bound) if hasattr(bound, "_asdict") else dict.fromkeys(self.op.fields, bound)
        for field, exact in self.expected.items():
            if self.special and exact is not None and exact.dtype.kind == "f":
                usable = np.isfinite(bounds[field]) & (np.asarray(bounds[field]) >= 0)
                bounds[field] = np.where(usable, bounds[field], 1000 * UNIT[self.dtype] * np.abs(exact))
            stored = self.dtypes[field]
            if exact is not None and (unit := unit_stored(stored)):
                size = np.abs(np.where(np.isfinite(exact), exact, 0)) + bounds[field]
                bounds[field] = bounds[field] + unit * size + LEAST[stored.name]
        return bounds

    def check(self, got: Mapping[str, Any], what: str = "", *, kernels: bool = False, flushed: bool = False) -> None:
        """Every output is there or not, has its dtype, and is within its bound of the exact result."""
        assert got.keys() == self.expected.keys(), f"{self.what} {what}"
        bounds = self.between if kernels else self.bound
        for field, exact in self.expected.items():
            where, array = f"{self.what} {what}, {field}", got[field]
            assert (array is None) == (exact is None), where
            if exact is not None:
                assert array.dtype == self.dtypes[field], f"{where}: {array.dtype}"
                slack = np.where(np.asarray(bounds[field]) > 0, FLUSHED, 0) if flushed else 0
                assert_within(array, exact, bounds[field] + slack, where)
        self.check_still(got)

    def check_still(self, got: Mapping[str, Any]) -> None:
        """What is frozen, and everything in a step that is not ok, keeps every bit."""
        if (rule := RULES.get(self.op.name)) is None:
            return
        call = rule.call(*self.example.args)
        still = np.full(call.parameters.shape, not call.ok[0])
        for begin, end in self.example.options.get("frozen", ()):
            still[begin:end] = True
        for field, old in zip(self.op.fields, (call.parameters, *call.slots), strict=False):
            if old is not None:
                assert bits(got[field][still]) == bits(old[still]), f"{self.what}, {field} moved"
        if call.copy16 is not None:
            with np.errstate(over="ignore"):
                new = got["parameters"].astype(call.copy16.dtype) if call.ok[0] else call.copy16
            assert bits(got["copy16"]) == bits(new), f"{self.what}, copy16"


def where_finite(exact: Any, reference: Any) -> Any:
    """The exact result where it is finite, else what the reference gives, which also says what is true."""
    if reference is None or reference.dtype == bool:
        return reference
    return np.where(np.isfinite(reference) & np.isfinite(exact), exact, reference)


def overflown(exact: np.ndarray, stored: Any) -> np.ndarray:
    """Float16 ends at 65504: what rounds beyond is infinite."""
    exact = np.asarray(exact)
    return np.where(np.abs(exact) >= 65520, np.copysign(np.inf, exact), exact) if stored == np.float16 else exact


@cache
def cases(name: str, dtype: str) -> list[Case]:
    """The cases of a contract's examples."""
    return [Case(name, e, dtype) for e in REGISTRY[name].contract.examples(np.random.default_rng(0), dtype)]


@lru_cache(2)
def sized_cases(name: str, dtype: str) -> list[Case]:
    """Those of larger examples. A reference that adds up a thousand rows in a chain may miss its bound there."""
    return [Case(name, example, dtype) for example in sized(name, dtype)]


@lru_cache(2)
def special_cases(name: str, dtype: str) -> list[Case]:
    return [Case(name, example, dtype, special=True) for example in special(name, dtype)]


def assert_within(got: Any, expected: Any, bound: Any, what: str) -> None:
    """|got - expected| <= bound everywhere; NaN and infinities are met exactly."""
    got, expected = (np.asarray(a).astype(np.longdouble) for a in (got, expected))
    assert got.shape == expected.shape, f"{what}: {got.shape} for {expected.shape}"
    with np.errstate(invalid="ignore", over="ignore"):
        same = (got == expected) | (np.isnan(got) & np.isnan(expected))
        error = np.where(same, 0, np.abs(got - expected))
        right = same | (error <= bound)
    if not right.all():
        i = np.argmin(right)
        allowed = np.broadcast_to(bound, got.shape).flat[i]
        raise AssertionError(f"{what}: {got.flat[i]!r} for {expected.flat[i]!r} at {i}; allowed are {allowed!r}")


def bits(a: np.ndarray) -> bytes:
    """The bytes of an array, with one NaN for all."""
    spoiled = a != a
    return np.where(spoiled, np.asarray(np.nan, a.dtype), a).tobytes() if spoiled.any() else a.tobytes()
