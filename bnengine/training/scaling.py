"""The loss scale, which keeps the gradients of float16 activations from vanishing and from overflowing."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .._typing import Array
from ..network.sequential import Sequential
from ..ops import Out, onto
from ..ops.check_step import IN_A_ROW, LARGEST, LONGEST, SCALE, SMALLEST
from ..validation import integer, number


@dataclass(frozen=True)
class LossScale:
    """Multiplies the loss's gradient by a scale, and the update divides by it again.

    If gradients overflow while the loss is finite, the step is skipped and the scale shrinks. Scales that are powers of
    two change no bit of a gradient that neither vanishes nor overflows. The rule is that of `torch.amp.GradScaler`,
    except that a loss that is not finite leaves the scale unchanged. Micikevicius et al. (2018), section 3.2.

    Args:
        initial: the first scale.
        growth: what multiplies the scale after `every` successful steps; 1 or more.
        backoff: what multiplies it when gradients overflow; at most 1.
        every: successful steps between two growths.

    Raises:
        InputError: a number out of its range.
    """

    initial: float = 65536.0
    growth: float = 2.0
    backoff: float = 0.5
    every: int = 2000

    def __post_init__(self) -> None:
        limits = {"initial": (SMALLEST, LARGEST), "growth": (1.0, LARGEST), "backoff": (SMALLEST, 1.0)}
        for name, (least, most) in limits.items():
            object.__setattr__(self, name, number("LossScale", name, getattr(self, name), least=least, most=most))
        object.__setattr__(self, "every", integer("LossScale", "every", self.every, least=1, most=2**24))


LossScaleOption = Literal["auto"] | float | LossScale | None


def get_loss_scale(option: LossScaleOption, precision: str) -> LossScale | None:
    """Return the `LossScale` for an option: "auto" for one in precision "float16", a number for a constant scale."""
    if option is None or isinstance(option, LossScale):
        return option
    if isinstance(option, str) and option == "auto":
        return LossScale() if precision == "float16" else None
    cure = "Or pass 'auto', None or a LossScale."
    initial = number("Step", "loss_scale", option, least=SMALLEST, most=LARGEST, cure=cure)
    return LossScale(initial, growth=1.0, backoff=1.0)


def skip_effect(scale: float | None) -> str:
    """Describe for a message what a skipped step changed: nothing but the loss scale."""
    return "nothing changed" if scale is None else f"nothing changed; the loss scale is {scale:g} now"


def not_counted(scale: float | None) -> str:
    """Describe for a message which skipped steps the count of steps in a row leaves out."""
    return "" if scale is None else f", without those that only lowered a loss scale above 1 (it is {scale:g} now)"


class Scaling:
    """The loss scale of a step, on the device, as arguments of its ops; empty without a loss scale."""

    def __init__(self, settings: LossScale | None, network: Sequential) -> None:
        self.settings, self.backend = settings, network.backend
        self.array: Array | None = None  # (scale, good steps since it changed, skipped in a row, longest such run)
        if settings is not None:
            start = np.asarray([settings.initial, 0.0, 0.0, 0.0])
            self.array = self.backend.asarray(start, network.dtype, copy=True)

    def loss_options(self) -> dict[str, Array]:
        """Return the options of the loss op."""
        return {} if self.array is None else {"scale": self.array[:1]}

    def check_options(self) -> dict[str, Any]:
        """Return the options of `ops.check_step`, which changes the scale."""
        s = self.settings
        return {} if s is None else {"growth": s.growth, "backoff": s.backoff, "every": s.every}

    def outputs(self) -> dict[str, Out]:
        """Return where `ops.check_step` stores the next scale."""
        return onto(scaling=self.array)

    def memory(self) -> list[Array]:
        """Return the memory that a replay reads."""
        return [] if self.array is None else [self.array]

    def forget_skips(self) -> None:
        """Reset the count of steps skipped in a row."""
        if self.array is not None:
            self.array[IN_A_ROW:] = 0

    def read(self) -> tuple[float, int, int] | None:
        """Read (scale of the next step, skips in a row, longest run), without skips that lowered a scale above 1."""
        if self.array is None:
            return None
        host = self.backend.to_numpy(self.array)
        return float(host[SCALE]), int(host[IN_A_ROW]), int(host[LONGEST])
