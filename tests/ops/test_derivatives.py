"""Every derivative against differences of its forward op, along random directions, in float64 to 1e-7."""

from itertools import product

import numpy as np
import pytest

from bnengine import ops
from bnengine.contracts.activations import sensitivity_of
from bnengine.ops.activations import ACTIVATIONS

RELATIVE = 1e-7
STEP = 2e-3


def slope_along(function, arrays, directions):
    """d/dt of the sum of function(arrays + t directions), by differences of sixth order."""

    def at(t):
        return function(*(None if a is None else a + t * d for a, d in zip(arrays, directions, strict=True)))

    pairs = ((45 / 60, 1), (-9 / 60, 2), (1 / 60, 3))
    return sum(weight * (at(k * STEP) - at(-k * STEP)) for weight, k in pairs) / STEP


def assert_gradients(op, function, arrays, gradients, rng):
    """Each gradient alone, and all together, along three directions."""
    there = [i for i, a in enumerate(arrays) if a is not None]
    assert [g is not None for g in gradients] == [a is not None for a in arrays]
    for chosen in [*([i] for i in there), there]:
        for _ in range(3):
            directions = [rng.standard_normal(a.shape) if i in chosen else 0.0 for i, a in enumerate(arrays)]
            expected = slope_along(function, arrays, directions)
            got = sum(float(np.sum(gradients[i] * directions[i])) for i in chosen)
            scale = np.sqrt(sum(float(np.sum((gradients[i] * directions[i]) ** 2)) for i in chosen))
            assert abs(got - expected) <= RELATIVE * max(abs(expected), scale), (
                f"{op.name}: the gradient of argument {chosen} gives the slope {got:.9g}, and differences of the "
                f"forward op give {expected:.9g}. The formula is in {op.reference.__module__}."
            )


def far_from_kinks(kind, draw, of):
    """Inputs whose sums lie further from each kink than the differences reach."""
    for _ in range(200):
        drawn = draw()
        if all(np.min(np.abs(of(*drawn) - kink)) > 12 * STEP for kink in sensitivity_of(kind, 0.2).kinks):
            return drawn
    raise AssertionError("no draw stayed clear of the kinks")


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activation_backward(kind, rng):
    x = rng.uniform(0.1, 3, (4, 5)) * rng.choice([-1, 1], (4, 5))
    dy = rng.standard_normal(x.shape)
    options = {"kind": kind, "slope": 0.2}
    y = ops.activation(x, **options)
    dx = ops.activation_backward(dy, x, y, **options)
    assert dx is not dy
    assert_gradients(ops.activation_backward, lambda x: np.sum(dy * ops.activation(x, **options)), [x], [dx], rng)


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4)])
@pytest.mark.parametrize("kind", [kind for kind, rule in ACTIVATIONS.items() if rule.reads != "z"])
def test_affine_backward(kind, shape, rng):
    def draw():
        return rng.standard_normal(shape), rng.standard_normal((4, 3)), rng.standard_normal(3)

    x, W, b = far_from_kinks(kind, draw, lambda x, W, b: x @ W + b)
    options = {"activation": kind, "slope": 0.2}
    y = ops.affine(x, W, b, **options)
    dy = rng.standard_normal(y.shape)
    gradients = ops.affine_backward(dy, x, W, y, **options)
    assert_gradients(
        ops.affine_backward, lambda *given: np.sum(dy * ops.affine(*given, **options)), [x, W, b], list(gradients), rng
    )


@pytest.mark.parametrize(("gamma", "beta", "add"), [(1, 1, 1), (0, 1, 0), (1, 0, 1), (0, 0, 0)])
@pytest.mark.parametrize("own", [True, False], ids=["batch statistics", "fixed statistics"])
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_normalize_backward(kind, own, gamma, beta, add, rng):
    shape = (2, 3, 4)
    fixed = np.asarray([[9.0] * 4, [0.3, -1.0, 2.0, 0.0], [0.5, 2.0, 1.0, 3.0]])

    def statistics(x):
        return ops.moments(x).batch if own else fixed

    def draw():
        return (
            2 * rng.standard_normal(shape) + 1,
            1 + rng.random(4) if gamma else None,
            rng.standard_normal(4) if beta else None,
            rng.standard_normal(shape) if add else None,
        )

    options = {"activation": kind, "slope": 0.2, "eps": 0.01}

    def forward(x, *rest):
        return ops.normalize(x, statistics(x), *rest, **options)

    def before(x, *rest):
        return ops.normalize(x, statistics(x), *rest, eps=0.01)

    x, g, b, a = far_from_kinks(kind, draw, before)
    y = forward(x, g, b, a)
    dy = rng.standard_normal(shape)
    found = ops.normalize_backward(dy, x, y, statistics(x), g, b, a, batch_statistics=own, **options)
    gradients = [found.dx, found.dgamma, found.dbeta, found.dadd]
    assert found.dadd is not dy
    assert_gradients(ops.normalize_backward, lambda *given: np.sum(dy * forward(*given)), [x, g, b, a], gradients, rng)


def test_dropout_backward(rng):
    step, samples = np.asarray([3]), np.arange(4)
    options = {"seed": 1, "layer": 0, "rate": 0.4}
    x, dy = rng.standard_normal((4, 6)), rng.standard_normal((4, 6))
    keep = ops.dropout(x, step, samples, **options).keep
    dx = ops.dropout_backward(dy, keep, rate=0.4)
    assert_gradients(
        ops.dropout_backward, lambda x: np.sum(dy * ops.dropout(x, step, samples, **options).out), [x], [dx], rng
    )


@pytest.mark.parametrize("probabilities", [False, True])
def test_softmax_cross_entropy(probabilities, rng):
    loss, logits = ops.softmax_cross_entropy, rng.standard_normal((2, 3, 4))
    target = rng.dirichlet(np.ones(4), (2, 3)) if probabilities else rng.integers(0, 4, (2, 3))
    for class_weights, sample_weights, smoothing in product(
        (None, rng.random(4)), (None, rng.random((2, 3))), (0, 0.1)
    ):
        given = target, class_weights, sample_weights
        options = {"divisor": 2.5, "label_smoothing": smoothing}
        gradient = loss(logits, *given, **options).dlogits
        assert_gradients(loss, lambda x, g=given, o=options: loss(x, *g, **o).value[0], [logits], [gradient], rng)


@pytest.mark.parametrize("loss", [ops.binary_cross_entropy, ops.mean_squared_error])
def test_the_losses_of_single_outputs(loss, rng):
    prediction = rng.uniform(0.1, 2, (5, 3)) * rng.choice([-1, 1], (5, 3))
    for weights in (None, rng.random(5)):
        given = rng.random((5, 3)), weights
        gradient = loss(prediction, *given, divisor=7).dlogits
        assert_gradients(loss, lambda x, g=given: loss(x, *g, divisor=7).value[0], [prediction], [gradient], rng)
