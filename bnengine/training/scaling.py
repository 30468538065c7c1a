"""The loss scale: what keeps the gradients of float16 activations between vanishing and overflow."""

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
    """The loss's gradient is multiplied by a scale, and the update divides it out again.

    It begins at `initial`. Where gradients overflow though the loss is finite, the step is skipped and the scale
    multiplied by `backoff`; after `every` good steps it is multiplied by `growth`. Powers of two change no bit of a
    gradient that neither vanishes nor overflows. With growth and backoff 1 the scale stays. Micikevicius et al.
    (2018), section 3.2; the rule is that of `torch.amp.GradScaler`, but for steps whose loss is not finite: those are
    not the scale's fault, and leave it.
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


Given = Literal["auto"] | float | LossScale | None


def get_loss_scale(given: Given, precision: str) -> LossScale | None:
    """ "auto": a `LossScale` for precision "float16", None for any other. A number: that scale, which stays."""
    if given is None or isinstance(given, LossScale):
        return given
    if given == "auto":
        return LossScale() if precision == "float16" else None
    scale = number("Trainer", "loss_scale", given, above=0, cure="Or give 'auto', None or a LossScale.")
    return LossScale(scale, growth=1.0, backoff=1.0)


def unchanged(scale: float | None) -> str:
    """That a skipped step changed no number of the training, and where the scale stands, for a message."""
    return "nothing changed" if scale is None else f"nothing changed; the loss scale is {scale:g} now"


def not_counted(scale: float | None) -> str:
    """Which skipped steps are not among those in a row, for a message."""
    return "" if scale is None else f", without those that only lowered a loss scale above 1 (it is {scale:g} now)"


class Scaling:
    """The loss scale of a step, on the device, as its ops take it; without one, nothing."""

    def __init__(self, settings: LossScale | None, network: Sequential) -> None:
        self.settings, self.backend = settings, network.backend
        self.array: Array | None = None  # (scale, good steps since it changed, skipped in a row, longest such run)
        if settings is not None:
            start = np.asarray([settings.initial, 0.0, 0.0, 0.0])
            self.array = self.backend.asarray(start, network.dtype, copy=True)

    def of_loss(self) -> dict[str, Array]:
        """What the loss is called with."""
        return {} if self.array is None else {"scale": self.array[:1]}

    def of_judge(self) -> dict[str, Any]:
        """The rules by which `check_step` changes it."""
        s = self.settings
        return {} if s is None else {"growth": s.growth, "backoff": s.backoff, "every": s.every}

    def into(self) -> dict[str, Out]:
        """Where `check_step` puts the next scale."""
        return onto(scaling=self.array)

    def memory(self) -> list[Array]:
        """What a replay reads."""
        return [] if self.array is None else [self.array]

    def forget_skips(self) -> None:
        """Begin a new count of the steps skipped in a row."""
        if self.array is not None:
            self.array[IN_A_ROW:] = 0

    def read(self) -> tuple[float, int, int] | None:
        """(scale of the next step, skips in a row, longest such run), without those that found the scale."""
        if self.array is None:
            return None
        found = self.backend.to_numpy(self.array)
        return float(found[SCALE]), int(found[IN_A_ROW]), int(found[LONGEST])
