"""Error bounds: those of the ops, and from them those of everything that is made of ops.

**One op.** Its contract's formula, `bound(u, *inputs)`, on the inputs in float64, with u = 2^-24 for float32 and 2^-53
for float64. This module adds:

- Underflow makes an error absolute: in float64 at most 10 times the smallest subnormal number, in float32 2^10 times
the
  smallest normal one. CuPy compiles with -ftz=true, whatever the options, so subnormal float32 numbers are 0 on a GPU;
  the factor covers a division by sqrt(eps).
- In float64, sums over rows have no wider accumulator, and the rounding errors of n additions walk at random: for ops
  that sum over n rows u becomes u (1 + sqrt(n) / 10) (Higham and Mary 2019, theorem 3.1; float32 is summed in float64).
- A value that relu sets to 0 adds no error: in the backward of a piecewise linear activation dz replaces dy, since the
  sign of y gives it exactly.
- What is stored in 16 bits may be off by that rounding, also between launches; all else by float32's.
- The divisor of an optimizer comes from its new state, since the old one is 0 in the first step. Decoupled decay does
  not pass through it.

**Layers, networks, steps.** A pass in precision u is the pass in float64 in which op k errs by some e_k with |e_k| <=
b_k, its bound on its inputs. To first order the error of a result is sum_k J_k e_k with J_k the derivative of the
result by output k, the condition of the rest of the pass. It is measured: the pass runs in float64 on NumPy with +b_k
or -b_k, at random, added to every output, and again with all signs flipped. The bound is the larger deviation of such a
pair, summed over three pairs; for a matrix the largest of each column, for a vector the largest of all. A bound b_k is
at least ten times the rounding error, so rounding stays far within it; a wrong sign, a dropped term, an error of 1e-4
does not. (Parker 1997, Monte Carlo arithmetic; Vignes 1993.)

At a jump of g' by the sign of z, as of relu, the error is added to z. Both signs of the error run, so a unit whose z
could have the other sign has it in one run of the pair, and the bound covers the gradients of a flipped unit.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from ..._typing import Array
from ...arrays.dtypes import LEAST, unit_stored
from ...contracts.activations import sensitivity_of
from ...contracts.update import by_new_state
from ...losses import LOSSES
from ...ops import Op, Out, merge
from ...ops.activations import ACTIVATIONS, activate, derivative
from ...ops.update import RULES
from ...runtime.memory import Arena
from .draws import Signs

UNDERFLOW = {2.0**-24: 2.0**10 * 2.0**-126, 2.0**-53: 10 * 2.0**-1074}
SQUARES = {name for rule in RULES.values() for name, slot in rule.slots.items() if slot.square}
Y_OF = {"activation_backward": 2, "affine_backward": 3, "normalize_backward": 2}  # the position of their output y
STORED = {
    **dict.fromkeys(("affine", "normalize", "activation", "activation_backward", "total"), ("out",)),
    **dict.fromkeys(("dropout", "dropout_backward"), ("out",)),
    **dict.fromkeys(LOSSES, ("dlogits",)),
    **dict.fromkeys(RULES, ("copy16",)),
    "batch_norm": ("y",),
    "affine_backward": ("dx",),
    "normalize_backward": ("dx", "dadd"),
}  # the outputs stored in the dtype of activations; with 16 bits all others are wider
BEFORE_STEP = {
    "activation": "out",
    "affine": "out",
    "normalize": "out",
    "batch_norm": "y",
}  # the output after the activation


def _steps(kind: str, slope: float | None) -> bool:
    """Whether the derivative jumps, and is computed from the output."""
    return ACTIVATIONS[kind].reads == "y" and bool(sensitivity_of(kind, slope).kinks)


def fields(op: Op[Any], result: Any) -> dict[str, Any]:
    """An op's result, or bound, by the names of its outputs; a single bound applies to each."""
    if hasattr(result, "_asdict"):
        return dict(result._asdict())
    return dict.fromkeys(op.fields, result)


def bound_of(
    op: Op[Any], u: float, args: tuple[Any, ...], options: dict[str, Any], result: Any, storage: str = "float64"
) -> dict[str, Any]:
    """The allowed error of each output of an op.

    Args:
        op: the op.
        u: the unit of rounding.
        args: the inputs, NumPy arrays in float64.
        options: of the call.
        result: that of the reference, in float64.
        storage: the dtype of activations, if it has 16 bits.
    """
    walk = 1 + np.sqrt(_summed(op, args)) / 10 if u == 2.0**-53 else 1.0
    stored = unit_stored(storage)
    more: dict[str, Any] = {"between": stored} if stored and op.between else {}
    if op.family == "dense":
        more["chain"] = np.inf  # cublasLt cuts no sum
    with np.errstate(all="ignore"):
        bounds = fields(op, op.contract.bound(u * walk, *_bound_args(op, args, options, result), **options, **more))
    if stored:
        values = fields(op, result)
        for name in [n for n in STORED.get(op.name, ()) if values[n] is not None]:
            bounds[name] = bounds[name] + stored_rounding(op, name, np.abs(values[name]) + bounds[name], storage)
    return {name: None if bound is None else _subnormal(np.asarray(bound), u) for name, bound in bounds.items()}


