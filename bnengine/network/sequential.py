"""Sequential: owns the flat buffers of its layers, runs the chain forward and back."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Self, overload

import numpy as np

from .._typing import Array
from ..arrays.backend import Backend, get_backend
from ..arrays.random import Stream
from ..data import Preprocessing
from ..errors import InputError
from ..layers import Context, Fusion, Layer, Placed, Pullback, build, chain, config_of
from ..layers.base import Dx, widths
from ..runtime.flat import Flat, Parameter, Statistics, size
from ..runtime.memory import Choice, Memory
from ..validation import integer
from .passes import ROWS, Arrays, InferenceCache
from .precision import PrecisionName
from .precision import settle as settle_precision
from .state import Freezable, Named
from .summary import summary


class Forward:
    """The output of a forward pass, the statistics it proposes, and the way back, once.

    Where the pass was run in memory that is used again, all three are good until the next pass begins there.
    """

    def __init__(self, output: Array, pullback: Pullback, pending: Flat, memory: Memory) -> None:
        self._output, self.pending = output, pending
        self._pullback: Pullback | None = pullback
        self._memory, self._generation = memory, memory.generation

    def _check(self, what: str) -> None:
        if self._memory.generation != self._generation:
            raise InputError(
                f"{what}: another forward pass has begun in this memory and overwrites it; use it before that"
            )

    @property
    def output(self) -> Array:
        """What the network gave."""
        self._check("output")
        return self._output

    def pullback(self, dy: Array, grads: Flat, *, dx: Dx = True) -> Array:
        """The gradient of the input from that of the output; the parameters' gradients go into `grads`. Once only."""
        self._check("pullback")
        if self._pullback is None:
            raise InputError("pullback: it ran already, and what it needs is released; run forward again")
        pull, self._pullback = self._pullback, None
        return pull(dy, grads, dx=dx)


