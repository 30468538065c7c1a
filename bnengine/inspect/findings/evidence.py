"""What the checks look at: layers in order, statistics and parameters on the host, and one pass there and back."""

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
from .known import Known

ROWS = 1024  # of the data that are looked at
PROBE = 256  # rows of noise


@dataclass(frozen=True)
class Standing:
    """A layer and its place; a Residual stands behind its body, where the sum is."""

    place: str
    layer: Layer


@dataclass(frozen=True)
class Norm:
    """A BatchNorm with its numbers: statistics (3, C) and gamma, beta (C,) in float64, None where it has none.

    `activation`: the kind that follows directly, or "".
    """

    place: str
    layer: BatchNorm
    statistics: Array
    gamma: Array | None
    beta: Array | None
    activation: str

    @property
    def collected(self) -> bool:
        """Whether there are statistics, and all of them are finite."""
        return bool(np.all(self.statistics[0] > 0) and np.isfinite(self.statistics).all())


@dataclass
class Passed:
    """A layer that a pass went through: what it gave, and the gradient of that; float64 on the host."""

    here: Placed
    y: Array
    dy: Array | None = None


class Evidence:
    """A network under examination; nothing of it is changed.

    `data`: as `population` takes it, or None. Raises InputError.
    """

    def __init__(self, network: Sequential, data: Any, known: Known) -> None:
        self.network, self.known = network, known
        self.x: Array | None = None if data is None else _rows(network, data)
        self.standing = list(_standing(network.layers))
        read = network.backend.to_numpy
        self.values = {n: np.array(read(a), np.float64) for n, a in network.named_parameters().items()}
        self.statistics = {n: np.array(read(a), np.float64) for n, a in network.named_statistics().items()}
        self.names: dict[Handle, str] = {handle: name for name, handle in network.named_handles().items()}
        self.norms = list(self._norms())

    def _norms(self) -> Iterator[Norm]:
        seen = set[Handle]()
        for i, (place, layer) in enumerate((s.place, s.layer) for s in self.standing):
            if not isinstance(layer, BatchNorm) or layer.statistics in seen:
                continue
            seen.add(layer.statistics)
            after = self.standing[i + 1].layer if i + 1 < len(self.standing) else None
            gamma, beta = (None if h is None else self.values[self.names[h]] for h in (layer.gamma, layer.beta))
            statistics = self.statistics[self.names[layer.statistics]]
            yield Norm(place, layer, statistics, gamma, beta, after.kind if isinstance(after, Activation) else "")

    def follows(self, i: int) -> Layer | None:
        """The layer behind standing[i], identities left out."""
        rest = (s.layer for s in self.standing[i + 1 :])
        return next((layer for layer in rest if not is_identity(layer)), None)

    @property
    def runs(self) -> bool:
        """Whether a pass in training mode can be finite: parameters are, and running statistics that it takes."""
        taken = [norm.statistics for norm in self.norms if norm.layer.statistics.use_running]
        return all(np.isfinite(a).all() for a in (*self.values.values(), *taken))

    @cached_property
    def probed(self) -> tuple[list[Passed], dict[str, Array]]:
        """What `passing` tells of noise: inputs of mean 0, whose sums are as exact as they can be."""
        return self.passing(np.random.default_rng(0).standard_normal((PROBE, self.network.inputs or 1)))

    @cached_property
    def seen(self) -> list[Passed]:
        """What `passing` tells of the data."""
        return [] if self.x is None else self.passing(self.x)[0]

    def passing(self, x: Array) -> tuple[list[Passed], dict[str, Array]]:
        """Every layer as a batch passes in training mode and back, and the parameters' gradients by name.

        The gradient of the output is noise, a loss like any other, so that no labels are needed. Activations stand
        apart from the layers that apply them. In full precision.
        """
        network = _in_full_precision(self.network)
        handles = network.named_handles()
        self.names |= {handle: name for name, handle in handles.items()}  # a copy has handles of its own
        rng = np.random.default_rng(1)
        backend, read, found = network.backend, _host(network), list[Passed]()

        def see(here: Placed, y: Array) -> Callable[[Array], None]:
            one = Passed(here, read(y))
            found.append(one)
            return lambda dy: setattr(one, "dy", read(dy))

        value = network.asarray(np.asarray(x, network.dtype))
        zero, samples = backend.asarray(np.zeros(1, np.int64)), backend.asarray(np.arange(len(x)))
        run = Context(True, Memory(), network.statistics.like(), network.seed, zero, samples, drops=False)
        grads = network.gradients()
        with np.errstate(all="ignore"):
            output, pullback = chain(tap(network.fused, see), value, run)
            pullback(backend.asarray(rng.standard_normal(output.shape), network.dtype), grads)
        return found, {name: read(grads[handles[name]]) for name in self.values}


def is_identity(layer: Layer) -> bool:
    """Whether a layer hands on what it gets, in training too."""
    return (isinstance(layer, Activation) and layer.kind == "identity") or getattr(layer, "rate", 1) == 0


def _standing(layers: Iterable[Layer], prefix: str = "") -> Iterator[Standing]:
    for i, layer in enumerate(layers):
        if isinstance(layer, Residual):
            yield from _standing(layer.body, f"{prefix}{i}.")
        yield Standing(f"{prefix}{i}", layer)


def _rows(network: Sequential, data: Any) -> Array:
    """Rows of the data at even distances, (m, ...) in the network's dtype on the host."""
    source = source_of("doctor", network, data)
    if source.rows is None:
        first = next(batches_of(source, ROWS), None)
        x = None if first is None else first.x[:ROWS]
    else:
        x = source.take(np.unique(np.linspace(0, source.rows - 1, ROWS).astype(np.int64))).x
    if x is None or len(x) < 2:
        raise InputError("doctor: the data have fewer than two rows, which have no variance; give more, or no data")
    network.checked(x)
    return np.asarray(x)


def _host(network: Sequential) -> Callable[[Array], Array]:
    return lambda array: np.array(network.backend.to_numpy(array), np.float64)


def _in_full_precision(network: Sequential) -> Sequential:
    if network.precision == "highest":
        return network
    copy = Sequential.from_config(network.config(), backend=network.backend, precision="highest")
    copy.load_state_dict(network.state_dict())
    return copy
