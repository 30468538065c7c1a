"""A bound on the effect of folding, computed from the weights and the rows of probe data.

Let a be a layer's exact input and u the unit of rounding (2^-24 for float32). A folded weight is rounded once,
W' = W s (1 + d), |d| <= u, and so is b'. This alone moves the output z by

    u (|a| |W s| + |b'|).

Each network then rounds as it computes: a product by 10 u |A||B|, a BatchNorm by 10 u (|gamma x_norm| + |gamma| +
|beta|), an activation by 10 u |y|; these are the bounds of the ops. So a layer that folds into the preceding Dense adds

    u (|a| |W s| + |b'|) + 10 u (|a| |W s| + |b'|) + |s| 10 u (|a| |W| + |b|) + 10 u (|gamma z_norm| + |gamma| + |beta|)

Forward, a difference e of the inputs is multiplied by W s, in the norm or by absolute values, whichever is less:

    e_out <= min(|W s|^T e, ||(W s)_j||_2 n),   n_out <= ||W s||_2 n,   n >= ||e||_2;

an activation multiplies by the largest |g'|, a residual sum adds both inputs. This bound grows with depth. So the
errors of all layers are also propagated backward, row by row, by the derivative J of the outputs at the exact values:

    |difference of outputs| <= sum over layers of |J| (what the layer adds),

where an activation adds its nonlinear part: e^2 max|g''| / 2, and e times the jump of g' if a kink is within e (the e
of such a unit is propagated backward too). The lesser bound counts. All to first order in u.

A mean far from 0 in sigma, a variance near eps and a large gamma make |s| |a| |W| large compared with z. A BatchNorm
avoids that cancellation by centering first; a folded layer cannot.
"""

from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..arrays.dtypes import UNITS
from ..contracts.activations import activation_bound, sensitivity_of
from ..errors import InputError
from ..layers import Activation, BatchNorm, Dense, Dropout, Layer
from ..network.sequential import Sequential
from ..ops.activations import activate, derivative
from ..ops.dense import PRODUCTS
from ..runtime.flat import Handle

ROWS, PAIRS = 256, 4096  # in a block: rows, and pairs of a row and a unit near a kink

Piece = Any  # Unfolded, Folded, or the list of a Residual's body


class Unfolded(NamedTuple):
    """A layer of both networks."""

    layer: Layer


class Folded(NamedTuple):
    """A Dense that took in adjacent BatchNorms, and its new weights before they were rounded."""

    dense: Dense
    preceding: BatchNorm | None
    following: BatchNorm | None
    W: Array
    b: Array


class _State(NamedTuple):
    """Exact values (rows, features), a bound on the difference of each, and one on the 2-norm of a row."""

    a: Array
    e: Array
    n: Array


Add = Callable[[Array, Array], None]


class _Step(NamedTuple):
    """The error that a layer adds (rows, features), and its derivative.

    back(J, rows, add): maps J (k, outputs, features), where J[i] belongs to row rows[i], to the layer's input.
    """

    added: Array
    back: Callable[[Array, Array, Add], Array]


class _Trail(NamedTuple):
    """The steps so far; within a Residual those of its body, and `outer` those before it."""

    steps: list[_Step]
    outer: "_Trail | None" = None

    def back(self, slope: Array, rows: Array, add: Add) -> Array:
        """Propagate through the steps of this trail alone."""
        for step in reversed(self.steps):
            add(slope, step.added[rows])
            slope = step.back(slope, rows, add)
        return slope

    def bound(self, slope: Array, rows: Array) -> Array:
        """The bound (k, outputs) that all added errors give, for derivatives J (k, outputs, features)."""
        total = np.zeros(slope.shape[:2])

        def add(slope: Array, added: Array) -> None:
            nonlocal total
            total = total + np.einsum("mof,mf->mo", np.abs(slope), added)

        trail: _Trail | None = self
        while trail is not None:
            slope, trail = trail.back(slope, rows, add), trail.outer
        return total


