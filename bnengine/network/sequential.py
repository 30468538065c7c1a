"""Sequential: a network of layers. It owns their parameters in flat buffers and runs them forward and backward."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Self, overload

import numpy as np

from .. import ops
from .._typing import Array
from ..arrays.backend import Backend, get_backend
from ..arrays.dtypes import UNITS
from ..arrays.namespaces import dtype_name
from ..arrays.random import Stream
from ..data import Preprocessing
from ..errors import InputError
from ..layers import Context, Fusion, Layer, Placed, Pullback, build, chain, config_of
from ..layers.base import Dx, widths
from ..runtime.flat import Flat, Parameter, Statistics, size
from ..runtime.memory import Dispatch, Memory
from ..validation import choice, integer
from .passes import ROWS, Arrays, InferenceCache
from .precision import PrecisionName, resolve_precision
from .state import Freezable, Named
from .summary import summary

PRODUCTS = ops.affine.name, ops.affine_backward.name  # the ops that multiply matrices


class Forward:
    """The result of a forward pass: its output, the pending batch statistics, and the pullback.

    In memory that is reused (an `Arena`), all three are valid until the next pass begins there.

    Attributes:
        pending: the batch's statistics (count, mean, biased variance), which the pass did not commit.
    """

    def __init__(self, output: Array, pullback: Pullback, pending: Flat, memory: Memory) -> None:
        self._output, self.pending = output, pending
        self._pullback: Pullback | None = pullback
        self._memory, self._generation = memory, memory.generation

    def _check(self, what: str) -> None:
        if self._memory.generation != self._generation:
            raise InputError(
                f"{what}: another forward pass has begun in this memory and overwrites it. Use it before that pass."
            )

    @property
    def output(self) -> Array:
        """The output of the network."""
        self._check("output")
        return self._output

    def pullback(self, dy: Array, grads: Flat, *, dx: Dx = True) -> Array:
        """Run the backward pass, once.

        Args:
            dy: the gradient of the output.
            grads: the buffer for the gradients of the parameters, `network.gradients()`.
            dx: whether, or where, to compute the gradient of the input.

        Returns:
            The gradient of the input; None with `dx=False`.

        Raises:
            InputError: it ran already, or its memory was overwritten.
        """
        self._check("pullback")
        if self._pullback is None:
            raise InputError("pullback: it ran already and released its memory. Run forward again.")
        pull, self._pullback = self._pullback, None
        return pull(dy, grads, dx=dx)


class Sequential(Named):
    """A network: layers one after the other, with their parameters in one buffer of a backend.

        network = Sequential(Dense(64, 100), BatchNorm(100), Activation("relu"), Dense(100, 10))

    `network.layers`, `len(network)`, `network[i]` and iteration give the layers, numbered as in `state_dict` and
    `summary`. Setting an attribute of a layer, such as `network[1].decay`, takes effect at the next step; setting one
    that the network is built from, such as a width, is an error.

    Args:
        layers: at least one; the width of each is checked against its neighbor's.
        backend: where arrays are: a name ("numpy", "cupy", ...) or a Backend; None for `BNENGINE_BACKEND`, else "auto".
        dtype: of the parameters, "float32" or "float64".
        precision: of activations and products: "highest", or with float32 parameters "tf32", "bfloat16" or "float16",
            see `bnengine.network.precision`.
        seed: draws the weights, in float64 on the host, so every backend starts from the same bits.

    Attributes:
        parameters, statistics: the flat buffers of all parameters, and of all running statistics (3, channels).
        preprocessing: what turns raw data into inputs; a training sets it and a checkpoint holds it.

    Raises:
        InputError: no layers, widths that do not fit, an unknown option, or a precision that the backend lacks.
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
            raise InputError("Sequential(): no layers. Pass at least one.")
        for layer in layers:
            if not isinstance(layer, Layer):
                raise InputError(
                    f"Sequential: a part must be a layer, got {layer!r}. Pass objects such as Dense(64, 100)."
                )
        dtype = choice("Sequential", "dtype", dtype, ("float32", "float64"))
        self.backend = get_backend(backend)
        self.dtype, self.precision, self.seed = dtype, precision, seed
        self.storage, self.products = resolve_precision(precision, dtype, self.backend)
        self.preprocessing: Preprocessing | None = None
        self._calls = count()  # of forward passes in training that say no step
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
                    f"Sequential: {name} belongs to another network already. Make new layers, or load its state."
                )
        parameters = sorted((h for h in self._names.values() if isinstance(h, Parameter)), key=lambda h: not h.decays)
        statistics = [h for h in self._names.values() if isinstance(h, Statistics)]
        dtype, double = self.backend.dtype(self.dtype), self.backend.dtype("float64")
        self.parameters = Flat.zeros(xp, parameters, dtype, itemsize=4 if self.dtype == "float32" else 8, device=device)
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
        """Each channel's decay (-1: exact merge), and whether its running variance is unbiased, by its layer.

        A change of a layer updates the arrays in place, so recorded steps read it.
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
        """Draw the parameters again, and reset the running statistics to mean 0, var 1, count 0.

        Args:
            seed: a new seed of the network; None for its seed.
        """
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
        """Round the parameters to their 16-bit copy again, if activations have 16 bits.

        Training steps, loading, predicting and evaluating do so. Call it after you write into `named_parameters()`
        between steps of your own training loop.
        """
        if self.copy16 is not None:
            with np.errstate(over="ignore"):
                copy16 = self.copy16.array
                copy16[...] = self.backend.xp.astype(self.parameters.array, copy16.dtype)

    def reset_statistics(self) -> None:
        """Reset the running statistics to mean 0, var 1, count 0, as before any training."""
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
        """Run a forward pass. It changes neither parameters nor running statistics.

        Args:
            x: (..., features), of any library and floating dtype; it is converted to the network's.
            training: normalize by the statistics of the batch, and drop out; else by the running statistics.
            memory: where outputs are allocated; None for new arrays.
            pending: the buffer for the batch's statistics; None for a new one.
            samples: (m,) int64, indices in the data set, which key dropout; None for 0 ... m - 1.
            step: (1,) int64, the count of steps, which keys dropout; None counts these calls, so that each has
                another mask.
            dropout: whether a training pass drops out.

        Returns:
            Output, pending statistics and pullback. The output has the dtype of activations.

        Raises:
            InputError: x or `samples` do not fit, or there are no running statistics to evaluate by.
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
            raise InputError(
                f"Sequential: samples must have one index per row ({x.shape[0]}), got shape {tuple(samples.shape)}."
            )
        if step is None:
            calls = next(self._calls) if training and dropout else 0
            step = xp.full((1,), calls, dtype=xp.int64, device=device)
        samples, step = self.backend.asarray(samples, "int64"), self.backend.asarray(step, "int64")
        if memory is None:
            self.refresh()
        memory = memory or Memory()
        memory.begin()
        run = Context(training, memory, pending, self.seed, step, samples, dropout, self.products)
        y, pullback = chain(self.fused, x, run)
        return Forward(y, pullback, pending, memory)

    def predict(self, x: Any, *, batch_size: int = 4096) -> Array:
        """Return the output in evaluation mode, a new array in the network's dtype. Several threads may call it.

        On NumPy arrays with native kernels a batch has 1,024 rows at most and, from the second one of a shape on, is
        one native call. That call does not see state that a custom layer changes outside its attributes, parameters and
        statistics.

        Args:
            x: (m, ..., features), ready features; `bnengine.predict` takes raw data.
            batch_size: rows that run at once, at most.

        Raises:
            InputError: x does not fit, or the network has no running statistics yet.
        """
        batch_size = integer("predict", "batch_size", batch_size, least=1)
        x = x if hasattr(x, "shape") else np.asarray(x)
        rows = x.shape[0] if x.ndim > 1 else 0  # `forward` refuses fewer axes
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
        """Return run(*arguments, memory=...): new arrays that ops compute from the output in evaluation mode.

        From the second call of a kind on it is one native call, if native kernels run every op.

        Args:
            kind: shapes and dtypes of the arguments, and everything that `run` uses as a constant.
            arguments: arrays; one may be None.
            run: calls ops and this network's `forward` only.
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
        """Return the memory that a pass reads in addition to its arguments."""
        return [self.parameters.array, self.statistics.array]

    def gradients(self) -> Flat:
        """Return a zeroed buffer for the gradients of all parameters, which `pullback` writes into."""
        return self.parameters.like()

    def asarray(self, x: Any) -> Array:
        """Check x, and convert it to the network's library and the dtype of its activations."""
        if self._usual is not None and type(x) is np.ndarray and x.dtype == self._usual and self._has_inputs(x):
            return x  # the checks below would cost more than a prediction
        return self.backend.asarray(self.checked(x), self.storage)

    def _has_inputs(self, x: Array) -> bool:
        return bool(x.ndim > 1 and x.shape[0] > 0 and x.shape[-1] == self.inputs)

    def checked(self, x: Any) -> Array:
        """Check an input and return it, a list as a NumPy array.

        Raises:
            InputError: x is not floating, has no rows, or not as many features as the first layer.
        """
        host = x if hasattr(x, "dtype") else np.asarray(x)
        if dtype_name(host.dtype) not in UNITS and getattr(host.dtype, "kind", "") != "f":
            raise InputError(
                f"Sequential: the input must be floating, as the network's {self.dtype}, got {host.dtype}. Scale "
                "integers to floating numbers (x / 255, say), or let a Preprocessing do it."
            )
        if host.ndim < 2 or host.shape[0] == 0:
            raise InputError(
                f"Sequential: the input must be (rows, ..., features), at least one row, got shape {tuple(host.shape)}."
            )
        if self.inputs is not None and host.shape[-1] != self.inputs:
            raise InputError(
                f"{self.fused[0].name}: the input must have {self.inputs} features, got {host.shape[-1]}. Pass "
                f"(rows, {self.inputs})."
            )
        return host

    def _require_statistics(self) -> None:
        """Refuse to evaluate by running statistics that no step or forward pass has collected."""
        if self._collected:
            return
        counts = self.backend.to_numpy(self.statistics.array[0, :])
        for name, handle in self._names.items():
            if isinstance(handle, Statistics) and counts[self.statistics.offsets[handle]] == 0:
                raise InputError(
                    f"BatchNorm({handle.shape[0]}), layer {name.rsplit('.', 1)[0]}: no statistics were collected yet, "
                    "and evaluation needs them. Train first, load a trained state, or call forward(x, training=True)."
                )
        self._collected = True

    def config(self) -> dict[str, Any]:
        """Return JSON values from which `from_config` builds the same network, with the same parts frozen."""
        options = {"dtype": self.dtype, "precision": self.precision, "seed": self.seed}
        return {"layers": config_of(self.layers), **options, "frozen": self.frozen()}

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], *, backend: str | Backend | None = None,
        precision: PrecisionName | None = None,
    ) -> Self:  # fmt: skip
        """Build the network that `config` describes, with newly drawn weights.

        Args:
            config: what `config()` returned.
            backend: as in the constructor.
            precision: None for the one in `config`.
        """
        options = {"dtype": config["dtype"], "precision": precision or config.get("precision", "highest")}
        network = cls(*build(config["layers"]), backend=backend, seed=config["seed"], **options)
        kinds: tuple[Freezable, ...] = ("parameters", "statistics", "normalization")
        for kind in kinds:
            if names := config.get("frozen", {}).get(kind):
                network.freeze(kind, *names)
        return network

    # -- reports

    @property
    def parameter_count(self) -> int:
        """The number of trained numbers."""
        return sum(size(h) for h in self._names.values() if isinstance(h, Parameter))

    @property
    def decayed(self) -> list[str]:
        """The names of the parameters that weight decay applies to."""
        return [name for name, h in self._names.items() if isinstance(h, Parameter) and h.decays]

    @property
    def cancelled_biases(self) -> int:
        """The number of bias values that are left out because the next BatchNorm would subtract them."""
        return sum(size(self.changes.handles[name]) for name in self.cancelled)

    def explain_dispatch(self, rows: int = 2) -> list[Dispatch]:
        """Report which version of each op runs in a training pass, and why not a fused one.

        It runs a pass on zeros. In precision "tf32" the report also names the products that are float32: those of
        references.

        Args:
            rows: of that pass.
        """
        memory = Memory()
        x = self.backend.xp.zeros(
            (rows, self.inputs or 1), dtype=self.backend.dtype(self.storage), device=self.backend.device
        )
        forward = memory.run(self.forward, x, training=True)
        forward.pullback(self.backend.xp.zeros_like(forward.output), self.gradients(), dx=False)
        return [self._with_products(dispatch) for dispatch in memory.explain()]

    def _with_products(self, dispatch: Dispatch) -> Dispatch:
        if self.products == "highest" or dispatch.reason is None or dispatch.op not in PRODUCTS:
            return dispatch
        text = f"{dispatch.why}; its products are {dispatch.dtype}, not {self.products}"
        return dispatch._replace(reason=dispatch.reason._replace(text=text))

    def summary(self) -> str:
        """Return a table of the layers (output width, parameters, statistics), and totals below."""
        return summary(self)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"
