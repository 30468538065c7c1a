"""The arguments and outputs of each op as kernels take them: declared once, prepared alike on every device."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from .._typing import Array, DType
from ..arrays.random import split_seed
from ..errors import InputError
from ..ops.activations import ACTIVATIONS, slope_of
from ..runtime.memory import Outputs
from ..runtime.op import Launcher, Op
from ..runtime.reasons import Reason

DOUBLE = 8  # bytes
Shape = tuple[int, ...]


class Output(NamedTuple):
    """An output of an op.

    Attributes:
        shape: That of the argument of this name, or what a function of the call returns.
        type: "T" (the dtype of the leading argument), "wide" (what kernels compute in for T), a dtype's name, or the
            name of the argument whose dtype it has.
        name: What launches call it; "" for the name of the op's field.
        only_with: The argument or option without which a call does not have this output.
        instead: The output that replaces this one unless a call gives it a destination.
    """

    shape: str | Callable[["Call"], Shape]
    type: str = "T"
    name: str = ""
    only_with: str = ""
    instead: str = ""


def extent(x: Array) -> tuple[int, int]:
    """(rows, channels): all axes but the last are rows."""
    return prod(x.shape[:-1]), int(x.shape[-1])


def by_samples(x: Array) -> tuple[int, int]:
    """(samples, features): all axes but the first are features."""
    return int(x.shape[0]), x.size // int(x.shape[0])


def flat(x: Array) -> tuple[int]:
    """(elements,)."""
    return (int(x.size),)


class Signature(NamedTuple):
    """How kernels take an op.

    Attributes:
        arguments: Words `name:type`. Types are those of an output, and: "own" (any dtype), "target" (class numbers as
            int64, else wide), "number" (a scalar as an array of shape (1,)), "statistics" (float64 rows, perhaps
            columns of a larger buffer), "rows" (rows that need not follow each other), and "y" or "z" (T, where the
            derivative of the activation reads the output y or the input z; else the argument is absent).
        outputs: The op's outputs by field.
        lead: The argument whose dtype is T, and that decides which kernels run.
        reshaped: Arguments and outputs that launches see in the shape `reshape(x)`.
        derived: What else launches read from a prepared call, from its options and arguments.
    """

    arguments: str
    outputs: Mapping[str, Output]
    lead: str
    reshaped: str = ""
    reshape: Callable[[Array], Shape] = extent
    derived: Callable[["Call"], Mapping[str, Any]] = lambda _call: {}


def _statistics(call: "Call") -> Shape:
    return 3, int(call.lead.shape[-1])


def _channels(call: "Call") -> Shape:
    return (int(call.lead.shape[-1]),)


def _single(_call: "Call") -> Shape:
    return (1,)


def _counted(call: "Call") -> dict[str, int]:
    (rows, features), (low, high) = call.x.shape, split_seed(call.seed)
    threshold = round(call.rate * 2**32)
    return {"rows": rows, "features": features, "seed_low": low, "seed_high": high, "threshold": threshold}


def _gathered(name: str) -> Callable[["Call"], Shape]:
    return lambda call: (int(call.rows), *getattr(call, name).shape[1:])


_MOMENTS = {"batch": Output(_statistics, "float64"), "pending": Output(_statistics, "float64", instead="batch")}
_LOSS = {"value": Output(_single, "wide"), "dlogits": Output("lead", name="gradient")}
_ROWS = {
    "target": Output(_gathered("target"), "target", "to_target"),
    "weights": Output(_gathered("weights"), "weights", "to_weights", only_with="weights"),
    "samples": Output(_gathered("samples"), "int64", "to_samples"),
    "divisor": Output(_single, "wide", "to_divisor"),
    "x": Output(_gathered("x"), "T", "to_x"),
}
_DATA = "target:target weights:wide samples:int64 divisors:wide order:int64 cursor:int64"

SIGNATURES = {
    "activation": Signature("x", {"out": Output("x", name="y")}, "x", "x y"),
    "activation_backward": Signature("dy x:z y:y", {"out": Output("dy", name="dx")}, "dy", "dy x y dx"),
    "total": Signature("a b", {"out": Output("a")}, "a", "a b out"),
    "affine": Signature(
        "x W b:wide", {"out": Output(lambda c: (*c.x.shape[:-1], c.W.shape[1]), name="y")}, "x", "x y"
    ),
    "affine_backward": Signature(
        "x dy W y:y",
        {
            "dW": Output("W", "wide"),
            "db": Output(lambda c: (int(c.W.shape[1]),), "wide", only_with="bias_gradient"),
            "dx": Output("x", only_with="input_gradient"),
        },
        "x", "dy x y dx",
    ),
    "moments": Signature("x", _MOMENTS, "x", "x"),
    "normalize": Signature(
        "x statistics:statistics gamma:wide beta:wide add", {"out": Output("x", name="y")}, "x", "x add y"
    ),
    "batch_norm": Signature("x gamma:wide beta:wide add", {"y": Output("x"), **_MOMENTS}, "x", "x add y"),
    "normalize_backward": Signature(
        "x dy y:y add:z statistics:statistics gamma:wide beta:wide",
        {
            "dx": Output("x"),
            "dadd": Output("x", only_with="add"),
            "dgamma": Output(_channels, "wide", only_with="gamma"),
            "dbeta": Output(_channels, "wide", only_with="beta"),
        },
        "x", "dy x y add dx dadd",
    ),
    "commit": Signature(
        "running:float64 pending:float64 ok:bool decay:float64 unbiased:bool", {"out": Output("running", "float64")},
        "running",
    ),
    "merge": Signature("a:float64 b:float64", {"out": Output("a", "float64")}, "a"),
    "dropout": Signature(
        "x step:int64 samples:int64", {"out": Output("x", name="y"), "keep": Output("x", "bool")}, "x", "x y keep",
        by_samples, _counted,
    ),
    "dropout_backward": Signature(
        "dy keep:bool", {"out": Output("dy", name="dx")}, "dy", "dy keep dx", by_samples
    ),
    "softmax_cross_entropy": Signature(
        "logits target:target class_weights:wide sample_weights:wide divisor:number scale:wide", _LOSS, "logits",
        "logits gradient",
    ),
    "binary_cross_entropy": Signature(
        "logits target:wide sample_weights:wide divisor:number scale:wide", _LOSS, "logits", "logits gradient"
    ),
    "mean_squared_error": Signature(
        "prediction target:wide sample_weights:wide divisor:number scale:wide", _LOSS, "prediction",
        "prediction gradient",
    ),
    "correct": Signature("output target:target", {"out": Output(_single, "float64")}, "output", "output"),
    "gather": Signature(f"x:rows {_DATA}", _ROWS, "x"),
    "gather_raw": Signature(f"x:own {_DATA} mean:float64 inv_scale:float64", _ROWS, "divisors"),
    "check_step": Signature(
        "gradients pending:float64 loss scaling",
        {
            "ok": Output(_single, "bool"), "norm": Output(_single, "float64"), "factor": Output(_single),
            "scaling": Output(lambda _: (4,), name="new_scaling", only_with="scaling"),
        },
        "gradients", derived=lambda call: {"clip": float("inf") if call.clip is None else call.clip},
    ),
    "average": Signature(
        "averaged values ok:bool", {"out": Output("averaged")}, "averaged", "averaged values out", flat
    ),
    "count_step": Signature(
        "counters:int64 cursor:int64 ok:bool",
        {
            "counters": Output("counters", "int64", "new_counters"),
            "cursor": Output("cursor", "int64", "new_cursor", only_with="cursor"),
        },
        "counters",
    ),
    "add_epoch_sums": Signature(
        "value divisor correct:float64 sums:float64 ok:bool", {"out": Output("sums", "float64")}, "value"
    ),
}  # fmt: skip

RULES = {"binary_cross_entropy": "BinaryCrossEntropy", "mean_squared_error": "SquaredError"}  # of kernels/rules.h


class Call:
    """A call of an op: prepared arguments, options and outputs as attributes, by the names that launches use."""

    def __init__(self, to: Outputs, op: Op[Any], given: Mapping[str, Any]) -> None:
        vars(self).update(given, to=to, op=op, results={})

    def led_by(self, x: Array) -> None:
        """Set the leading argument, its size, and its rows and channels where those are no options."""
        values = vars(self)
        values["lead"], values["size"] = x, x.size
        values.setdefault("channels", x.shape[-1])
        values.setdefault("rows", x.size // max(1, x.shape[-1]))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...


Launch = Callable[..., None]
How = Callable[[Call], tuple[tuple[Any, ...], Mapping[str, Any]]]


class Device(ABC):
    """How the kernels of a device take arrays."""

    library: ClassVar[str]
    writes_to: ClassVar[str]  # for messages: what kernels write to, before the dtype

    @abstractmethod
    def refusal(self, x: Any, *more: str) -> Reason | None:
        """Why the kernels cannot take arrays like x, whose dtypes may be `more` than the usual; None if they can."""

    def aligned(self, x: Array, *, written: bool = False) -> bool:  # noqa: ARG002
        """Whether kernels can read x where it is, or with `written` write to it, apart from its strides."""
        return True

    @abstractmethod
    def wide(self, x: Array) -> DType:
        """The dtype that kernels compute in for arrays stored like x."""

    @abstractmethod
    def copy(self, to: Outputs, x: Array, out: Array) -> None:
        """Launch out = x, which have different dtypes or layouts; `out` is contiguous."""

    @abstractmethod
    def fill(self, to: Outputs, out: Array, value: float) -> None:
        """Launch out = value."""

    def in_rows(self, x: Array) -> bool:  # noqa: ARG002
        """Whether kernels can gather rows of x, which need not follow each other, where they are."""
        return False

    def version(self, op: Op[Any], *more: str) -> Callable[[Launch], Launch]:
        """Register `launch(to, call)` as the op's version for arrays of this device; `more` as in `refusal`."""
        prepare = _Preparation(self, op, SIGNATURES[op.name])

        def register(launch: Launch) -> Launch:
            def launcher(to: Outputs, **given: Any) -> Any:
                call = prepare(to, given)
                launch(to, call)
                return prepare.result(call)

            taken, first = signature(op.reference), Parameter("to", Parameter.POSITIONAL_ONLY)
            vars(launcher)["__signature__"] = taken.replace(parameters=[first, *taken.parameters.values()])
            self.register(op, launcher, *more)
            return launch

        return register

    def launches(self, op: Op[Any], kernel: Launch, *more: str, how: How = lambda _call: ((), {})) -> None:
        """Register one launch of a kernel as the op's version; `how(call)`: its parameters and what it is given."""

        def launch(to: Outputs, call: Call) -> None:
            parameters, given = how(call)
            kernel(to, call, *parameters, **given)

        self.version(op, *more)(launch)

    def register(self, op: Op[Any], launcher: Launcher, *more: str) -> None:
        """Register a launcher that prepares its arguments itself, under the name of its op."""
        launcher.__module__ = f"{type(self).__module__.rpartition('.')[0]}.{op.family}"
        launcher.__name__ = launcher.__qualname__ = op.name
        op.version(self.library, lambda x: self.refusal(x, *more))(launcher)

    def ready(self, to: Outputs, x: Array, dtype: DType | None = None) -> Array:
        """x itself if it is contiguous and of this dtype (None: any), else a copy that is.

        The copy is a launch, so every replay makes it again.
        """
        if x is None or ((dtype is None or x.dtype == dtype) and x.flags.c_contiguous and self.aligned(x)):
            return x
        out = to.array("a contiguous copy", x.shape, np.dtype(x.dtype if dtype is None else dtype), x)
        self.copy(to, x, out)
        return out

    def scalar(self, to: Outputs, value: Any, dtype: DType, like: Array) -> Array:
        """A number as an array of shape (1,), from which kernels read it; an array itself."""
        if hasattr(value, "shape"):
            return self.ready(to, value, dtype)
        out = to.array("a number", (1,), dtype, like)
        self.fill(to, out, float(value))
        return out

    def output(self, to: Outputs, field: str, shape: Shape, dtype: DType, like: Array) -> Array:
        """The array that output `field` is written to. A given destination must have its shape and dtype."""
        array = to.array(field, shape, dtype, like)
        if not to.given(field):
            return array
        if tuple(array.shape) != shape:
            shapes = f"{tuple(array.shape)}, the output is {shape}"
            raise InputError(f"the destination of {field!r} is {shapes}; they must be alike")
        packed = array.flags.c_contiguous or (field == "pending" and has_rows(array))
        if array.dtype != dtype or not packed or not self.aligned(array, written=True):
            layout = f"{array.dtype} with strides {tuple(array.strides)}"
            raise InputError(f"the destination of {field!r} is {layout}; {self.writes_to} {np.dtype(dtype)} arrays")
        return array