def unit_of(network: Sequential) -> float:
    """The unit of rounding of a network's storage and products."""
    return max(UNITS[network.storage], 2 * PRODUCTS.get(network.products, 0.0))


def bound_of(network: Sequential, pieces: list[Piece], x: Array, u: float) -> float:
    """The largest bound on a difference of outputs over the rows of x, for a unit of rounding u."""
    a = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    with np.errstate(all="ignore"):
        worst = [_bound(network, pieces, a[i : i + ROWS], u) for i in range(0, len(a), ROWS)]
    return max(worst) if np.isfinite(worst).all() else inf


def _bound(network: Sequential, pieces: list[Piece], a: Array, u: float) -> float:
    trail = _Trail([])
    state = _through(pieces, _State(a, np.zeros_like(a), np.zeros((len(a), 1))), trail, u, network)
    outputs = state.a.shape[1]
    carried = trail.bound(np.broadcast_to(np.eye(outputs), (len(a), outputs, outputs)), np.arange(len(a)))
    return float(np.max(np.minimum(state.e, carried)))


def _through(pieces: list[Piece], state: _State, trail: _Trail, u: float, network: Sequential) -> _State:
    for piece in pieces:
        if isinstance(piece, Folded):
            state, step = _folded(piece, state, u, network)
        elif isinstance(piece, Unfolded) and isinstance(piece.layer, Activation):
            state, step = _activated(piece.layer, state, trail, u)
        elif isinstance(piece, Unfolded):
            state, step = _unfolded(piece.layer, state, u, network)
        else:
            body = _Trail([], trail)
            state, step = _sum(state, _through(piece, state, body, u, network), body, u)
        trail.steps.append(step)
    return state


def _sum(state: _State, end: _State, body: _Trail, u: float) -> tuple[_State, _Step]:
    added = 20 * u * (np.abs(state.a) + np.abs(end.a))
    summed = _State(state.a + end.a, state.e + end.e + added, state.n + end.n + _norm(added))
    return summed, _Step(added, lambda slope, rows, add: slope + body.back(slope, rows, add))


def _unfolded(layer: Layer, state: _State, u: float, network: Sequential) -> tuple[_State, _Step]:
    if isinstance(layer, Dropout):
        return state, _Step(np.zeros_like(state.a), lambda slope, *_: slope)
    if isinstance(layer, Dense):
        W, b = _numbers(layer, network)
        return _linear(state, W, b, 2 * 10 * u * (np.abs(state.a) @ np.abs(W) + np.abs(b)))
    if isinstance(layer, BatchNorm):
        y, s, added = _normalized(layer, state.a, u, network)
        added = 2 * added
        passed = _State(y, np.abs(s) * state.e + added, np.max(np.abs(s)) * state.n + _norm(added))
        return passed, _Step(added, lambda slope, *_: slope * s)
    raise InputError(f"fold: {layer.name}: no bound is known for a layer of this class. Leave it out of the network.")


def _activated(layer: Activation, state: _State, trail: _Trail, u: float) -> tuple[_State, _Step]:
    z, e = state.a, state.e
    y = activate(z, layer.kind, layer.slope)
    sensitivity = sensitivity_of(layer.kind, layer.slope)
    for kink in sensitivity.kinks:
        e = _tighter(e, np.abs(z - kink) <= e, trail)
    bent = sensitivity.curvature / 2 * e**2
    for kink, jump in sensitivity.kinks.items():
        bent = bent + np.where(np.abs(z - kink) <= e, jump * e, 0.0)
    added = 2 * activation_bound(u, np.zeros_like(y), y, layer.kind, layer.slope, z)
    steep = sensitivity.steepest
    g = derivative(np.ones_like(y), y, layer.kind, layer.slope, z)
    passed = _State(y, steep * e + added, steep * state.n + _norm(added))
    return passed, _Step(added + bent, lambda slope, rows, _: slope * g[rows][:, None, :])


