"""The evidence of the checks: layers in order, statistics and parameters on the host, and a traced pass."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..._typing import Array
from ...errors import InputError
from ...layers import Activation, BatchNorm, Context, Layer, Placed, Residual, chain
from ...layers.tap import tap
from ...network.sequential import Sequential
from ...runtime.flat import Handle
from ...runtime.memory import Memory
from ...training.evaluation import batches_of
from ..population import source_of
from .facts import TrainingFacts

ROWS = 1024  # of the data that are used
PROBE = 256  # rows of noise


@dataclass(frozen=True)
class PlacedLayer:
    """A layer and its place; a Residual comes after its body, as its sum does."""

    place: str
    layer: Layer


@dataclass(frozen=True)
class Norm:
    """A BatchNorm with its numbers in float64: statistics (3, C), and gamma and beta (C,), or None.

    activation: the kind of the next layer, or "".
    """

    place: str
    layer: BatchNorm
    statistics: Array
    gamma: Array | None
    beta: Array | None
    activation: str

    @property
    def collected(self) -> bool:
        """Whether statistics were collected, and all are finite."""
        return bool(np.all(self.statistics[0] > 0) and np.isfinite(self.statistics).all())


@dataclass
class Trace:
    """A layer in a traced pass: its output, and the gradient of it; float64 on the host."""

    here: Placed
    y: Array
    dy: Array | None = None


class Evidence:
    """A network to check, and what is known about it. The network does not change.

    Args:
        network: the network.
        data: as for `population`, or None.
        facts: about its training.

    Raises:
        InputError: data that the network cannot take.
    """

    def __init__(self, network: Sequential, data: Any, facts: TrainingFacts) -> None:
        self.network, self.facts = network, facts
        self.x: Array | None = None if data is None else _rows(network, data)
        self.layers = list(_placed_layers(network.layers))
        read = network.backend.to_numpy
        self.values = {n: np.array(read(a), np.float64) for n, a in network.named_parameters().items()}
        self.statistics = {n: np.array(read(a), np.float64) for n, a in network.named_statistics().items()}
        self.names: dict[Handle, str] = {handle: name for name, handle in network.named_handles().items()}
        self.norms = list(self._norms())

    def _norms(self) -> Iterator[Norm]:
        seen = set[Handle]()
        for i, (place, layer) in enumerate((s.place, s.layer) for s in self.layers):
            if not isinstance(layer, BatchNorm) or layer.statistics in seen:
                continue
            seen.add(layer.statistics)
            after = self.layers[i + 1].layer if i + 1 < len(self.layers) else None
            gamma, beta = (None if h is None else self.values[self.names[h]] for h in (layer.gamma, layer.beta))
            statistics = self.statistics[self.names[layer.statistics]]
            yield Norm(place, layer, statistics, gamma, beta, after.kind if isinstance(after, Activation) else "")

    def follows(self, i: int) -> Layer | None:
        """The layer after layers[i], without identities."""
        rest = (s.layer for s in self.layers[i + 1 :])
        return next((layer for layer in rest if not is_identity(layer)), None)

    @property
    def runs(self) -> bool:
        """Whether a training pass can be finite: parameters are, and the running statistics that it uses."""
        taken = [norm.statistics for norm in self.norms if norm.layer.statistics.use_running]
        return all(np.isfinite(a).all() for a in (*self.values.values(), *taken))

    @cached_property
    def probed(self) -> tuple[list[Trace], dict[str, Array]]:
        """The trace of noise: inputs of mean 0, whose sums are as exact as possible."""
        return self.trace(np.random.default_rng(0).standard_normal((PROBE, self.network.inputs or 1)))

    @cached_property
    def seen(self) -> list[Trace]:
        """The trace of the data."""
        return [] if self.x is None else self.trace(self.x)[0]

    def trace(self, x: Array) -> tuple[list[Trace], dict[str, Array]]:
        """Trace a training pass and its backward in full precision: every layer, and parameter gradients by name.

        The gradient of the output is noise, which replaces a loss, so that no labels are needed. Fused activations are
        split off their layers.
        """
        network = _in_full_precision(self.network)
        handles = network.named_handles()
        self.names |= {handle: name for name, handle in handles.items()}  # a copy has other handles
        rng = np.random.default_rng(1)
        backend, read, traces = network.backend, _host(network), list[Trace]()

        def see(here: Placed, y: Array) -> Callable[[Array], None]:
            traced = Trace(here, read(y))
            traces.append(traced)
            return lambda dy: setattr(traced, "dy", read(dy))

        value = network.asarray(np.asarray(x, network.dtype))
        zero, samples = backend.asarray(np.zeros(1, np.int64)), backend.asarray(np.arange(len(x)))
        run = Context(True, Memory(), network.statistics.like(), network.seed, zero, samples, drops=False)
        grads = network.gradients()
        with np.errstate(all="ignore"):
            output, pullback = chain(tap(network.fused, see), value, run)
            pullback(backend.asarray(rng.standard_normal(output.shape), network.dtype), grads)
        return traces, {name: read(grads[handles[name]]) for name in self.values}


def is_identity(layer: Layer) -> bool:
    """Whether a layer returns its input, in training too."""
    return (isinstance(layer, Activation) and layer.kind == "identity") or getattr(layer, "rate", 1) == 0


def _placed_layers(layers: Iterable[Layer], prefix: str = "") -> Iterator[PlacedLayer]:
    for i, layer in enumerate(layers):
        if isinstance(layer, Residual):
            yield from _placed_layers(layer.body, f"{prefix}{i}.")
        yield PlacedLayer(f"{prefix}{i}", layer)


def _rows(network: Sequential, data: Any) -> Array:
    """Evenly spaced rows of the data, (m, ...) in the network's dtype on the host."""
    source = source_of("doctor", network, data)
    if source.rows is None:
        first = next(batches_of(source, ROWS), None)
        x = None if first is None else first.x[:ROWS]
    else:
        x = source.take(np.unique(np.linspace(0, source.rows - 1, ROWS).astype(np.int64))).x
    if x is None or len(x) < 2:
        raise InputError("doctor: a variance needs two rows, got fewer. Give more data, or none.")
    network.checked(x)
    return np.asarray(x)


def _host(network: Sequential) -> Callable[[Array], Array]:
    return lambda array: np.array(network.backend.to_numpy(array), np.float64)


def _in_full_precision(network: Sequential) -> Sequential:
    if network.precision == "highest":
        return network
    copy = Sequential.from_config(network.config(), backend=network.backend, precision="highest")
    copy.load_state_dict(network.state_dict(), sound=False)
    return copy
