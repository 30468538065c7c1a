"""Initial values of parameters: an initializer maps (stream, shape) to float64 values on the host.

W is (inputs, outputs), so that z = a W. For a weight with more axes in front, such as a kernel (height, width, inputs,
outputs), fan_in is the product of all axes but the last, and fan_out is outputs times the axes before the last two.
Weights are drawn in float64 and rounded to the network's dtype later: the same seed gives the same values on every
backend.
"""

from dataclasses import dataclass
from math import prod, sqrt
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..arrays.random import Stream
from ..errors import InputError
from ..registry import Registry, needed
from ..validation import number

Float64 = npt.NDArray[np.float64]


@runtime_checkable
class Initializer(Protocol):
    """Maps a stream and a shape to float64 values of that shape."""

    def __call__(self, stream: Stream, shape: tuple[int, ...], /) -> Float64: ...


INITIALIZERS = Registry[Initializer]("initializer", key="type")


@INITIALIZERS.register
@dataclass(frozen=True)
class He:
    """Normal with std = sqrt(2 / fan_in), which keeps the size of activations through relu layers.

    Source: He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015. InputError for fewer than 2 axes.
    """

    def __call__(self, stream: Stream, shape: tuple[int, ...]) -> Float64:
        fan_in, _ = _fans("He", shape)
        return stream.normal(shape) * sqrt(2.0 / fan_in)


@INITIALIZERS.register
@dataclass(frozen=True)
class Glorot:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)), which balances activations and gradients around tanh.

    Source: Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.
    InputError for fewer than 2 axes.
    """

    def __call__(self, stream: Stream, shape: tuple[int, ...]) -> Float64:
        limit = sqrt(6.0 / sum(_fans("Glorot", shape)))
        return (2.0 * stream.uniform(shape) - 1.0) * limit


@INITIALIZERS.register
@dataclass(frozen=True)
class Orthogonal:
    """gain * Q with orthonormal columns (rows if outputs exceed inputs), uniform among all such matrices.

    Q of the QR decomposition of a normal matrix, each column with the sign of R's diagonal (Mezzadri, "How to
    generate random matrices from the classical compact groups", Notices of the AMS 54, 2007). All axes but the last
    count as inputs. LAPACK computes QR, so the same bits are promised on one machine only. Source: Saxe, McClelland,
    Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", ICLR 2014.
    InputError for fewer than 2 axes.

    Args:
        gain: a finite number that multiplies Q.
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "gain", number("Orthogonal", "gain", self.gain))

    def __call__(self, stream: Stream, shape: tuple[int, ...]) -> Float64:
        rows, columns = _fans("Orthogonal", shape)[0], shape[-1]
        q, r = np.linalg.qr(stream.normal((max(rows, columns), min(rows, columns))))
        q *= np.where(np.diagonal(r) < 0.0, -self.gain, self.gain)
        return np.ascontiguousarray(q if rows >= columns else q.T).reshape(shape)


@INITIALIZERS.register
@dataclass(frozen=True)
class Normal:
    """Normal with mean 0, for any shape.

    Args:
        std: the standard deviation, at least 0.
    """

    std: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "std", number("Normal", "std", self.std, least=0))

    def __call__(self, stream: Stream, shape: tuple[int, ...]) -> Float64:
        return stream.normal(shape) * self.std


@INITIALIZERS.register
@dataclass(frozen=True)
class Constant:
    """The same finite value everywhere, for any shape; draws nothing."""

    value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", number("Constant", "value", self.value))

    def __call__(self, _stream: Stream, shape: tuple[int, ...]) -> Float64:
        return np.full(shape, self.value, np.float64)


@INITIALIZERS.register
@dataclass(frozen=True)
class Zeros:
    """0 everywhere, for any shape: the initial beta and bias."""

    def __call__(self, _stream: Stream, shape: tuple[int, ...]) -> Float64:
        return np.zeros(shape)


@INITIALIZERS.register
@dataclass(frozen=True)
class Ones:
    """1 everywhere, for any shape: the initial gamma."""

    def __call__(self, _stream: Stream, shape: tuple[int, ...]) -> Float64:
        return np.ones(shape)


def get_initializer(initializer: str | dict[str, Any] | Initializer) -> Initializer:
    """Return an initializer.

    Args:
        initializer: a name ("he", "glorot", "orthogonal", "zeros", "ones"), a configuration from `config_of`, or an
            initializer, which is returned unchanged.

    Raises:
        InputError: another name, a class, or an object that cannot be called.
    """
    if isinstance(initializer, dict):
        return from_config(initializer)
    names = {name.lower(): name for name, cls in INITIALIZERS.items() if not needed(cls)}
    if isinstance(initializer, str):
        if initializer in names:
            return INITIALIZERS.make(names[initializer])
        if initializer.title() in INITIALIZERS:
            options = ", ".join(needed(INITIALIZERS[initializer.title()]))
            raise InputError(
                f"initializer: {initializer!r} needs {options}. Give an object, {initializer.title()}({options}=...)."
            )
        raise InputError(f"initializer: it must be one of {', '.join(names)}, or an object, got {initializer!r}.")
    if isinstance(initializer, type):
        raise InputError(
            f"initializer: {initializer.__name__} is a class. Give an object of it, {initializer.__name__}(...)."
        )
    if not isinstance(initializer, Initializer):
        raise InputError(
            f"initializer: it must be a name ({', '.join(names)}) or a callable object, got {initializer!r}."
        )
    return initializer


def config_of(initializer: Initializer) -> dict[str, Any]:
    """Return JSON values for `from_config`; InputError for an initializer that is not of this module."""
    if type(initializer) not in INITIALIZERS.values():
        raise InputError(
            f"initializer: {initializer!r} is not one of {', '.join(INITIALIZERS)}, so a network with it "
            "cannot be saved by its configuration. Save its state_dict() instead."
        )
    return {"type": type(initializer).__name__, **vars(initializer)}


def from_config(config: dict[str, Any]) -> Initializer:
    """Return the initializer of a configuration; InputError for another type or an unknown option."""
    return INITIALIZERS.make(config)


def _fans(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return fan_in and fan_out of a weight whose last axis holds the outputs."""
    if len(shape) < 2 or min(shape) < 1:
        raise InputError(f"{name}: the shape must be (inputs, outputs), both at least 1, got {shape}.")
    return prod(shape[:-1]), shape[-1] * prod(shape[:-2])