def _tighter(e: Array, where: Array, trail: _Trail) -> Array:
    """The bounds e; those at `where`, near a kink, are propagated backward if that gives less."""
    e = e.copy()
    rows, units = np.nonzero(where)
    for i in range(0, len(rows), PAIRS):
        row, unit = rows[i : i + PAIRS], units[i : i + PAIRS]
        slope = np.zeros((len(row), 1, e.shape[1]))
        slope[np.arange(len(row)), 0, unit] = 1
        e[row, unit] = np.minimum(e[row, unit], trail.bound(slope, row)[:, 0])
    return e


def _folded(piece: Folded, state: _State, u: float, network: Sequential) -> tuple[_State, _Step]:
    W, b = _numbers(piece.dense, network)
    y, error = state.a, np.zeros_like(state.a)
    sizes = np.abs(piece.b)  # of the terms that folding itself sums, in float64
    if piece.preceding is not None:
        y, s, error = _normalized(piece.preceding, y, u, network)
        mean, _, _, beta = scales(piece.preceding, network)
        sizes = sizes + (np.abs(mean * s) + np.abs(beta)) @ np.abs(W)
    z = y @ W + b
    error = error @ np.abs(W) + 10 * u * (np.abs(y) @ np.abs(W) + np.abs(b))
    if piece.following is not None:
        _, s, added = _normalized(piece.following, z, u, network)
        mean = scales(piece.following, network)[0]
        error = np.abs(s) * error + added
        sizes = np.abs(s) * (sizes + np.abs(b) + np.abs(mean)) + np.abs(piece.b)
    double = UNITS["float64"]
    weights = np.abs(state.a) @ np.abs(piece.W)
    folded = 11 * u * (weights + np.abs(piece.b)) + 10 * double * (weights + sizes)
    return _linear(state, piece.W, piece.b, folded + error)


def _normalized(norm: BatchNorm, x: Array, u: float, network: Sequential) -> tuple[Array, Array, Array]:
    """(y, s, the bound on an error of y)."""
    mean, s, gamma, beta = scales(norm, network)
    scaled = (x - mean) * s
    added = 10 * u * (np.abs(scaled) + np.abs(gamma) + np.abs(beta)) + 10 * UNITS["float64"] * np.abs(mean * s)
    return scaled + beta, s, added


def _linear(state: _State, W: Array, b: Array, added: Array) -> tuple[_State, _Step]:
    """The state after x W + b, which adds errors."""
    columns, whole = np.linalg.norm(W, axis=0), np.linalg.norm(W, 2)
    passed = np.minimum(state.e @ np.abs(W), state.n * columns)
    n = np.minimum(state.n * whole, _norm(passed))
    return _State(state.a @ W + b, passed + added, n + _norm(added)), _Step(added, lambda slope, *_: slope @ W.T)


def _norm(e: Array) -> Array:
    return np.linalg.norm(e, axis=-1, keepdims=True)


def _numbers(dense: Dense, network: Sequential) -> tuple[Array, Array]:
    """W and b in float64; zeros without a bias."""
    b = np.zeros(dense.outputs) if bias_of(dense) is None else number(bias_of(dense), network)
    return number(dense.W, network), b


def bias_of(dense: Dense) -> Handle | None:
    """The bias; None if there is none or the next BatchNorm cancels it."""
    return None if dense.b is None or dense.b.value is None else dense.b


def number(handle: Handle | None, network: Sequential) -> Array:
    """The values of a handle, float64 on the host."""
    assert handle is not None
    return np.array(network.backend.to_numpy(handle.value), np.float64)


def scales(norm: BatchNorm, network: Sequential) -> tuple[Array, Array, Array, Array]:
    """(mean, s, gamma, beta) of y = (x - mean) s + beta, float64."""
    gamma = np.ones(norm.channels) if norm.gamma is None else number(norm.gamma, network)
    beta = np.zeros(norm.channels) if norm.beta is None else number(norm.beta, network)
    _, mean, var = number(norm.statistics, network)
    return mean, gamma / np.sqrt(var + norm.eps), gamma, beta
