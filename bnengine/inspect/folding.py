"""Fold: a BatchNorm's frozen scale and shift taken into the weights of a Dense beside it, for prediction.

With s = gamma / sqrt(var + eps) and t = beta - mean s a BatchNorm in evaluation mode is y = x s + t:

    into the Dense before it   (x W + b) s + t   =  x (W s)     + (b s + t)
    into the Dense behind it   (x s + t) W + b   =  x (s[:,] W) + (t W + b)

The second way is for a BatchNorm behind an activation. Dropout, which evaluation leaves out, may stand between.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..arrays.dtypes import UNITS
from ..arrays.random import Stream
from ..errors import InputError
from ..layers import BatchNorm, Dense, Dropout, Layer
from ..layers.residual import Residual
from ..layers.structure import build, config_of, walk
from ..network.sequential import Sequential
from ..runtime.flat import Handle, Parameter, Statistics
from .bounding import Folded, Known, Piece, bias_of, bound_of, number, scales, unit_of

LIMIT = 0.01  # of logits: it changes a ratio of two probabilities by 2 % at most
ROWS = 256  # of probe data, where none are given


@dataclass(frozen=True)
class Certificate:
    """How far a folded network's outputs are from the original's on the probe's rows: at most, and as measured.

    `folded`: the BatchNorms that went, by place in the original; `kept`: those that stayed, with the reason. `bound`:
    see `bnengine.inspect.bounding`; `measured`: the largest difference of two outputs; `limit`: what `bound` was held
    against.
    """

    folded: tuple[str, ...]
    kept: dict[str, str]
    bound: float
    measured: float
    limit: float
    rows: int

    def __str__(self) -> str:
        told = f"folded {', '.join(self.folded) or 'nothing'}"
        kept = "".join(f"\nkept {place}: {reason}" for place, reason in self.kept.items())
        return (
            f"{told}{kept}\noutputs differ by {self.measured:.2g} on {self.rows:,} rows of probe data, "
            f"by {self.bound:.2g} at most (limit {self.limit:g})"
        )


class Folding(NamedTuple):
    """The network without its BatchNorms, and what is known of the difference."""

    network: Sequential
    certificate: Certificate


def fold(network: Sequential, *, limit: float = LIMIT, probe: Any = None) -> Folding:
    """A network for prediction with every BatchNorm folded into a Dense beside it, and a certificate; both new.

    Weights are folded in float64 and rounded once. A BatchNorm with no Dense beside it, with an activation between, or
    a layer that stands twice, stays, and the certificate says why. `probe`: ready features (m, ...), the kind of data
    that will be predicted; None draws 256 rows of a standard normal distribution. The bound on the outputs' difference
    is computed from these rows, the weights and the unit of rounding: a variance near eps, a mean far from 0 in sigma
    or a huge gamma lets it grow. Raises InputError where it is above `limit` (in the outputs' units: logits, or
    standardised targets; inf: any), or where no statistics were collected.

    16 bits round by 2^-8 or 2^-11 in every layer, which moves logits by more than the usual limit whether anything is
    folded or not. So fold in full precision, and let the folded network be the one that is rounded:

        folded, certificate = fold(bnengine.load(FILE, precision="highest"))
        bnengine.save("folded.safetensors", folded)
        bnengine.load("folded.safetensors", precision="bfloat16")
    """
    if not limit > 0:
        raise InputError(f"fold: limit {limit!r} is not above 0; it is a difference of outputs, {LIMIT} is usual")
    x = _probe(network, probe)
    expected = _host(network, network.predict(x))
    maker = _Maker(network)
    layers = maker.sequence(network.layers, "")
    own: dict[str, Any] = {"dtype": network.dtype, "precision": network.precision, "seed": network.seed}
    made = Sequential(*layers, backend=network.backend, **own)
    made.preprocessing = network.preprocessing
    made.load_state_dict(maker.state(made))
    bound = bound_of(network, maker.pieces, x, unit_of(network))
    measured = float(np.max(np.abs(_host(network, made.predict(x)) - expected)))
    certificate = Certificate(tuple(maker.folded), maker.kept, bound, measured, float(limit), len(x))
    if not bound <= limit:
        full = bound_of(network, maker.pieces, x, UNITS[network.dtype])
        cure = (
            f"that is the rounding of {network.precision} alone, in full precision it is {full:.3g}. Fold "
            "bnengine.load(FILE, precision='highest'), save the folded network, and load that with "
            f"precision={network.precision!r}"
            if full <= limit
            else f"a BatchNorm multiplies by {maker.steepest:.3g}. Keep it, give probe data of the kind that is "
            "predicted, or raise limit="
        )
        raise InputError(f"fold: the outputs may differ by {bound:.3g} on the probe data, limit {limit:g}; {cure}")
    return Folding(made, certificate)


def _probe(network: Sequential, probe: Any) -> Array:
    if probe is not None:
        return np.asarray(_host(network, network.checked(probe)), network.dtype)
    if network.inputs is None:
        raise InputError("fold: the network takes inputs of any width; give probe=..., ready features (m, features)")
    return np.asarray(Stream(network.seed, "fold").normal((ROWS, network.inputs)), network.dtype)


def _host(network: Sequential, array: Any) -> Array:
    return np.asarray(array if isinstance(array, np.ndarray) else network.backend.to_numpy(array), np.float64)


class Beside(NamedTuple):
    """The BatchNorms that a Dense takes in."""

    before: BatchNorm | None
    behind: BatchNorm | None


class _Maker:
    """Builds the layers of the folded network, and tells of each what becomes of it."""

    def __init__(self, network: Sequential) -> None:
        self.network = network
        used = [id(layer) for _, layer in walk(network.layers)]
        self.twice = {one for one in used if used.count(one) > 1}
        self.values: dict[Handle, Array] = {}
        self.made: dict[int, Layer] = {}
        self.pieces: list[Piece] = []
        self.folded, self.kept = list[str](), dict[str, str]()
        self.steepest = 0.0  # the largest of all scales s

    # -- structure

    def sequence(self, given: Iterable[Layer], prefix: str) -> list[Layer]:
        """New layers for those of a network or of a Residual's body; their pieces are appended to `pieces`."""
        given = tuple(given)
        partners = self._partners(given, prefix)
        layers: list[Layer] = []
        for i, layer in enumerate(given):
            place = f"{prefix}{i}"
            if isinstance(layer, Residual):
                outer, self.pieces = self.pieces, []
                body = self.sequence(layer.body, f"{place}.")
                inner, self.pieces = self.pieces, outer
                layers.append(Residual(*body))
                self.pieces.append(inner)
            elif isinstance(layer, BatchNorm) and place not in self.kept:
                self.folded.append(place)
            elif isinstance(layer, Dense) and i in partners:
                layers.append(self._folded(layer, *partners[i]))
            else:
                layers.append(self._same(layer))
                self.pieces.append(Known(layer))
        return layers

    def _partners(self, given: tuple[Layer, ...], prefix: str) -> dict[int, Beside]:
        """The BatchNorms that each Dense takes in, by its index; those that no Dense does are `kept`."""
        partners: dict[int, Beside] = {}
        for i, layer in enumerate(given):
            if not isinstance(layer, BatchNorm):
                continue
            for step in (-1, 1):
                j = i + step
                while 0 <= j < len(given) and isinstance(given[j], Dropout):
                    j += step
                reason = self._obstacle(layer, given[j] if 0 <= j < len(given) else None)
                taken = partners.get(j, Beside(None, None))
                if not reason and (taken.behind if step < 0 else taken.before) is None:
                    partners[j] = taken._replace(behind=layer) if step < 0 else taken._replace(before=layer)
                    break
            else:
                self.kept[f"{prefix}{i}"] = reason or "the Dense beside it takes in another one"
        return partners

    def _obstacle(self, norm: BatchNorm, beside: Layer | None) -> str:
        """Why the BatchNorm cannot go into its neighbour; nothing if it can."""
        if id(norm) in self.twice:
            return "it stands twice"
        if not isinstance(beside, Dense):
            return "no Dense stands beside it"
        return "the Dense beside it stands twice" if id(beside) in self.twice else ""

    # -- numbers

    def _folded(self, dense: Dense, before: BatchNorm | None, behind: BatchNorm | None) -> Dense:
        """The Dense with the BatchNorms beside it in its weights."""
        W, given = number(dense.W, self.network), bias_of(dense)
        b = np.zeros(dense.outputs) if given is None else number(given, self.network)
        if before is not None:
            mean, s, _, beta = self._scales(before)
            W, b = s[:, None] * W, (beta - mean * s) @ W + b
        if behind is not None:
            mean, s, _, beta = self._scales(behind)
            W, b = W * s, (b - mean) * s + beta
        new = Dense(dense.inputs, dense.outputs, bias=True, weights=dense.config()["weights"])
        assert new.b is not None
        self.values |= {new.W: W, new.b: b}
        self.pieces.append(Folded(dense, before, behind, W, b))
        return new

    def _scales(self, norm: BatchNorm) -> tuple[Array, Array, Array, Array]:
        found = scales(norm, self.network)
        self.steepest = max(self.steepest, float(np.max(np.abs(found[1]))))
        return found

    def _same(self, layer: Layer) -> Layer:
        """A new layer of the same configuration and numbers; one that stands twice stays one."""
        if id(layer) in self.made:
            return self.made[id(layer)]
        if isinstance(layer, Dense):
            bias = bias_of(layer) is not None
            new: Layer = Dense(layer.inputs, layer.outputs, bias=bias, weights=layer.config()["weights"])
        else:
            new = build(config_of([layer]))[0]
        ours = layer.handles()
        for name, handle in new.handles().items():
            self.values[handle] = number(ours[name], self.network)
        self.made[id(layer)] = new
        return new

    def state(self, made: Sequential) -> dict[str, Array]:
        """The numbers of the new network under its names."""
        state: dict[str, Array] = {}
        for name, handle in made.named_handles().items():
            if isinstance(handle, Statistics):
                keys = (name.removesuffix("statistics") + f"running_{kind}" for kind in ("count", "mean", "var"))
                state |= dict(zip(keys, self.values[handle], strict=True))
            else:
                assert isinstance(handle, Parameter)
                state[name] = self.values[handle]
        return state