class _Preparation:
    """Prepares the calls of an op on a device, as its signature says."""

    def __init__(self, device: Device, op: Op[Any], of: Signature) -> None:
        self.device, self.op, self.of = device, op, of
        words = [word.partition(":")[::2] for word in of.arguments.split()]
        self.words = sorted(words, key=lambda word: word[0] != of.lead)  # the leading argument first
        self.reshaped, self.axes = of.reshaped.split(), 1 if of.reshape is flat else 2
        accumulates = tuple(op.accumulates)
        self.adds = [("adds", next(iter(accumulates), "")), *((f"adds_{field}", field) for field in accumulates)]
        returned: Any = op.reference.__annotations__.get("return")
        self.returned = returned if hasattr(returned, "_fields") else None

    def __call__(self, to: Outputs, given: Mapping[str, Any]) -> Call:
        call = Call(to, self.op, given)
        values = vars(call)
        kind = given.get("activation", given.get("kind"))
        if kind is not None:
            values["slope"] = slope_of(kind, given["slope"])
        for name, type_ in self.words:
            values[name] = self._argument(call, name, type_, kind)
            if name == self.of.lead:
                call.led_by(values[name])
        for name, field in self.adds:
            values[name] = to.adds(field)
        for field, output in self.of.outputs.items():
            self._output(call, field, output, given)
        for name in self.reshaped:
            if (x := values.get(name)) is not None and x.ndim != self.axes:
                values[name] = x.reshape(*self.of.reshape(x))
        values.update(self.of.derived(call))
        return call

    def result(self, call: Call) -> Any:
        """What the op returns."""
        return call.results["out"] if self.returned is None else self.returned(**call.results)

    def _argument(self, call: Call, name: str, type_: str, kind: str | None) -> Array:
        x, to, device = vars(call)[name], call.to, self.device
        if x is None or (type_ in ("y", "z") and ACTIVATIONS[kind or ""].reads != type_):
            return None
        if type_ == "statistics":
            x = x if device.aligned(x) and has_rows(x) else device.ready(to, x, np.float64)
            call.stride = row_stride(x)
            return x
        if type_ == "number":
            return device.scalar(to, x, device.wide(call.lead), call.lead)
        if type_ == "rows" and device.in_rows(x):
            return x
        return device.ready(to, x, self._dtype(call, name, type_))

    def _dtype(self, call: Call, name: str, type_: str) -> DType | None:
        """The dtype of an argument or output; None for the one that it has."""
        if type_ in ("own", "rows") or (name == self.of.lead and type_ in ("", "wide")):
            return None
        if type_ in ("", "T", "y", "z"):
            return call.lead.dtype
        if type_ == "target" and vars(call)["target"].dtype.kind in "iu":
            return np.dtype(np.int64)
        return self.device.wide(call.lead) if type_ in ("wide", "target") else np.dtype(type_)

    def _output(self, call: Call, field: str, output: Output, given: Mapping[str, Any]) -> None:
        values, to = vars(call), call.to
        name, wanted = output.name or field, output.only_with
        values[name] = None
        if wanted and (given[wanted] is None or given[wanted] is False):
            absent(to, field)
        elif not output.instead or to.given(field):
            like = values.get(output.type)
            dtype = self._dtype(call, "", output.type) if like is None else like.dtype
            shape = getattr(call, output.shape).shape if isinstance(output.shape, str) else output.shape(call)
            values[name] = self.device.output(to, field, shape, dtype, call.lead)
            if field == "pending":
                call.stride = row_stride(values[name])
        elif field == "pending":
            call.stride = call.channels
        call.results[field] = values[name] if values[name] is not None or not output.instead else values[output.instead]


def has_rows(x: Array) -> bool:
    """Whether x has contiguous rows of float64, a whole number of elements apart: columns of a larger buffer."""
    rows, columns = x.strides
    apart = rows % DOUBLE == 0 and rows >= DOUBLE * x.shape[1]
    return bool(x.dtype == np.float64 and columns == DOUBLE and apart)


def row_stride(x: Array) -> int:
    """The elements from row to row where `has_rows`."""
    return int(x.strides[0]) // DOUBLE


def copied(x: Array, out: Array) -> None:
    """A launch of the array library: x in the dtype and layout of `out`."""
    out[...] = x


def absent(to: Outputs, *fields: str) -> None:
    """Refuse destinations of outputs that a call does not have."""
    for field in fields:
        if to.given(field):
            raise InputError(f"this call has no output {field!r} that could go into a destination")
