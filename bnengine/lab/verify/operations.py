"""Every op of the registry on all of its examples, ordinary and adversarial, in every dtype.

A fused version is compared with the reference on the same arrays, the reference on another library with NumPy's, and
both with float64. So a disagreement shows whether a kernel or a library is wrong. Outputs that can accumulate also run
that way, and are compared with the op's rule on the plain output of the same variant.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._typing import Array
from ...arrays.dtypes import UNITS
from ...arrays.namespaces import dtype_name
from ...ops import REGISTRY, Example, Op, Out, merge
from ...runtime.memory import Memory
from .bounds import bound_of, fields, stored_rounding
from .certificate import Ledger
from .draws import Draws
from .variants import DTYPES, UNIT, Variant, narrow_dtypes, wide


class OpCase(NamedTuple):
    """An example of an op, the result of the reference in float64, and its allowed error."""

    op: Op[Any]
    dtype: str
    example: Example
    truth: dict[str, Any]
    bounds: dict[str, Any]


def verify_ops(ledger: Ledger, numpy: Variant, variants: Sequence[Variant], seed: int) -> None:
    """Compare all variants with each other and with float64 on every example; `numpy` is any variant on NumPy."""
    for name, op in sorted(REGISTRY.items()):
        for dtype in (*DTYPES, *narrow_dtypes(numpy.backend)[0]):
            chosen = [v for v in variants if v.dtype == dtype and (v.mode == "reference" or v.fused(op) is None)]
            for example in op.contract.examples(Draws(seed, name, dtype), dtype):
                with np.errstate(all="ignore"):
                    _compare(ledger, _case(op, dtype, example), numpy._replace(dtype=dtype), chosen)


def _case(op: Op[Any], dtype: str, example: Example) -> OpCase:
    args = tuple(map(wide, example.args))
    options = {key: wide(value) for key, value in example.options.items()}
    result = op.reference(*args, **options)
    return OpCase(op, dtype, example, fields(op, result), bound_of(op, UNIT[dtype], args, options, result, dtype))


def _compare(ledger: Ledger, case: OpCase, numpy: Variant, variants: Sequence[Variant]) -> None:
    """Compare the variants; references come first, since others are compared with them."""
    results = {numpy.label: _result(case, numpy, {})}
    if case.dtype != "float64":
        _note(ledger, case, numpy.label, "numpy float64", results[numpy.label], case.truth)
    for variant in variants:
        hop = numpy if variant.mode == "reference" else variant._replace(mode="reference")
        name = f"op {case.op.name}"
        with ledger.guard(name, case.example.label, variant.label, hop.label):
            results[variant.label] = result = _result(case, variant, {})
            if hop.label in results:
                _note(ledger, case, variant.label, hop.label, result, results[hop.label], same_dtype=True)
            if hop.label != "numpy float64":
                _note(ledger, case, variant.label, "numpy float64", result, case.truth)
            _compare_accumulated(ledger, case, variant, result)


def _result(case: OpCase, variant: Variant, into: dict[str, Out]) -> dict[str, Any]:
    """The result of a variant for an example, as NumPy arrays."""
    example = case.example
    args = [variant.carry(a) for a in example.args]
    options = {key: variant.carry(value) for key, value in example.options.items()}
    result = Memory(variant.mode).run(case.op, *args, into=into, **options)
    return {name: None if a is None else variant.fetch(a) for name, a in fields(case.op, result).items()}


def _note(
    ledger: Ledger,
    case: OpCase,
    a: str,
    b: str,
    got: dict[str, Any],
    expected: dict[str, Any],
    same_dtype: bool = False,
) -> None:
    for field, value in got.items():
        what, wanted = f"op {case.op.name}: {field}", expected[field]
        if (value is None) != (wanted is None):
            ledger.fail(what, case.example.label, a, b, "only one has this output")
        elif value is not None and same_dtype and value.dtype != wanted.dtype:
            ledger.fail(what, case.example.label, a, b, f"dtype {value.dtype} instead of {wanted.dtype}")
        elif value is not None:
            bound = case.bounds[field]
            if same_dtype:  # both results were rounded to 16 bits
                bound = bound + stored_rounding(case.op, field, wide(wanted), case.dtype)
            ledger.compare(what, case.example.label, a, b, value, wanted, bound)


def _compare_accumulated(ledger: Ledger, case: OpCase, variant: Variant, plain: dict[str, Any]) -> None:
    """Compare each output added into a destination with the rule on the plain output of the same variant."""
    for field, rule in case.op.accumulates.items():
        value = plain[field]
        if value is None:
            continue
        before = np.resize(np.linspace(0.5, 2.5, 7), value.shape).astype(value.dtype)
        got = _result(case, variant, {field: Out(variant.carry(before), adds=True)})[field]
        expected, bound = rule(wide(before), wide(value)), case.bounds[field]
        if rule is merge.reference:
            rounding = merge.contract.bound(UNIT["float64"], before, value)
            shift = np.abs(value[1]) + np.abs(before[1])
            carried = np.stack([bound[0], bound[1], bound[2] + shift * bound[1] / 2 + bound[1] ** 2])
        else:
            unit = UNITS[dtype_name(value.dtype)]
            rounding, carried = 10 * unit * (np.abs(before) + np.abs(wide(value))), bound
        _one(ledger, case, field, variant, got, expected, carried + rounding)


def _one(ledger: Ledger, case: OpCase, field: str, variant: Variant, got: Array, expected: Array, bound: Array) -> None:
    label = variant.label
    ledger.compare(
        f"op {case.op.name}: {field} added", case.example.label, label, f"{label} plain", got, expected, bound
    )