def stored_rounding(op: Op[Any], field: str, value: Array, storage: str) -> Array | float:
    """The rounding error of storing an output of size `value` in 16 bits; 0 for other storage."""
    stored = unit_stored(storage)
    if not stored or field not in STORED.get(op.name, ()):
        return 0.0
    size = np.abs(value)
    return np.where(np.isfinite(size), stored * size, 0.0) + LEAST[storage]


def _summed(op: Op[Any], args: tuple[Any, ...]) -> int:
    """The number of terms of the op's sums."""
    if op.name in ("moments", "batch_norm", "normalize_backward", "affine_backward"):
        return prod(args[0].shape[:-1])
    return args[0].size if op.name in LOSSES else 0


def _subnormal(bound: Array, u: float) -> Array:
    """The bound with the error of underflow; 0 means exactly, and 0/0 comes from gradients that are 0."""
    bound = np.asarray(np.where(np.isnan(bound), 0.0, bound), np.float64)
    return np.asarray(bound + np.where(bound > 0, UNDERFLOW[u], 0.0))


def _bound_args(op: Op[Any], args: tuple[Any, ...], options: dict[str, Any], result: Any) -> tuple[Any, ...]:
    """The arguments of the bound: dz for dy at a step function, and the new state of an optimizer."""
    kind, slope = options.get("activation", options.get("kind", "identity")), options.get("slope")
    if op.name in Y_OF and _steps(kind, slope) and not sensitivity_of(kind, slope).curvature:
        return (derivative(args[0], args[Y_OF[op.name]], kind, slope), *args[1:])
    return by_new_state(op, args, result)


class Perturbed(Arena):
    """Memory in which each op runs its reference and perturbs its outputs by +-bound; `sign` flips all signs together.

    `storage` of 16 bits adds the rounding of stored activations.
    """

    def __init__(self, u: float, signs: Signs, sign: int, storage: str = "float64") -> None:
        super().__init__("reference")
        self.u, self.signs, self.sign, self.storage, self.calls = u, signs, sign, storage, 0

    def outputs(self, into: Mapping[str, Out]) -> Any:
        """The destinations; nothing is launched."""
        return into

    def launcher(self, op: Any, args: tuple[Any, ...]) -> Any:  # noqa: ARG002 -- the signature of every memory
        """Every op takes the perturbed version."""

        def perturbed(into: Mapping[str, Out], *args: Any, **options: Any) -> Any:
            return self._run(op, into, args, options)

        return perturbed

    def _run(self, op: Op[Any], into: Mapping[str, Out], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        result = op.reference(*args, **options)
        values = fields(op, result)
        bounds, step = bound_of(op, self.u, args, options, result, self.storage), self._after_step(op, args, options)
        values = {name: step[name] if name in step else self._err(v, bounds[name]) for name, v in values.items()}
        values |= {name: np.maximum(values[name], 0) for name in SQUARES & values.keys() if values[name] is not None}
        for name, (array, adds) in into.items():
            new = values[name]
            if adds:
                size = np.abs(array) + np.abs(new)
                new = op.accumulates[name](array, new)
                unit = self.u + (unit_stored(self.storage) if name in STORED.get(op.name, ()) else 0.0)
                new = new if op.accumulates[name] is merge.reference else self._err(new, 10 * unit * size)
            array[...] = new
            values[name] = array
        return type(result)(**values) if hasattr(result, "_asdict") else values[op.fields[0]]

    def _err(self, value: Any, bound: Any) -> Any:
        self.calls += 1
        if value is None or value.dtype.kind != "f" or not np.any(bound):
            return value
        return value + self.sign * self.signs.at(self.calls, value.shape) * bound

    def _after_step(self, op: Op[Any], args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
        """The output of an op that ends in a step function, by its name: the error is added to the sum z before it."""
        name = "kind" if op.name == "activation" else "activation"
        kind, slope, plain = options.get(name, "identity"), options.get("slope"), {**options, name: "identity"}
        if op.name not in BEFORE_STEP or not _steps(kind, slope):
            return {}
        result, out = op.reference(*args, **plain), BEFORE_STEP[op.name]
        z = fields(op, result)[out]
        if op.name == "activation":
            bound = 10 * (self.u + unit_stored(self.storage)) * np.abs(z)
        else:
            bound = bound_of(op, self.u, args, plain, result, self.storage)[out]
        return {out: activate(self._err(z, bound), kind, slope)}


def pairs_of(runs: list[Any]) -> list[tuple[Any, Any]]:
    """Runs in pairs."""
    return list(zip(runs[::2], runs[1::2], strict=True))


def bounds_of_runs(truth: dict[str, Array], runs: list[dict[str, Array]]) -> dict[str, Array]:
    """The bound of each array from pairs of perturbed runs: the larger deviation of a pair, summed over the pairs."""
    bounds = {}
    for name, exact in truth.items():
        rows = tuple(range(exact.ndim - 1)) if exact.ndim > 1 else None
        deviations = [np.max(np.abs(run[name] - exact), axis=rows, initial=0.0) for run in runs]
        bounds[name] = np.sum([np.maximum(*pair) for pair in pairs_of(deviations)], axis=0)
    return bounds
