"""Learning rates over time: float64 on the host, a function of the count of successful steps, which starts at 0.

A skipped step does not count: the next one uses its rate. A schedule with `total_steps=None` gets the length of the run
from `resolved(total_steps)`, which `Trainer.fit` calls. `WarmUp` goes in front of any other.
"""

from copy import deepcopy
from dataclasses import dataclass, field, replace
from math import cos, inf, isfinite, pi
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from ..errors import InputError
from ..registry import Registry, options_of
from ..validation import choice, integer, number


@runtime_checkable
class Schedule(Protocol):
    """A learning rate for every step."""

    def rate(self, step: int) -> float:
        """Return the learning rate of the step that follows `step` successful ones."""

    def for_steps(self, first: int, count: int) -> list[float]:
        """Return the rates of `count` successful steps from `first`."""

    def resolved(self, total_steps: int | None) -> "Schedule":
        """Return the schedule for a run of `total_steps` (None: unknown), if its length is open; otherwise itself."""

    def config(self) -> dict[str, Any]:
        """Return JSON values without None from which `from_spec(**config)` makes the same schedule."""


@runtime_checkable
class Observer(Protocol):
    """A schedule that depends on a validation metric; a checkpoint must hold its state."""

    @property
    def watches(self) -> str:
        """The validation metric that it observes: "loss" or "accuracy"."""

    def observe(self, metric: float) -> None:
        """Take the metric of one validation; later rates may change."""

    def state_dict(self) -> dict[str, float]:
        """Return all that observations have changed, as JSON numbers."""

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from a state; InputError for anything else."""


class _Schedule:
    """Base class of all schedules."""

    name: ClassVar[str]
    drops_by: ClassVar[tuple[str, str] | None] = None  # the options that hold when and by how much the rate drops
    counts_epochs: ClassVar[bool] = False  # whether the first of them counts epochs (observations) instead of steps

    def rate(self, step: int) -> float:
        """Return the learning rate of the step that follows `step` successful ones."""
        raise NotImplementedError

    def for_steps(self, first: int, count: int) -> list[float]:
        """Return the rates of `count` successful steps from `first`; InputError for negative numbers."""
        first = integer(type(self).__name__, "first", first, least=0)
        count = integer(type(self).__name__, "count", count, least=0)
        return [self.rate(step) for step in range(first, first + count)]

    def _keep(self, **values: Any) -> None:
        """Store checked values as plain numbers."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def resolved(self, total_steps: int | None) -> Self:
        """Return the schedule for a run of `total_steps`; itself if its length does not matter, is set or unknown."""
        _total(type(self).__name__, total_steps)
        return self

    @property
    def end(self) -> int | None:
        """The steps after which the rate no longer changes; None for a schedule without an end, or one not known."""
        return getattr(self, "total_steps", None)

    def config(self) -> dict[str, Any]:
        """Return JSON values without None from which `from_spec(**config)` makes the same schedule."""
        first, *rest = options_of(type(self))
        options = {name: getattr(self, name) for name in rest}
        set_options = {name: value for name, value in options.items() if value is not None}
        return {"name": self.name, "rate": getattr(self, first), **set_options}


SCHEDULES = Registry[_Schedule]("schedule")


@SCHEDULES.register
@dataclass(frozen=True)
class Constant(_Schedule):
    """The same rate at every step.

    Args:
        learning_rate: at least 0.
    """

    learning_rate: float
    name: ClassVar[str] = "constant"

    def __post_init__(self) -> None:
        self._keep(learning_rate=number("Constant", "learning_rate", self.learning_rate, least=0))

    def rate(self, step: int) -> float:
        return float(self.learning_rate)


