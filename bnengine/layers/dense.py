"""Dense: y = x W + b."""

from dataclasses import replace
from typing import Any, Literal

from .. import ops
from .._typing import Array
from ..ops import Out
from ..ops.activations import ACTIVATIONS
from ..runtime.flat import Flat, Handle, Parameter
from ..validation import choice, integer
from .activation import Activation, applied, applies_none
from .base import Context, Dx, Layer, Placed, Pullback, fits, register
from .initializers import Initializer, config_of, get_initializer
from .norm.batch_norm import BatchNorm


@register
class Dense(Layer):
    """y = x W + b; x (..., inputs), W (inputs, outputs), b (outputs,), y (..., outputs).

    An activation directly after it becomes part of the same op.

    Args:
        inputs, outputs: the widths.
        bias: True or False; "auto" leaves it out if a BatchNorm follows directly. That subtracts the mean, and
            mean(x W + b) = mean(x W) + b, so b would cancel. With an activation or a dropout in between it is kept.
        weights: an initializer or its name ("he", "glorot", "orthogonal").
    """

    used_up = frozenset({"inputs", "outputs", "bias", "weights"})
    fixed = frozenset({"W", "b"})

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool | Literal["auto"] = "auto",
        weights: Initializer | str | dict[str, Any] = "he",
    ) -> None:
        inputs = integer("Dense", "inputs", inputs, least=1)
        outputs = integer("Dense", "outputs", outputs, least=1)
        bias = choice(f"Dense({inputs}, {outputs})", "bias", bias, ("auto", True, False))
        self.inputs, self.outputs, self.bias = inputs, outputs, bias
        self.weights = get_initializer(weights)
        self.W = Parameter((inputs, outputs), self.weights)
        self.b = Parameter((outputs,), decays=False) if bias else None

    def __repr__(self) -> str:
        return f"Dense({self.inputs}, {self.outputs})"

    def handles(self) -> dict[str, Handle]:
        return {"W": self.W} if self.b is None else {"W": self.W, "b": self.b}

    def takes(self) -> int:
        return self.inputs

    def features(self, inputs: int | None) -> int:
        fits(self.name, self.inputs, inputs)
        return self.outputs

    def config(self) -> dict[str, Any]:
        weights = config_of(self.weights)
        return {"inputs": self.inputs, "outputs": self.outputs, "bias": self.bias, "weights": weights}

    def fuse_with(self, here: Placed, after: Placed) -> tuple[Placed, Placed | None]:
        if applies_none(here):
            if isinstance(after.layer, BatchNorm) and self.bias == "auto":
                return replace(here, cancelled=frozenset({"b"})), after
            if isinstance(after.layer, Activation) and ACTIVATIONS[after.layer.kind].reads != "z":
                return replace(here, after=after), None
        return here, after

    def forward(self, x: Array, run: Context) -> tuple[Array, Pullback]:
        here = run.at(self)
        options = applied(here)
        if run.products != "highest":
            options["precision"] = run.products
        W, b = self.W, None if "b" in here.cancelled else self.b
        y = run(ops.affine, x, W.operand, None if b is None else b.value, **options)

        def pullback(dy: Array, grads: Flat, *, dx: Dx = True) -> Array:
            into = grads.into(dW=W, db=b) | ({"dx": dx} if isinstance(dx, Out) else {})
            settings = {"input_gradient": bool(dx), "bias_gradient": "db" in into} | options
            return run(ops.affine_backward, dy, x, W.operand, y, into=into, **settings).dx

        return y, pullback