class Sequential(Named):
    """Layers one after the other, their numbers in one buffer of a backend.

    `backend`: a name or Backend, None for the environment's or "auto"; `dtype` "float32" or "float64"; `seed` draws the
    weights on the host in float64 and rounds them, so that every backend starts from the same bits. `precision`:
    "highest", or with float32 parameters "tf32", "bfloat16" or "float16", see `bnengine.network.precision`; one
    that the backend does not have is an error. When it is built, each layer is checked against its neighbor's width.

    `layers`, `len(network)`, `network[i]` and iteration give the layers themselves, numbered as in `state_dict` and
    `summary`. An attribute of a layer that is set, such as `network[1].decay`, takes effect at the next step; what a
    network is built from, such as a width, is an error to set.
    """

    def __init__(
        self,
        *layers: Layer,
        backend: str | Backend | None = None,
        dtype: str = "float32",
        precision: PrecisionName = "highest",
        seed: int = 0,
    ) -> None:
        if not layers:
            raise InputError("Sequential(): no layers; give at least one")
        for layer in layers:
            if not isinstance(layer, Layer):
                raise InputError(f"Sequential: {layer!r} is not a layer; give objects such as Dense(64, 100)")
        if dtype not in ("float32", "float64"):
            raise InputError(f"Sequential: dtype {dtype!r} is not 'float32' or 'float64'")
        self.backend = get_backend(backend)
        self.dtype, self.precision, self.seed = dtype, precision, seed
        self.storage, self.products = settle_precision(precision, dtype, self.backend)
        self.preprocessing: Preprocessing | None = None  # set by training, saved along: what raw data goes through
        self.changes = Fusion(layers)
        self.inputs, self.outputs = widths(layers, None, label=True)
        self.cancelled = self.changes.cancelled
        self._names = {name: h for name, h in self.changes.handles.items() if name not in self.cancelled}
        native = self.backend.name == "numpy" and self.storage == dtype
        self.passes, self._changes = InferenceCache() if native else None, self.changes.count
        self._usual = np.dtype(dtype) if native else None
        self._allocate()
        self.changes.attach()
        self.reset()

    # -- layers

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that the network was built from."""
        return self.changes.layers

    @property
    def fused(self) -> tuple[Placed, ...]:
        """The layers as a step runs them: each at its place, with the neighbors that its op computes."""
        return self.changes.placed

    def __len__(self) -> int:
        return len(self.layers)

    @overload
    def __getitem__(self, i: int) -> Layer: ...
    @overload
    def __getitem__(self, i: slice) -> tuple[Layer, ...]: ...
    def __getitem__(self, i: int | slice) -> Layer | tuple[Layer, ...]:
        return self.layers[i]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    # -- buffers

    def _allocate(self) -> None:
        xp, device = self.backend.xp, self.backend.device
        for name, handle in self._names.items():
            if handle.value is not None:
                raise InputError(
                    f"Sequential: {name} belongs to another network already; make new layers, or load its state"
                )
        parameters = sorted((h for h in self._names.values() if isinstance(h, Parameter)), key=lambda h: not h.decays)
        statistics = [h for h in self._names.values() if isinstance(h, Statistics)]
        own, double = self.backend.dtype(self.dtype), self.backend.dtype("float64")
        self.parameters = Flat.zeros(xp, parameters, own, itemsize=4 if self.dtype == "float32" else 8, device=device)
        self.statistics = Flat.zeros(xp, statistics, double, itemsize=8, device=device)
        if not statistics:
            self.statistics = Flat(xp.zeros((3, 0), dtype=double, device=device), {})
        offsets = self.parameters.offsets
        undecayed = [offsets[h] for h in parameters if not h.decays]
        self.decay_end = min(undecayed) if undecayed else self.parameters.array.shape[0]
        self._rules, self._rules_seen = self._commit_rules(), self.changes.count
        self.copy16: Flat | None = None
        if self.storage != self.dtype:
            narrow = xp.zeros(self.parameters.array.shape, dtype=self.backend.dtype(self.storage), device=device)
            self.copy16 = self.parameters.over(narrow)
        for handle in self._names.values():
            if isinstance(handle, Parameter):
                handle.value = self.parameters[handle]
                handle.operand = handle.value if self.copy16 is None else self.copy16[handle]
            else:
                handle.value = self.statistics[handle]
        self._collected = not statistics

    @property
    def commit_rules(self) -> tuple[Array, Array]:
        """Each channel's decay (-1: exact merge), and whether its running variance is unbiased: as the layers say now.

        The arrays stay where they are, so that recorded steps read them.
        """
        if self._rules_seen != (count := self.changes.count):
            for array, new in zip(self._rules, self._commit_rules(), strict=True):
                array[...] = new
            self._rules_seen = count
        return self._rules

    def _commit_rules(self) -> tuple[Array, Array]:
        decay = np.ones(self.statistics.array.shape[1])
        unbiased = np.ones(self.statistics.array.shape[1], bool)
        for handle, a in self.statistics.offsets.items():
            assert isinstance(handle, Statistics)
            decay[a : a + size(handle)] = -1.0 if handle.decay is None else handle.decay
            unbiased[a : a + size(handle)] = handle.unbiased
        return self.backend.asarray(decay, copy=True), self.backend.asarray(unbiased, copy=True)

    def reset(self, seed: int | None = None) -> None:
        """Draw the parameters again and forget the statistics: mean 0, var 1, count 0."""
        self.seed = self.seed if seed is None else seed
        for name, handle in self._names.items():
            if isinstance(handle, Parameter):
                handle.value[...] = 0
                if handle.initializer is not None:
                    drawn = handle.initializer(Stream(self.seed, "parameters", name), handle.shape)
                    handle.value[...] = self.backend.asarray(drawn, self.dtype)
        self.refresh()
        self.reset_statistics()

    def refresh(self) -> None:
        """Round the parameters to their 16-bit copy again, where activations have 16 bits.

        A training step does it itself, and so does all that loads, predicts or evaluates; whoever writes into
        `named_parameters()` between steps of a training loop of their own calls it afterwards.
        """
        if self.copy16 is not None:
            with np.errstate(over="ignore"):
                copy16 = self.copy16.array
                copy16[...] = self.backend.xp.astype(self.parameters.array, copy16.dtype)

    def reset_statistics(self) -> None:
        """Running statistics as before any training: mean 0, var 1, count 0."""
        self.statistics.array[...] = 0
        self.statistics.array[2, :] = 1
        self._collected = not self.statistics.offsets

    # -- running

    def forward(
        self,
        x: Array,
        *,
        training: bool,
        memory: Memory | None = None,
        pending: Flat | None = None,
        samples: Array | None = None,
        step: Array | None = None,
        dropout: bool = True,
    ) -> Forward:
        """The output for x (..., features) and the way back; parameters and running statistics stay as they are.

        `training` normalises by the batch and drops out, else by the running statistics. The batch's moments go into
        `pending` (made here if not given). `samples` (m,) int64: indices in the data set, and `step` (1,): what
        dropout is keyed by; 0, 1, ... and 0 if not given; `dropout` False leaves it out of a training pass. x may be
        of any library and floating dtype; it is brought to the network's. The output has the dtype of activations.
        """
        x = self.asarray(x)
        if not training:
            self._require_statistics()
        xp, device = self.backend.xp, self.backend.device
        if pending is None:
            pending = self.statistics.like()
        if samples is None:
            samples = xp.arange(x.shape[0], dtype=xp.int64, device=device)
        elif tuple(samples.shape) != (x.shape[0],):
            raise InputError(f"Sequential: {tuple(samples.shape)} sample indices for {x.shape[0]} rows; give one a row")
        if step is None:
            step = xp.zeros((1,), dtype=xp.int64, device=device)
        samples, step = self.backend.asarray(samples, "int64"), self.backend.asarray(step, "int64")
        if memory is None:
            self.refresh()
        memory = memory or Memory()
        memory.begin()
        run = Context(training, memory, pending, self.seed, step, samples, dropout, self.products)
        y, pullback = chain(self.fused, x, run)
        return Forward(y, pullback, pending, memory)

    def predict(self, x: Any, *, batch_size: int = 4096) -> Array:
        """The output in evaluation mode, in batches of at most `batch_size` rows: one array in the network's dtype.

        On NumPy arrays with native kernels a batch has 1,024 rows at most, and from the second one of a shape on it is
        one native call; see `bnengine.network.passes`. A layer of your own that is made of ops is part of it, and what
        it reads other than its attributes, parameters and statistics stays as it was then. The array is new. Threads
        may call it at once.
        """
        batch_size = integer("predict", "batch_size", batch_size, least=1)
        x = x if hasattr(x, "shape") else np.asarray(x)
        rows = x.shape[0] if x.ndim > 1 else 0  # forward refuses the others
        most = batch_size if self.passes is None else min(batch_size, ROWS)
        if rows <= most:
            return self._predicted(x)
        parts = [self._predicted(x[a : min(a + most, rows), ...]) for a in range(0, rows, most)]
        return self.backend.xp.concat(parts, axis=0)

    def _predicted(self, x: Any) -> Array:
        x = self.asarray(x)
        output = self.evaluated(x.shape, (x,), self._output)[0]
        return output if self.passes is not None else self.backend.asarray(output, self.dtype)

    def _output(self, x: Array, *, memory: Memory) -> tuple[Array]:
        return (memory.run(self.forward, x, training=False).output,)

    def evaluated(self, kind: Hashable, arguments: Sequence[Array | None], run: Callable[..., Arrays]) -> Arrays:
        """run(*arguments, memory=...): new arrays, made by ops from this network's output in evaluation mode.

        `kind`: shapes and dtypes of the arguments, and all that `run` holds as a constant: from the second time on, it
        is one native call where that can be.
        """
        if self.passes is None:
            return run(*arguments, memory=Memory())
        if not self._collected:
            self._require_statistics()
        if self._changes != self.changes.count:
            self._changes = self.changes.count
            self.passes.forget()
        return self.passes(kind, arguments, self._read, run)

    def _read(self) -> list[Array]:
        """The memory that a pass reads beside its arguments."""
        return [self.parameters.array, self.statistics.array]

    def gradients(self) -> Flat:
        """A zeroed buffer for the gradients of all parameters: what `pullback` writes into."""
        return self.parameters.like()

    def asarray(self, x: Any) -> Array:
        """x in the network's library and the dtype of its activations, checked."""
        if self._usual is not None and type(x) is np.ndarray and x.dtype == self._usual and self._has_inputs(x):
            return x  # the checks below would cost more than a prediction
        return self.backend.asarray(self.checked(x), self.storage)

    def _has_inputs(self, x: Array) -> bool:
        return bool(x.ndim > 1 and x.shape[0] > 0 and x.shape[-1] == self.inputs)

    def checked(self, x: Any) -> Array:
        """x as it is, or a list as a NumPy array; an error unless it is floating, has a row or more, and the first
        layer's features.
        """
        host = x if hasattr(x, "dtype") else np.asarray(x)
        kind = getattr(host.dtype, "name", str(host.dtype)).split(".")[-1]
        if not kind.startswith(("float", "bfloat")):
            raise InputError(
                f"Sequential: the input is {str(host.dtype).split('.')[-1]}, the network computes in {self.dtype}; "
                "give floating numbers, integers scaled (x / 255, say), or let a Preprocessing do it"
            )
        if host.ndim < 2 or host.shape[0] == 0:
            raise InputError(
                f"Sequential: the input has shape {tuple(host.shape)}; give (rows, ..., features), one row or more"
            )
        if self.inputs is not None and host.shape[-1] != self.inputs:
            raise InputError(
                f"{self.fused[0].name}: the input has {host.shape[-1]} features, the layer was made for "
                f"{self.inputs}; give an array of shape (rows, {self.inputs})"
            )
        return host

    def _require_statistics(self) -> None:
        """Evaluating by statistics that nobody collected is a silent error elsewhere; here it names the layer."""
        if self._collected:
            return
        counts = self.backend.to_numpy(self.statistics.array[0, :])
        for name, handle in self._names.items():
            if isinstance(handle, Statistics) and counts[self.statistics.offsets[handle]] == 0:
                raise InputError(
                    f"BatchNorm({handle.shape[0]}), layer {name.rsplit('.', 1)[0]}: no statistics were collected yet, "
                    "so there is nothing to evaluate by; train first, load a trained state, or call forward(x, "
                    "training=True)"
                )
        self._collected = True

    def config(self) -> dict[str, Any]:
        """JSON values that `from_config` builds the same network of; what is frozen is part of it."""
        own = {"dtype": self.dtype, "precision": self.precision, "seed": self.seed}
        return {"layers": config_of(self.layers), **own, "frozen": self.frozen()}

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], *, backend: str | Backend | None = None,
        precision: PrecisionName | None = None,
    ) -> Self:  # fmt: skip
        """The network that `config` described, with its drawn weights; `precision` None for the one it names."""
        own = {"dtype": config["dtype"], "precision": precision or config.get("precision", "highest")}
        network = cls(*build(config["layers"]), backend=backend, seed=config["seed"], **own)
        kinds: tuple[Freezable, ...] = ("parameters", "statistics", "normalization")
        for kind in kinds:
            if names := config.get("frozen", {}).get(kind):
                network.freeze(kind, *names)
        return network

    # -- reports

    @property
    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(size(h) for h in self._names.values() if isinstance(h, Parameter))

    @property
    def decayed(self) -> list[str]:
        """The parameters that an optimizer's weight decay is on, by name."""
        return [name for name, h in self._names.items() if isinstance(h, Parameter) and h.decays]

    @property
    def cancelled_biases(self) -> int:
        """How many bias values were left out because a BatchNorm directly behind would subtract them."""
        return sum(size(self.changes.handles[name]) for name in self.cancelled)

    def explain_dispatch(self, rows: int = 2) -> list[Choice]:
        """Which version of each op a training pass takes, and why not a fused one: found by running one on zeros.

        In precision "tf32" it says which products are float32 all the same: those of a reference.
        """
        memory = Memory()
        x = self.backend.xp.zeros(
            (rows, self.inputs or 1), dtype=self.backend.dtype(self.storage), device=self.backend.device
        )
        forward = memory.run(self.forward, x, training=True)
        forward.pullback(self.backend.xp.zeros_like(forward.output), self.gradients(), dx=False)
        return [self._with_products(choice) for choice in memory.explain()]

    def _with_products(self, choice: Choice) -> Choice:
        if self.products == "highest" or choice.reason is None or not choice.op.startswith("affine"):
            return choice
        text = f"{choice.why}; its products are {choice.dtype}, not {self.products}"
        return choice._replace(reason=choice.reason._replace(text=text))

    def summary(self) -> str:
        """A table of the layers: output width, parameters, statistics; cancelled biases and bytes beneath it."""
        return summary(self)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"
