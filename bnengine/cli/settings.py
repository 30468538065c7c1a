"""What a training is set up by: one table of settings for the command line, config.toml and the code."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from functools import partial
from math import inf, isfinite
from typing import Any, NamedTuple, Self

from ..data import preprocessing
from ..data.loading import with_target_column
from ..errors import InputError
from ..losses import LOSSES
from ..network.precision import PRECISIONS
from ..ops.activations import NONLINEAR
from ..optim.optimizers import OPTIMIZERS
from ..optim.schedules import SCHEDULES
from ..renamed import new_word
from ..runtime.cores import MOST
from ..runtime.modes import MODES

MADE_BY = "made_by"


class Kind(NamedTuple):
    """How a value is written and what it must be: `read` takes the command line's text, `keep` a value of TOML."""

    metavar: str
    wanted: str
    read: Callable[[str], Any]
    keep: Callable[[Any], Any]

    def of_text(self, text: str) -> Any:
        """The value that a text means; ValueError with the reason."""
        try:
            return self.keep(self.read(text))
        except ValueError:
            raise ValueError(f"{text!r} is not {self.wanted}") from None

    def of_toml(self, value: Any) -> Any:
        """The value as it is kept; ValueError with the reason."""
        try:
            return self.keep(value)
        except ValueError:
            raise ValueError(f"{value!r} is not {self.wanted}") from None


