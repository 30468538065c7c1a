"""BatchNorm: each feature is normalized over the batch, then scaled and shifted.

The derivation, examples in rows, for one layer with z = a W + b over m examples:

    (1) mu      = 1/m sum z                       (4) z_tilde = gamma z_norm + beta
    (2) sigma^2 = 1/m sum (z - mu)^2              (5) a_next  = g(z_tilde)
    (3) z_norm  = (z - mu) / sqrt(sigma^2 + eps)

With mu = a_mean W + b, z - mu = (a - a_mean) W: any b cancels, so the parameters of such a layer are W, gamma and
beta, the last two of shape (n,). At inference the running mean and variance of the training data replace those of the
batch.
"""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any, Literal, Self

from ... import ops
from ..._typing import Array
from ...errors import InputError
from ...ops import Out
from ...runtime.flat import Flat, Handle, Parameter, Statistics, checked_decay
from ...validation import choice, flag, integer, number
from ..activation import Activation, applied, applies_none
from ..base import Context, Dx, Layer, Placed, Pullback, fits, register
from ..initializers import Ones

# convention: (share kept or replaced by its "momentum", default of it, eps, variance that the running one takes)
CONVENTIONS: dict[str, tuple[str, float, float, Literal["unbiased", "biased"]]] = {
    "torch": ("new", 0.1, 1e-5, "unbiased"),
    "keras": ("old", 0.99, 1e-3, "biased"),
    "flax": ("old", 0.99, 1e-5, "biased"),
    "tf": ("old", 0.99, 1e-3, "unbiased"),
    "chainer": ("old", 0.9, 2e-5, "unbiased"),
}


