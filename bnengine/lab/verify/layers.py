"""Every layer with all of its options: forward, pullback and pending statistics, in training and in evaluation.

Each case is a small network with random parameters and running statistics, since initial ones (gamma 1, beta 0) hide
mistakes. All variants start from numbers that float32 represents. They are compared with NumPy's references in float64,
within the bounds that `bounds` derives from those of the ops; in float32 also with NumPy's, and a fused version with
the reference of the same library.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..._typing import Array
from ...arrays.backend import Backend
from ...layers import Activation, BatchNorm, Dense, Dropout, Layer, Residual
from ...network.sequential import Sequential
from ...ops.activations import NONLINEAR
from ...runtime.memory import Memory
from .bounds import Perturbed, bounds_of_runs
from .certificate import Ledger
from .draws import Draws, signs
from .variants import DTYPES, UNIT, Variant, representable

PAIRS = 3  # of perturbed runs with opposite signs


class LayerCase(NamedTuple):
    """A network, the shape of its input, what is frozen, and what is special about the input."""

    label: str
    layers: Callable[[], tuple[Layer, ...]]
    shape: tuple[int, ...]
    freezes: tuple[Any, ...] = ()
    special: str = ""


def cases() -> Iterator[LayerCase]:
    """Each layer with each option, alone and next to the layers that it fuses with."""
    yield LayerCase("Dense", lambda: (Dense(5, 4),), (9, 5))
    yield LayerCase("Dense without bias", lambda: (Dense(5, 4, bias=False),), (9, 5))
    yield LayerCase("Dense on images", lambda: (Dense(5, 4),), (3, 4, 4, 5))
    yield LayerCase("Dense, 33 to 130", lambda: (Dense(33, 130),), (300, 33))
    for kind in NONLINEAR:
        activation = Activation(kind, slope=0.2)
        yield LayerCase(f"Activation {kind}", partial(_with, activation), (9, 6))
        yield LayerCase(f"Dense, {kind}", partial(_with, activation, Dense, 5, 4), (9, 5))
        yield LayerCase(f"BatchNorm, {kind}", partial(_with, activation, BatchNorm, 6), (9, 6))
    yield from _normalizations()
    yield LayerCase("Dropout", lambda: (Dropout(0.3),), (9, 6))
    yield LayerCase("Dropout on images", lambda: (Dropout(0.3), Dense(5, 4), Dropout(0.5)), (4, 3, 3, 5))
    yield LayerCase("Dense, BatchNorm", lambda: (Dense(5, 6), BatchNorm(6)), (9, 5))
    yield LayerCase("Dense with bias, BatchNorm", lambda: (Dense(5, 6, bias=True), BatchNorm(6)), (9, 5))
    yield LayerCase("Residual", lambda: (Residual(Dense(6, 6)),), (9, 6))
    yield LayerCase("Residual to BatchNorm", lambda: (Residual(*_body()),), (9, 6))
    yield LayerCase("Residual to BatchNorm, relu", lambda: (Residual(*_body()), Activation("relu")), (9, 6))
    yield LayerCase("Residual in Residual", lambda: (Residual(Dense(6, 6), Residual(*_body()), BatchNorm(6)),), (9, 6))
    yield LayerCase(
        "Residual, Residual", lambda: (Residual(*_body()), Residual(Dense(6, 6), Activation("tanh"))), (9, 6)
    )
    yield LayerCase("a layer used twice", lambda: _twice(Dense(6, 6), BatchNorm(6)), (9, 6))


def _with(activation: Activation, layer: type[Layer] | None = None, *sizes: int) -> tuple[Layer, ...]:
    return (activation,) if layer is None else (layer(*sizes), activation)


def _body() -> tuple[Layer, ...]:
    return Dense(6, 8), BatchNorm(8), Activation("relu"), Dense(8, 6), BatchNorm(6)


def _twice(dense: Dense, norm: BatchNorm) -> tuple[Layer, ...]:
    return dense, norm, Activation("tanh"), dense, norm


def _norm(options: dict[str, Any]) -> tuple[Layer, ...]:
    return (BatchNorm(6, **options),)


def _normalizations() -> Iterator[LayerCase]:
    options: dict[str, dict[str, Any]] = {
        "BatchNorm": {},
        "BatchNorm without gamma": {"gamma": False},
        "BatchNorm without beta": {"beta": False},
        "BatchNorm without gamma and beta": {"gamma": False, "beta": False},
        "BatchNorm, eps 0.1": {"eps": 0.1},
        "BatchNorm, exact merge": {"decay": None},
        "BatchNorm, biased variance": {"variance": "biased"},
    }
    for label, arguments in options.items():
        yield LayerCase(label, partial(_norm, arguments), (9, 6))
    yield LayerCase("BatchNorm, one row", lambda: (BatchNorm(6, one_value="running"),), (1, 6))
    yield LayerCase("BatchNorm on images", lambda: (BatchNorm(6),), (3, 4, 5, 6))
    yield LayerCase("BatchNorm, 129 channels", lambda: (BatchNorm(129),), (515, 129))
    yield LayerCase("BatchNorm, 256 channels", lambda: (BatchNorm(256), Activation("relu")), (256, 256))
    for what in ("statistics", "affine", "normalization", "parameters"):
        yield LayerCase(f"BatchNorm, {what} frozen", lambda: (BatchNorm(6),), (9, 6), (what,))
    both = ("statistics", "normalization")
    yield LayerCase("BatchNorm, statistics and normalization frozen", lambda: (BatchNorm(6),), (9, 6), both)
    for special in ("mean 1e6", "first row an outlier", "a constant channel", "tiny"):
        yield LayerCase(f"BatchNorm, {special}", lambda: (BatchNorm(6),), (70, 6), special=special)


def verify_layers(
    ledger: Ledger, numpy: Variant, variants: Sequence[Variant], seed: int, *, quick: bool = False
) -> None:
    """Compare all variants on every layer.

    Args:
        ledger: collects the comparisons.
        numpy: any variant on NumPy.
        variants: the variants to compare.
        seed: of inputs and parameters.
        quick: compare evaluation for a plain BatchNorm only.
    """
    for case in cases():
        for training in (True, False):
            if quick and not training and case.label != "BatchNorm":
                continue
            _verify(ledger, case, numpy.backend, variants, training, seed)


def _verify(
    ledger: Ledger, case: LayerCase, numpy: Backend, variants: Sequence[Variant], training: bool, seed: int
) -> None:
    draws = Draws(seed, case.label)
    exact = Variant(numpy, "float64")
    network = _network(case, exact, draws)
    state, x = network.state_dict(), _input(case, draws)
    dy = representable(draws.standard_normal(network.forward(x, training=training).output.shape))
    truth = run(network, x, dy, training, Memory("reference"), exact)
    bounds = {}
    for dtype in DTYPES:
        memories = perturbations(UNIT[dtype], seed)
        bounds[dtype] = bounds_of_runs(truth, [run(network, x, dy, training, memory, exact) for memory in memories])
    results = {exact.label: truth}
    mode = "training" if training else "evaluation"
    for variant in (Variant(numpy, "float32"), *variants):
        label = variant.label
        hop = Variant(numpy, variant.dtype) if variant.mode == "reference" else variant._replace(mode="reference")
        with ledger.guard(f"layer {case.label}", mode, label, exact.label):
            network = _network(case, variant, None)
            network.load_state_dict(state)
            results[label] = got = run(network, x, dy, training, Memory(variant.mode), variant)
            for b in sorted({hop.label, exact.label} & results.keys() - {label}):
                for field, value in got.items():
                    bound, what = bounds[variant.dtype][field], f"layer {case.label}: {field}"
                    ledger.compare(what, mode, label, b, value, results[b][field], bound)


def perturbations(u: float, seed: int, storage: str = "float64") -> Iterator[Perturbed]:
    """The memories of the perturbed runs of a bound."""
    for i in range(PAIRS):
        for sign in (1, -1):
            yield Perturbed(u, signs(seed, i), sign, storage)


def _network(case: LayerCase, variant: Variant, draws: Draws | None) -> Sequential:
    """The network of a case; with `draws`, its numbers are random."""
    network = Sequential(*case.layers(), backend=variant.backend, dtype=variant.dtype)
    for what in case.freezes:
        network.freeze(what)
    if draws is not None:
        network.load_state_dict({name: _drawn(name, a, draws) for name, a in network.state_dict().items()})
    return network


def _drawn(name: str, array: Array, draws: Draws) -> Array:
    kind = name.rpartition(".")[2]
    if kind == "running_count":
        return np.full_like(array, 100.0)
    drawn = representable(draws.standard_normal(array.shape))
    if kind == "running_var":
        return np.abs(drawn) + 0.5
    return representable(array) if kind == "W" else drawn + 1.5 if kind == "gamma" else drawn


def _input(case: LayerCase, draws: Draws) -> Array:
    x = draws.standard_normal(case.shape)
    if case.special == "mean 1e6":
        x += 1e6
    elif case.special == "first row an outlier":
        x[0] = 1e6
    elif case.special == "a constant channel":
        x[:, 1:3] = 0.1
    elif case.special == "tiny":
        x *= 1e-30
    return representable(x)


def run(network: Sequential, x: Array, dy: Array, training: bool, memory: Memory, variant: Variant) -> dict[str, Array]:
    """Run forward and backward: output, dx, gradients and pending statistics by name, as NumPy arrays."""
    backend = network.backend
    gradients, pending = network.gradients(), network.statistics.like()
    gradients.start()
    pending.start()
    samples = np.arange(len(x)) * 3 + 1
    forward = memory.run(network.forward, x, training=training, pending=pending, samples=samples)
    result = {"output": variant.fetch(forward.output)}
    result["dx"] = variant.fetch(forward.pullback(backend.asarray(dy, network.dtype, copy=True), gradients))
    gradients.finish()
    pending.finish()
    for name, array in network.export(gradients, pending).items():
        last = name.rsplit(".", 1)[-1].removeprefix("running_")
        result[f"pending of {last}, {name}" if "running_" in name else f"gradient {name}"] = array
    return result