def whole(least: int, most: int = 2**63 - 1) -> Kind:
    """Whole numbers from `least` up to `most`, which TOML has below 2^63."""

    def keep(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError
        return value

    bound = "up" if most == 2**63 - 1 else f"to {most}"
    return Kind("N", f"a whole number from {least} {bound}", int, keep)


def number(least: float, below: float = inf, *, zero: bool = True) -> Kind:
    """Finite real numbers with least <= value < below; `zero` False leaves `least` itself out."""

    def keep(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
            raise ValueError
        if not (least <= value < below) or (value == least and not zero):
            raise ValueError
        return float(value)

    bounds = f"from {least:g} up" if zero else f"above {least:g}"
    return Kind("X", f"a number {bounds}" + ("" if below == inf else f" and below {below:g}"), float, keep)


def choice(*names: str) -> Kind:
    """One of some words."""

    def keep(value: Any) -> str:
        if value not in names:
            raise ValueError
        return str(value)

    return Kind("|".join(names), f"one of {', '.join(names)}", str, keep)


def text(metavar: str) -> Kind:
    """Any text."""

    def keep(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError
        return value

    return Kind(metavar, "a text", str, keep)


def widths() -> Kind:
    """The widths of the hidden layers: "100,100", or "none"."""

    def read(given: str) -> list[int]:
        return [] if given == "none" else [int(part) for part in given.split(",")]

    def keep(value: Any) -> tuple[int, ...]:
        if not isinstance(value, (list, tuple)) or any(type(n) is not int or n < 1 for n in value):
            raise ValueError
        return tuple(value)

    return Kind("N,N", "a list of widths from 1 up such as 100,100, or none", read, keep)


def share_or(word: str) -> Kind:
    """A number from 0 up and below 1, or one word."""
    share = number(0, 1)

    def read(given: str) -> float | str:
        return given if given == word else float(given)

    def keep(value: Any) -> float | str:
        return word if value == word else float(share.keep(value))

    return Kind(f"X|{word}", f"{share.wanted}, or {word}", read, keep)


def setting(default: Any, section: str, kind: Kind, told: str, *, shown: str | None = None) -> Any:
    """A field of `Settings`: its table in config.toml, what it may be, its line of help, its default as shown there."""
    if shown is None:
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return field(default=default, metadata={"section": section, "kind": kind, "help": told, "shown": shown})


def by_optimizer(option: str) -> str:
    """The default of an option where it depends on the optimizer: the usual one last."""
    defaults = {name: getattr(cls, option) for name, cls in OPTIMIZERS.items() if hasattr(cls, option)}
    usual, _ = Counter(defaults.values()).most_common(1)[0]
    own = [f"{value:g} for {name}, " for name, value in defaults.items() if value != usual]
    return f"{''.join(own)}else {usual:g}"


SCALINGS = choice(*preprocessing.SCALINGS)._replace(read=partial(new_word, "train", "scaling"))
NORMS = choice("batch", "normalize-only", "none")
ACTIVATIONS = choice(*NONLINEAR)

_TARGET = f"the column of a {with_target_column()} file that is to be predicted"
_SCHEDULES = [name.replace("_", "-") for name in SCHEDULES]
_LOSS = "auto: mean_squared_error for targets with fractions or several columns, else softmax_cross_entropy"
_SMOOTHING = f"of {' and '.join(LOSSES.takers('label_smoothing'))}"
_MOMENTUM = f"of {' and '.join(OPTIMIZERS.takers('momentum'))}"
_NORM = "batch normalisation of each hidden layer; normalize-only leaves out gamma and beta"
_DECAY = "share of the old running statistics that a step keeps; exact: merge all"
_PRECISION = "16 bits: activations, beside float32 parameters; tf32: products on a GPU; highest: all in the dtype"
_VALIDATION = "share of the rows set apart for validation, unless the data do it"
_DROP = "epochs between the drops of step; epochs without gain before one of plateau"
_STOPPING = "stop after so many epochs without a lower validation loss, keep the best weights; 0: never"
_AVERAGE = "decay of an average of the weights, which is used instead of them; 0: none"
_RATE, _RATES = "the peak of one-cycle, else the first one", by_optimizer("learning_rate")
_WEIGHTS, _DECAYS = "of the weights; gamma, beta and biases stay out of it", by_optimizer("weight_decay")
_GRAPH = "on a GPU a step as one CUDA graph; auto: where it can be, and the log says why not"
_RESIDENT = "all training data in the GPU's memory; auto: where they take at most half of what is free"
_THREADS = "that run native kernels; no result depends on it"
_WATCH = "activations: their distributions on a step now and then, in metrics.jsonl"
_KERNELS = "auto: native or CUDA kernels where there are some; fused: fail without; reference: bnengine/ops as written"
_BACKENDS = "auto, numpy, cupy, cupy:1, torch or array_api_strict"


@dataclass(frozen=True)
class Settings:
    """Every setting of a training; None: still to be settled, by the data or by another setting."""

    path: str = setting("", "data", text("PATH"), "the data", shown="")
    target: str = setting("", "data", text("COLUMN"), _TARGET, shown="")
    validation: float = setting(0.2, "data", number(0, 1), _VALIDATION)
    scaling: str = setting("auto", "data", SCALINGS, "of features: auto is center for images, standardize for tables")
    hidden: tuple[int, ...] = setting((100, 100), "network", widths(), "widths of the hidden layers, or none")
    norm: str = setting("batch", "network", NORMS, _NORM)
    bn_decay: float | str = setting(0.9, "network", share_or("exact"), _DECAY)
    activation: str = setting("relu", "network", ACTIVATIONS, "of the hidden layers")
    dropout: float = setting(0.0, "network", number(0, 1), "share of the hidden values set to zero in training")
    dtype: str = setting("float32", "network", choice("float32", "float64"), "what the network computes in")
    precision: str = setting("highest", "network", choice(*PRECISIONS), _PRECISION)
    loss: str = setting("auto", "training", choice("auto", *LOSSES), _LOSS)
    label_smoothing: float = setting(0.0, "training", number(0, 1), _SMOOTHING)
    optimizer: str = setting("adam", "training", choice(*OPTIMIZERS), "the rule of the update")
    momentum: float = setting(0.0, "training", number(0, 1), _MOMENTUM)
    weight_decay: float | None = setting(None, "training", number(0), _WEIGHTS, shown=_DECAYS)
    learning_rate: float | None = setting(None, "training", number(0, zero=False), _RATE, shown=_RATES)
    schedule: str = setting("one-cycle", "training", choice(*_SCHEDULES), "of the learning rate")
    warm_up: int = setting(0, "training", whole(0), "steps of a rising learning rate before its schedule begins")
    drop_every: int = setting(10, "training", whole(1), _DROP)
    drop_factor: float = setting(0.1, "training", number(0, 1), "what a drop of step or plateau multiplies by")
    clip_norm: float = setting(0.0, "training", number(0), "the largest norm of the gradients; 0: not clipped")
    accumulate: int = setting(1, "training", whole(1), "batches to an optimizer step")
    batch_size: int = setting(64, "training", whole(1), "rows of a batch")
    epochs: int = setting(20, "training", whole(1), "passes over the training rows")
    early_stopping: int = setting(0, "training", whole(0), _STOPPING)
    average: float = setting(0.0, "training", number(0, 1), _AVERAGE)
    seed: int = setting(0, "run", whole(0), "of the split, the weights, the order of the rows and dropout")
    backend: str | None = setting(None, "run", text("NAME"), _BACKENDS, shown="BNENGINE_BACKEND or auto")
    threads: int | None = setting(None, "run", whole(1, MOST), _THREADS, shown="BNENGINE_NUM_THREADS or the cores")
    kernels: str = setting("auto", "run", choice(*MODES), _KERNELS)
    graph: str = setting("auto", "run", choice("auto", "yes", "no"), _GRAPH)
    resident: str = setting("auto", "run", choice("auto", "yes", "no"), _RESIDENT)
    checkpoint_every: int = setting(0, "run", whole(0), "steps between checkpoints, beside the one after each epoch")
    watch: str = setting("none", "run", choice("none", "activations"), _WATCH)

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any], where: str) -> Self:
        """The settings of a config.toml; InputError for unknown keys and wrong values, naming them."""
        known = table()
        given: dict[str, Any] = {}
        for section, values in tables.items():
            names = [name for name, one in known.items() if one.metadata["section"] == section]
            if section == MADE_BY:
                continue
            if not names or not isinstance(values, Mapping):
                sections = dict.fromkeys(one.metadata["section"] for one in known.values())
                raise InputError(
                    f"{where}: there is no table [{section}]; there are {', '.join(sections)} and {MADE_BY}"
                )
            for name, value in values.items():
                if name not in names:
                    raise InputError(f"{where}: [{section}] has no key {name!r}; it takes {', '.join(names)}")
                try:
                    given[name] = known[name].metadata["kind"].of_toml(value)
                except ValueError as reason:
                    raise InputError(f"{where}: [{section}] {name}: {reason}") from None
        return cls(**given)

    def tables(self) -> dict[str, dict[str, Any]]:
        """The settings as the tables of a config.toml; those that are None are left out."""
        found: dict[str, dict[str, Any]] = {}
        for name, one in table().items():
            value = getattr(self, name)
            if value is not None:
                found.setdefault(one.metadata["section"], {})[name] = list(value) if isinstance(value, tuple) else value
        return found

    def changed(self, **given: Any) -> Self:
        """The settings with some of them replaced."""
        return replace(self, **given)


def table() -> "dict[str, Field[Any]]":
    """Every setting by its name."""
    return {one.name: one for one in fields(Settings)}


def flag(name: str) -> str:
    """How a setting is called on the command line."""
    return "--" + name.replace("_", "-")