@register
class BatchNorm(Layer):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, for x of shape (..., channels): all axes but the last are rows.

    In training, mean and (biased) variance are those of the batch, in evaluation the running ones. Forward changes
    nothing: running statistics change when a training step commits, once per successful step. `decay`, `eps`,
    `variance` and `one_value` may be set at any time; the next step uses them. Ioffe and Szegedy (2015).

    Args:
        channels: the width of the input.
        decay: the share of the old value that a step keeps, running <- decay running + (1 - decay) batch; None merges
            all batches exactly, without forgetting.
        eps: added to the variance, inside the square root.
        gamma, beta: False switches one off (1 and 0).
        variance: what the running variance takes, "unbiased" (times m/(m - 1), the 2015 paper) or "biased" (Keras,
            Flax). An exact merge keeps the biased variance of all rows.
        one_value: what training does if a channel has a single value, which has no variance: "raise", or "running",
            which normalizes by the running statistics and leaves them unchanged.
    """

    settable = frozenset({"decay", "eps", "variance", "one_value"})
    used_up = frozenset({"channels"})
    fixed = frozenset({"gamma", "beta", "statistics"})

    def __init__(
        self,
        channels: int,
        *,
        decay: float | None = 0.9,
        eps: float = 1e-5,
        gamma: bool = True,
        beta: bool = True,
        variance: Literal["unbiased", "biased"] = "unbiased",
        one_value: Literal["raise", "running"] = "raise",
    ) -> None:
        channels = integer("BatchNorm", "channels", channels, least=1)
        owner = f"BatchNorm({channels})"
        decay = checked_decay(owner, decay)
        eps = number(owner, "eps", eps, above=0, cure="1e-5 is usual.")
        variance = choice(owner, "variance", variance, ("unbiased", "biased"))
        one_value = choice(owner, "one_value", one_value, ("raise", "running"))
        self.channels, self.eps, self.one_value = channels, eps, one_value
        self.gamma = Parameter((channels,), Ones(), decays=False) if flag(owner, "gamma", gamma) else None
        self.beta = Parameter((channels,), decays=False) if flag(owner, "beta", beta) else None
        self.statistics = Statistics(channels, decay=decay, unbiased=variance == "unbiased")

    @property
    def decay(self) -> float | None:
        """The share of the old value that a step keeps."""
        return self.statistics.decay

    @decay.setter
    def decay(self, decay: float | None) -> None:
        self.statistics.decay = decay

    @property
    def variance(self) -> Literal["unbiased", "biased"]:
        """The variance of a batch that the running one takes."""
        return "unbiased" if self.statistics.unbiased else "biased"

    @variance.setter
    def variance(self, variance: Literal["unbiased", "biased"]) -> None:
        self.statistics.unbiased = choice(self.name, "variance", variance, ("unbiased", "biased")) == "unbiased"

    @classmethod
    def from_convention(
        cls,
        name: str,
        channels: int,
        *,
        momentum: float | Literal["default"] | None = "default",
        eps: float | None = None,
        **options: Any,
    ) -> Self:  # fmt: skip
        """Return the layer that another framework's arguments mean.

        | convention | its `momentum` is | default | eps | running variance |
        |---|---|---|---|---|
        | "torch" (`torch.nn.BatchNorm1d`; None: exact merge) | the share of the new value | 0.1 | 1e-5 | unbiased |
        | "keras" (`keras.layers.BatchNormalization`, 3) | the share of the old value | 0.99 | 1e-3 | biased |
        | "flax" (`flax.linen.BatchNorm`) | the share of the old value | 0.99 | 1e-5 | biased |
        | "tf" (`tf.compat.v1.layers`, fused) | the share of the old value | 0.99 | 1e-3 | unbiased |
        | "chainer" (`decay` of its link) | the share of the old value | 0.9 | 2e-5 | unbiased |

        Args:
            name: the convention.
            channels: the width of the input.
            momentum: the framework's argument; "default" takes its default.
            eps: inside the square root; None takes the framework's default.
            options: other arguments of BatchNorm.

        Raises:
            InputError: an unknown convention, or an argument out of its range.
        """
        where = "BatchNorm.from_convention"
        share, usual, usual_eps, variance = CONVENTIONS[choice(where, "name", name, CONVENTIONS)]
        value = usual if momentum == "default" else momentum
        if value is not None or name != "torch":
            value = number(where, "momentum", value, least=0, most=1, cure=f"{name} uses {usual} by default.")
        decay = None if value is None else 1 - value if share == "new" else value
        if decay == 1:
            raise InputError(
                f"{where}: the momentum of {name} must change the running statistics, got {value!r}. To keep them, "
                "call network.freeze('statistics')."
            )
        return cls(channels, decay=decay, eps=usual_eps if eps is None else eps, variance=variance, **options)

    def __repr__(self) -> str:
        return f"BatchNorm({self.channels})"

    def handles(self) -> dict[str, Handle]:
        every: dict[str, Handle | None] = {"gamma": self.gamma, "beta": self.beta, "statistics": self.statistics}
        return {name: h for name, h in every.items() if h is not None}

    def takes(self) -> int:
        return self.channels

    def features(self, inputs: int | None) -> int:
        fits(self.name, self.channels, inputs)
        return self.channels

    def config(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in ("channels", "decay", "eps", "variance", "one_value")}
        return options | {"gamma": self.gamma is not None, "beta": self.beta is not None}

    def fuse_with(self, here: Placed, after: Placed) -> tuple[Placed, Placed | None]:
        if isinstance(after.layer, Activation) and applies_none(here):
            return replace(here, after=after), None
        return here, after

    def forward(self, x: Array, run: Context) -> tuple[Array, Pullback]:
        y, pull = self.forward_added(x, None, run)

        def pullback(dy: Array, grads: Flat, *, dx: Dx = True) -> Array:
            return pull(dy, grads, dx=dx)[0]

        return y, pullback

    def forward_added(
        self, x: Array, add: Array | None, run: Context
    ) -> tuple[Array, Callable[..., tuple[Array, Array]]]:
        """Return (g(normalized x + add), pullback); the pullback returns the gradients of x and of `add`."""
        gamma, beta = (None if h is None else h.value for h in (self.gamma, self.beta))
        options: dict[str, Any] = {"eps": self.eps, **applied(run.at(self))}
        by_batch = run.training and not self.statistics.use_running and self._has_variance(x, run)
        if by_batch:
            into = run.pending.into(pending=self.statistics)
            y, statistics, _ = run(ops.batch_norm, x, gamma, beta, add, into=into, **options)
        else:
            self._propose(x, run)
            statistics = self.statistics.value
            y = run(ops.normalize, x, statistics, gamma, beta, add, **options)

        def pullback(dy: Array, grads: Flat, *, dx: Dx = True) -> tuple[Array, Array]:
            into = grads.into(dgamma=self.gamma, dbeta=self.beta) | ({"dx": dx} if isinstance(dx, Out) else {})
            args = (dy, x, y, statistics, gamma, beta, add)
            g = run(ops.normalize_backward, *args, batch_statistics=by_batch, into=into, **options)
            return g.dx if dx else None, g.dadd

        return y, pullback

    def _propose(self, x: Array, run: Context) -> None:
        """Update pending statistics where training normalizes by running ones that are not frozen."""
        if run.training and not self.statistics.frozen and self._has_variance(x, run):
            run(ops.moments, x, into=run.pending.into(pending=self.statistics))

    def _has_variance(self, x: Array, run: Context) -> bool:
        """Return False if training gets one value per channel and uses the running statistics instead."""
        if prod(x.shape[:-1]) > 1:
            return True
        if self.one_value == "running":
            return False
        raise InputError(
            f"{run.at(self).name}: one value per channel in training, input {tuple(x.shape)}, has no variance. Use a "
            "batch of two or more, let the last batch join the one before, or set one_value='running'."
        )