@SCHEDULES.register
@dataclass(frozen=True)
class Step(_Schedule):
    """learning_rate * factor**(step // every).

    Args:
        learning_rate: the rate at step 0, at least 0.
        every: optimizer steps (not epochs) between two drops, at least 1.
        factor: from 0 to 1.
    """

    learning_rate: float
    every: int
    factor: float = 0.1
    name: ClassVar[str] = "step"
    drops_by: ClassVar[tuple[str, str] | None] = ("every", "factor")

    def __post_init__(self) -> None:
        self._keep(learning_rate=number("Step", "learning_rate", self.learning_rate, least=0))
        self._keep(every=integer("Step", "every", self.every, least=1))
        self._keep(factor=number("Step", "factor", self.factor, least=0, most=1))

    def rate(self, step: int) -> float:
        return float(self.learning_rate) * float(self.factor) ** int(step // self.every)


@SCHEDULES.register
@dataclass(frozen=True)
class Cosine(_Schedule):
    """Half a cosine from learning_rate at step 0 to `floor` at step total_steps, and `floor` after that.

    floor + (learning_rate - floor) (1 + cos(pi step / total_steps)) / 2. Source: Loshchilov, Hutter, "SGDR: stochastic
    gradient descent with warm restarts", ICLR 2017, without the restarts. `rate` raises InputError while total_steps
    is None.

    Args:
        learning_rate: the rate at step 0, at least 0.
        total_steps: optimizer steps; None takes those of the run.
        floor: the last rate, at least 0.
    """

    learning_rate: float
    total_steps: int | None = None
    floor: float = 0.0
    name: ClassVar[str] = "cosine"

    def __post_init__(self) -> None:
        self._keep(learning_rate=number("Cosine", "learning_rate", self.learning_rate, least=0))
        self._keep(floor=number("Cosine", "floor", self.floor, least=0))
        self._keep(total_steps=_total("Cosine", self.total_steps))
        if self.floor > self.learning_rate:
            raise InputError(
                f"Cosine: floor must be at most the learning rate {self.learning_rate}, got {self.floor}. Lower it."
            )

    def resolved(self, total_steps: int | None) -> Self:
        total_steps = _total(type(self).__name__, total_steps)
        return self if self.total_steps is not None else replace(self, total_steps=total_steps)

    def rate(self, step: int) -> float:
        total = _known(type(self).__name__, self.total_steps)
        return _cosine(self.learning_rate, self.floor, min(step, total) / total)


@SCHEDULES.register
@dataclass(frozen=True)
class OneCycle(_Schedule):
    """Up from peak/divisor to peak, then down to peak/divisor/final_divisor at the last step, total_steps - 1.

    The rise ends at step rise * total_steps - 1 (a real number). Both ways are half a cosine, or straight lines for
    anneal="linear". Momentum is not cycled. Source: Smith, Topin, "Super-convergence: very fast training of neural
    networks using large learning rates", 2018; defaults and the cosine are those that most libraries use. `rate` raises
    InputError while total_steps is None.

    Args:
        peak: the largest rate, at least 0.
        total_steps: optimizer steps; None takes those of the run.
        rise: the share of the steps on the way up.
        divisor: peak over the first rate.
        final_divisor: the first rate over the last.
        anneal: "cosine" or "linear".
    """

    peak: float
    total_steps: int | None = None
    rise: float = 0.3
    divisor: float = 25.0
    final_divisor: float = 1e4
    anneal: str = "cosine"
    name: ClassVar[str] = "one_cycle"

    def __post_init__(self) -> None:
        self._keep(peak=number("OneCycle", "peak", self.peak, least=0))
        self._keep(total_steps=_total("OneCycle", self.total_steps))
        cure = "It is the share of the steps in which the rate rises."
        self._keep(rise=number("OneCycle", "rise", self.rise, least=0, below=1, cure=cure))
        self._keep(divisor=number("OneCycle", "divisor", self.divisor, least=1))
        self._keep(final_divisor=number("OneCycle", "final_divisor", self.final_divisor, least=1))
        self._keep(anneal=choice("OneCycle", "anneal", self.anneal, ("cosine", "linear")))

    def resolved(self, total_steps: int | None) -> Self:
        total_steps = _total(type(self).__name__, total_steps)
        return self if self.total_steps is not None else replace(self, total_steps=total_steps)

    def rate(self, step: int) -> float:
        total = _known(type(self).__name__, self.total_steps)
        curve = _cosine if self.anneal == "cosine" else _line
        low, top, last = self.peak / self.divisor, max(self.rise * total - 1, 0.0), total - 1
        if step < top:
            return curve(low, self.peak, step / top)
        return curve(self.peak, low / self.final_divisor, (min(step, last) - top) / (last - top) if last > top else 0.0)


@dataclass(frozen=True)
class WarmUp(_Schedule):
    """A straight rise over the first `steps` steps, then the wrapped schedule from its own step 0.

    Step s < steps has start + (r - start) (s + 1)/steps, where r is the wrapped schedule's rate at its step 0: no
    step has rate 0, and the last step of the warm-up has the full rate. If the wrapped schedule's total_steps is open,
    it becomes that of the run less `steps`. Source: Goyal et al., "Accurate, large minibatch SGD", 2017. InputError for
    a warm-up of a warm-up, or one that fills the whole run.

    Args:
        schedule: any other schedule.
        steps: optimizer steps of the rise, at least 1.
        start: the rate from which it rises, at least 0.
    """

    schedule: Schedule
    steps: int
    start: float = 0.0
    name: ClassVar[str] = "warm_up"

    def __post_init__(self) -> None:
        if isinstance(self.schedule, WarmUp) or not isinstance(self.schedule, Schedule):
            raise InputError(f"WarmUp: the schedule must be another schedule of bnengine, got {self.schedule!r}.")
        self._keep(steps=integer("WarmUp", "steps", self.steps, least=1))
        self._keep(start=number("WarmUp", "start", self.start, least=0))

    def rate(self, step: int) -> float:
        if step >= self.steps:
            return self.schedule.rate(step - self.steps)
        return _line(self.start, self.schedule.rate(0), (step + 1) / self.steps)

    @property
    def end(self) -> int | None:
        end: int | None = getattr(self.schedule, "end", None)
        return None if end is None else self.steps + end

    def resolved(self, total_steps: int | None) -> "WarmUp":
        total_steps = _total("WarmUp", total_steps)
        if total_steps is None:
            return self
        if total_steps <= self.steps:
            raise InputError(
                f"WarmUp: steps must be below the {total_steps} of the run, got {self.steps}. Take fewer, or "
                "train longer."
            )
        return replace(self, schedule=self.schedule.resolved(total_steps - self.steps))

    def config(self) -> dict[str, Any]:
        inner = self.schedule.config()
        if "total_steps" in inner:
            inner["total_steps"] += self.steps
        return {**inner, "warm_up": self.steps, "warm_up_start": self.start}

    @property
    def watches(self) -> str:
        """The metric of the wrapped schedule; the loss, if it observes none."""
        return self.schedule.watches if isinstance(self.schedule, Observer) else "loss"

    def observe(self, metric: float) -> None:
        """Pass the metric on to the wrapped schedule, if it is an observer."""
        if isinstance(self.schedule, Observer):
            self.schedule.observe(metric)

    def state_dict(self) -> dict[str, float]:
        """Return the wrapped schedule's state; empty if it has none."""
        return self.schedule.state_dict() if isinstance(self.schedule, Observer) else {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from a state of the wrapped schedule."""
        if isinstance(self.schedule, Observer):
            self.schedule.load_state_dict(state)
        elif state:
            cure = "Load it into the schedule that it was saved from."
            raise InputError(f"WarmUp: the wrapped schedule has no state, got {sorted(state)}. {cure}")


@SCHEDULES.register
@dataclass(frozen=True)
class Plateau(_Schedule):
    """Multiplies the rate by `factor` when a validation metric has not improved for more than `patience` observations.

    An observation improves on the best one if it is lower by more than threshold * |best| (higher for
    best="highest"); one that is not finite never does. After each drop the count starts again; no rate falls below
    `minimum`. The rate, the best value and the count are the state: only `observe` and `load_state_dict` change it.

    Args:
        learning_rate: the first rate, at least 0.
        factor: what a drop multiplies the rate by.
        patience: observations, one per epoch in `fit`.
        minimum: the lowest rate.
        threshold: the relative improvement that counts.
        best: "lowest" or "highest".
    """

    learning_rate: float
    factor: float = 0.1
    patience: int = 10
    minimum: float = 0.0
    threshold: float = 1e-4
    best: str = "lowest"
    name: ClassVar[str] = "plateau"
    drops_by: ClassVar[tuple[str, str] | None] = ("patience", "factor")
    counts_epochs: ClassVar[bool] = True
    _rate: float = field(init=False, repr=False)
    _best: float = field(init=False, repr=False)
    _waited: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        self._keep(learning_rate=number("Plateau", "learning_rate", self.learning_rate, least=0))
        self._keep(factor=number("Plateau", "factor", self.factor, least=0, below=1))
        self._keep(patience=integer("Plateau", "patience", self.patience, least=0))
        self._keep(minimum=number("Plateau", "minimum", self.minimum, least=0))
        self._keep(threshold=number("Plateau", "threshold", self.threshold, least=0))
        self._keep(best=choice("Plateau", "best", self.best, ("lowest", "highest")))
        self._keep(_rate=self.learning_rate, _best=inf)  # for "highest", _best has the opposite sign

    def rate(self, step: int) -> float:
        """Return the rate after the observations so far, whatever the step."""
        return self._rate

    @property
    def watches(self) -> str:
        """The loss where the lowest is the best, the accuracy where the highest is."""
        return "loss" if self.best == "lowest" else "accuracy"

    def observe(self, metric: float) -> None:
        """Take the metric of one validation."""
        value = float(metric) if self.best == "lowest" else -float(metric)
        margin = self.threshold * abs(self._best) if isfinite(self._best) else 0.0
        if isfinite(value) and value < self._best - margin:
            self._keep(_best=value, _waited=0)
            return
        self._keep(_waited=self._waited + 1)
        if self._waited > self.patience:
            self._keep(_rate=min(self._rate, max(self._rate * self.factor, self.minimum)), _waited=0)

    def state_dict(self) -> dict[str, float]:
        """Return rate, best (left out before any finite observation) and waited, as JSON numbers."""
        best = {"best": self._best if self.best == "lowest" else -self._best} if isfinite(self._best) else {}
        return {"rate": self._rate, "waited": self._waited, **best}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from a state; InputError if it is not one of a Plateau."""
        if set(state) | {"best"} != {"rate", "waited", "best"}:
            raise InputError(
                f"Plateau: a state has rate, waited and best, got {sorted(state)}. Load a state of a Plateau."
            )
        rate = number("Plateau", "the state's rate", state["rate"], least=0)
        waited = integer("Plateau", "the state's waited", state["waited"], least=0)
        best = number("Plateau", "the state's best", state["best"]) if "best" in state else inf
        self._keep(_rate=rate, _waited=waited, _best=-best if self.best == "highest" and "best" in state else best)


def from_spec(
    name: str,
    *,
    rate: float,
    total_steps: int | None = None,
    warm_up: int = 0,
    warm_up_start: float = 0.0,
    **options: Any,
) -> Schedule:
    """Return the schedule of a name in `SCHEDULES`, with the options of its class.

    Args:
        name: which one; "one-cycle" is "one_cycle".
        rate: its learning rate, the peak of a one-cycle.
        total_steps: the steps of the whole run, warm-up included; None if unknown. Schedules that need no length
            ignore it.
        warm_up: the steps of a WarmUp in front, 0 for none.
        warm_up_start: the rate at which the warm-up starts.
        options: every, factor, floor ... of that schedule.

    Raises:
        InputError: an unknown name or option, a missing option, or a value out of range.
    """
    name = name.replace("-", "_")
    peak, *_ = options_of(SCHEDULES.find(name))
    if peak in options:
        raise InputError(f"schedule: {peak} is the argument rate. Leave it out.")
    schedule: Schedule = SCHEDULES.make({"name": name, peak: rate, **options})
    if warm_up:
        schedule = WarmUp(schedule, warm_up, warm_up_start)
    return schedule if total_steps is None else schedule.resolved(total_steps)


def get_schedule(schedule: float | Schedule) -> Schedule:
    """Return a schedule for one training: a copy of one that observes metrics, Constant(number), or itself."""
    if not isinstance(schedule, Schedule):
        return Constant(schedule)
    return deepcopy(schedule) if isinstance(schedule, Observer) else schedule


def _line(a: float, b: float, share: float) -> float:
    return float(b if share == 1 else a + (b - a) * share)


def _cosine(a: float, b: float, share: float) -> float:
    return float(b + (a - b) / 2 * (1 + cos(pi * share)))


def _total(owner: str, total_steps: int | None) -> int | None:
    return None if total_steps is None else integer(owner, "total_steps", total_steps, least=1)


def _known(owner: str, total_steps: int | None) -> int:
    if total_steps is None:
        raise InputError(f"{owner}: total_steps is not set. Set it, or take resolved(total_steps).")
    return total_steps
