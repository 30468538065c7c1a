"""Fold: merge the frozen scale and shift of a BatchNorm into the weights of an adjacent Dense, for prediction.

With s = gamma / sqrt(var + eps) and t = beta - mean s, a BatchNorm in evaluation mode is y = x s + t:

    into the preceding Dense   (x W + b) s + t   =  x (W s)     + (b s + t)
    into the following Dense   (x s + t) W + b   =  x (s[:,] W) + (t W + b)

The second form is for a BatchNorm after an activation. Dropout, which evaluation leaves out, may come between.
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
from .bounding import Folded, Piece, Unfolded, bias_of, bound_of, number, scales, unit_of

LIMIT = 0.01  # of logits: changes a ratio of two probabilities by at most 2 %
ROWS = 256  # of random probe data


@dataclass(frozen=True)
class Certificate:
    """The difference between the outputs of a folded network and the original on the rows of the probe.

    folded: the places of the BatchNorms that were folded. kept: those of the others, with the reason. bound: see
    `bnengine.inspect.bounding`. measured: the largest difference of two outputs. limit: the largest bound allowed.
    """

    folded: tuple[str, ...]
    kept: dict[str, str]
    bound: float
    measured: float
    limit: float
    rows: int

    def __str__(self) -> str:
        folded = f"folded {', '.join(self.folded) or 'nothing'}"
        kept = "".join(f"\nkept {place}: {reason}" for place, reason in self.kept.items())
        return (
            f"{folded}{kept}\noutputs differ by {self.measured:.2g} on {self.rows:,} rows of probe data, "
            f"by {self.bound:.2g} at most (limit {self.limit:g})"
        )


class Folding(NamedTuple):
    """The folded network and its certificate."""

    network: Sequential
    certificate: Certificate


def fold(network: Sequential, *, limit: float = LIMIT, probe: Any = None) -> Folding:
    """A new network for prediction with every BatchNorm folded into an adjacent Dense, and a certificate.

    Weights are folded in float64 and rounded once. A BatchNorm stays if no Dense is adjacent, if an activation comes
    between, or if a layer is used twice; the certificate says why. The bound on the difference of outputs is computed
    from the probe's rows, the weights and the unit of rounding. It grows with a variance near eps, a mean far from 0 in
    sigma, or a huge gamma.

    16 bits round by 2^-8 or 2^-11 in every layer, which alone moves logits by more than the usual limit. So fold in
    full precision and round the folded network:

        folded, certificate = fold(bnengine.load(FILE, precision="highest"))
        bnengine.save("folded.safetensors", folded)
        bnengine.load("folded.safetensors", precision="bfloat16")

    Args:
        network: a network with statistics; it does not change.
        limit: the largest bound allowed, in units of the outputs (logits, or standardized targets); inf allows any.
        probe: ready features (m, ...) like those to predict; None draws 256 rows of a standard normal distribution.

    Raises:
        InputError: a bound above `limit`, or no collected statistics.
    """
    if not limit > 0:
        raise InputError(
            f"fold: limit must be above 0, got {limit!r}. It is a difference of outputs; {LIMIT} is usual."
        )
    x = _probe(network, probe)
    expected = _host(network, network.predict(x))
    builder = _Builder(network)
    layers = builder.sequence(network.layers, "")
    options: dict[str, Any] = {"dtype": network.dtype, "precision": network.precision, "seed": network.seed}
    folded = Sequential(*layers, backend=network.backend, **options)
    folded.preprocessing = network.preprocessing
    folded.load_state_dict(builder.state(folded))
    bound = bound_of(network, builder.pieces, x, unit_of(network))
    measured = float(np.max(np.abs(_host(network, folded.predict(x)) - expected)))
    certificate = Certificate(tuple(builder.folded), builder.kept, bound, measured, float(limit), len(x))
    if not bound <= limit:
        full = bound_of(network, builder.pieces, x, UNITS[network.dtype])
        cure = (
            f"That is the rounding of {network.precision} alone; in full precision it is {full:.3g}. Fold "
            "bnengine.load(FILE, precision='highest'), save the folded network, and load that with "
            f"precision={network.precision!r}."
            if full <= limit
            else f"A BatchNorm multiplies by {builder.steepest:.3g}. Give probe data like those to predict, raise "
            "limit=, or do not fold."
        )
        raise InputError(f"fold: the outputs may differ by {bound:.3g} on the probe data, limit {limit:g}. {cure}")
    return Folding(folded, certificate)


def _probe(network: Sequential, probe: Any) -> Array:
    if probe is not None:
        return np.asarray(_host(network, network.checked(probe)), network.dtype)
    if network.inputs is None:
        raise InputError("fold: the network takes inputs of any width. Give probe=..., ready features (m, features).")
    return np.asarray(Stream(network.seed, "fold").normal((ROWS, network.inputs)), network.dtype)


def _host(network: Sequential, array: Any) -> Array:
    return np.asarray(array if isinstance(array, np.ndarray) else network.backend.to_numpy(array), np.float64)


class Partners(NamedTuple):
    """The BatchNorms that are folded into a Dense: the preceding and the following one."""

    preceding: BatchNorm | None
    following: BatchNorm | None


class _Builder:
    """Builds the layers of the folded network and records which BatchNorms are folded."""

    def __init__(self, network: Sequential) -> None:
        self.network = network
        used = [id(layer) for _, layer in walk(network.layers)]
        self.shared = {layer for layer in used if used.count(layer) > 1}
        self.values: dict[Handle, Array] = {}
        self.copies: dict[int, Layer] = {}
        self.pieces: list[Piece] = []
        self.folded, self.kept = list[str](), dict[str, str]()
        self.steepest = 0.0  # the largest of all scales s

    # -- structure

    def sequence(self, chain: Iterable[Layer], prefix: str) -> list[Layer]:
        """New layers for a chain of layers; appends to `pieces`."""
        chain = tuple(chain)
        partners = self._partners(chain, prefix)
        layers: list[Layer] = []
        for i, layer in enumerate(chain):
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
                layers.append(self._copy(layer))
                self.pieces.append(Unfolded(layer))
        return layers

    def _partners(self, chain: tuple[Layer, ...], prefix: str) -> dict[int, Partners]:
        """The BatchNorms to fold into each Dense, by its index; the others go into `kept` with the reason."""
        partners: dict[int, Partners] = {}
        for i, layer in enumerate(chain):
            if not isinstance(layer, BatchNorm):
                continue
            for step in (-1, 1):
                j = i + step
                while 0 <= j < len(chain) and isinstance(chain[j], Dropout):
                    j += step
                reason = self._obstacle(layer, chain[j] if 0 <= j < len(chain) else None)
                taken = partners.get(j, Partners(None, None))
                if not reason and (taken.following if step < 0 else taken.preceding) is None:
                    partners[j] = taken._replace(following=layer) if step < 0 else taken._replace(preceding=layer)
                    break
            else:
                self.kept[f"{prefix}{i}"] = reason or "its Dense takes in another BatchNorm"
        return partners

    def _obstacle(self, norm: BatchNorm, adjacent: Layer | None) -> str:
        """The reason not to fold a BatchNorm into its neighbor, or ""."""
        if id(norm) in self.shared:
            return "it is used twice"
        if not isinstance(adjacent, Dense):
            return "no Dense is adjacent"
        return "its Dense is used twice" if id(adjacent) in self.shared else ""

    # -- numbers

    def _folded(self, dense: Dense, preceding: BatchNorm | None, following: BatchNorm | None) -> Dense:
        """The Dense with the adjacent BatchNorms in its weights."""
        W, bias = number(dense.W, self.network), bias_of(dense)
        b = np.zeros(dense.outputs) if bias is None else number(bias, self.network)
        if preceding is not None:
            mean, s, _, beta = self._scales(preceding)
            W, b = s[:, None] * W, (beta - mean * s) @ W + b
        if following is not None:
            mean, s, _, beta = self._scales(following)
            W, b = W * s, (b - mean) * s + beta
        new = Dense(dense.inputs, dense.outputs, bias=True, weights=dense.config()["weights"])
        assert new.b is not None
        self.values |= {new.W: W, new.b: b}
        self.pieces.append(Folded(dense, preceding, following, W, b))
        return new

    def _scales(self, norm: BatchNorm) -> tuple[Array, Array, Array, Array]:
        mean, s, gamma, beta = scales(norm, self.network)
        self.steepest = max(self.steepest, float(np.max(np.abs(s))))
        return mean, s, gamma, beta

    def _copy(self, layer: Layer) -> Layer:
        """A new layer with the configuration and numbers of `layer`; one that is used twice stays one."""
        if id(layer) in self.copies:
            return self.copies[id(layer)]
        if isinstance(layer, Dense):
            bias = bias_of(layer) is not None
            new: Layer = Dense(layer.inputs, layer.outputs, bias=bias, weights=layer.config()["weights"])
        else:
            new = build(config_of([layer]))[0]
        sources = layer.handles()
        for name, handle in new.handles().items():
            self.values[handle] = number(sources[name], self.network)
        self.copies[id(layer)] = new
        return new

    def state(self, folded: Sequential) -> dict[str, Array]:
        """The numbers of the new network under its names."""
        state: dict[str, Array] = {}
        for name, handle in folded.named_handles().items():
            if isinstance(handle, Statistics):
                keys = (name.removesuffix("statistics") + f"running_{kind}" for kind in ("count", "mean", "var"))
                state |= dict(zip(keys, self.values[handle], strict=True))
            else:
                assert isinstance(handle, Parameter)
                state[name] = self.values[handle]
        return state
