"""One table of all training settings, for the command line, config.toml and the code."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from functools import partial
from math import inf
from typing import Any, NamedTuple, Self

import click

from .. import validation
from ..arrays.backend import CHOICES
from ..data import preprocessing
from ..data.dataset import TASKS
from ..data.loading import with_target_column
from ..errors import InputError
from ..layers.norm.choices import NORMS
from ..losses import LOSSES, usual_loss
from ..network.precision import PRECISIONS
from ..ops.activations import NONLINEAR
from ..optim.optimizers import OPTIMIZERS
from ..optim.schedules import SCHEDULES
from ..renamed import new_word
from ..runtime.cores import MOST
from ..runtime.modes import MODES

MADE_BY = "made_by"
LARGEST = 2**63 - 1  # integer of TOML


class Kind(NamedTuple):
    """The values that a setting accepts.

    metavar: how the help names a value.
    type: how click reads a value of the command line.
    check: `check(where, name, value)` returns the value to keep, or raises InputError.
    """

    metavar: str
    type: "click.ParamType[Any]"
    check: Callable[[str, str, Any], Any]


def integer(least: int, most: int = LARGEST) -> Kind:
    """Integers from `least` to `most`."""
    bounds = click.IntRange(least, None if most == LARGEST else most)
    return Kind("N", bounds, partial(validation.integer, least=least, most=most))


def number(*, least: float = -inf, above: float = -inf, below: float = inf) -> Kind:
    """Finite numbers within the bounds."""
    bounds = click.FloatRange(max(least, above), None if below == inf else below, above > least, max_open=True)
    return Kind("X", bounds, partial(validation.number, least=least, above=above, below=below))


def choice(*names: str) -> Kind:
    """One of some words."""
    return Kind("|".join(names), click.Choice(names), partial(validation.choice, choices=names))


class OldWords(click.Choice[str]):
    """A choice that also takes the old names of words, with a warning."""

    def __init__(self, setting: str, names: Iterable[str]) -> None:
        super().__init__(list(names))
        self.setting = setting

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(new_word("train", self.setting, value), param, ctx)


def text(metavar: str) -> Kind:
    """Any text."""

    def check(where: str, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise InputError(f"{where}: {name} must be a text, got {value!r}.")
        return value

    return Kind(metavar, click.STRING, check)


class Widths(click.ParamType[Any]):
    """Integers with commas between them, such as 100,100; none for an empty list."""

    name = "widths"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        try:
            return [] if value == "none" else [int(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is not a list of widths such as 100,100, or none.", param, ctx)


def widths() -> Kind:
    """The widths of the hidden layers."""

    def check(where: str, name: str, value: Any) -> tuple[int, ...]:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{where}: {name} must be a list of widths, got {value!r}.")
        return tuple(validation.integer(where, name, width, least=1) for width in value)

    return Kind("N,N", Widths(), check)


class NumberOr(click.ParamType[Any]):
    """A number, or one word."""

    name = "number"

    def __init__(self, word: str) -> None:
        self.word = word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return value if value == self.word else float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number, nor the word {self.word}.", param, ctx)


def share_or(word: str) -> Kind:
    """A number of at least 0 and below 1, or one word."""

    def check(where: str, name: str, value: Any) -> float | str:
        cure = f"Or take the word {word}."
        return word if value == word else validation.number(where, name, value, least=0, below=1, cure=cure)

    return Kind(f"X|{word}", NumberOr(word), check)


def setting(default: Any, section: str, kind: Kind, line: str, *, shown: str | None = None) -> Any:
    """A field of `Settings`.

    Args:
        default: the value of a training that does not set it.
        section: its table in config.toml.
        kind: the values that it accepts.
        line: its line of help.
        shown: the default as the help shows it; None for `default` itself.
    """
    if shown is None:
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return field(default=default, metadata={"section": section, "kind": kind, "help": line, "shown": shown})


def by_optimizer(option: str) -> str:
    """The default of an option that depends on the optimizer, the most common one last."""
    defaults = {name: getattr(cls, option) for name, cls in OPTIMIZERS.items() if hasattr(cls, option)}
    usual, _ = Counter(defaults.values()).most_common(1)[0]
    others = [f"{value:g} for {name}, " for name, value in defaults.items() if value != usual]
    return f"{''.join(others)}else {usual:g}"


SCALINGS = choice(*preprocessing.SCALINGS)._replace(type=OldWords("scaling", preprocessing.SCALINGS))
NORM = choice(*NORMS)
ACTIVATIONS = choice(*NONLINEAR)

_TARGET = f"the column of a {with_target_column()} file to predict"
_SCHEDULES = [name.replace("_", "-") for name in SCHEDULES]
_TASK = "what to train; auto: by the targets, and an error where they may be classes or quantities"
_LOSS = (
    f"auto: {usual_loss('regression').name} for targets with fractions or several columns, "
    f"else {usual_loss('classification').name}"
)
_SMOOTHING = f"of {' and '.join(LOSSES.takers('label_smoothing'))}"
_CLASSES = f"{_SMOOTHING}: none, balanced, or LABEL=WEIGHT,LABEL=WEIGHT for every class"
_MOMENTUM = f"of {' and '.join(OPTIMIZERS.takers('momentum'))}"
_NORM = "batch normalization of each hidden layer; normalize-only leaves out gamma and beta"
_DECAY = "share of the old running statistics that a step keeps; exact: merge all batches"
_PRECISION = "16 bits: activations, with float32 parameters; tf32: products on a GPU; highest: all in the dtype"
_VALIDATION = "share of the rows to hold out for validation, unless the data name them"
_DROP = "epochs between the drops of step; epochs without improvement before a drop of plateau"
_STOPPING = "stop after N epochs without a lower validation loss and keep the best weights; 0: never"
_AVERAGE = "decay of a moving average of the weights, which replaces them in the result; 0: none"
_RATE, _RATES = "the peak of one-cycle, else the first one", by_optimizer("learning_rate")
_WEIGHTS, _DECAYS = "of the weights; gamma, beta and biases have none", by_optimizer("weight_decay")
_GRAPH = "on a GPU run a step as one CUDA graph; auto: if possible, and the log says why not"
_RESIDENT = "hold all training data in the GPU's memory; auto: if they take at most half of the free memory"
_THREADS = "that run native kernels; results do not depend on it"
_WATCH = "activations: sample their distributions into metrics.jsonl"
_KERNELS = "auto: native or CUDA kernels where they exist; fused: fail without; reference: bnengine/ops as written"
SHARE = number(least=0, below=1)


@dataclass(frozen=True)
class Settings:
    """Every setting of a training; None for a value that follows from the data or another setting."""

    path: str = setting("", "data", text("PATH"), "the data", shown="")
    target: str = setting("", "data", text("COLUMN"), _TARGET, shown="")
    task: str = setting("auto", "data", choice("auto", *TASKS), _TASK)
    validation: float = setting(0.2, "data", SHARE, _VALIDATION)
    scaling: str = setting("auto", "data", SCALINGS, "of features; auto: center for images, standardize for tables")
    hidden: tuple[int, ...] = setting((100, 100), "network", widths(), "widths of the hidden layers, or none")
    norm: str = setting("batch", "network", NORM, _NORM)
    bn_decay: float | str = setting(0.9, "network", share_or("exact"), _DECAY)
    activation: str = setting("relu", "network", ACTIVATIONS, "of the hidden layers")
    dropout: float = setting(0.0, "network", SHARE, "share of the hidden values that training sets to zero")
    dtype: str = setting("float32", "network", choice("float32", "float64"), "of parameters and arithmetic")
    precision: str = setting("highest", "network", choice(*PRECISIONS), _PRECISION)
    loss: str = setting("auto", "training", choice("auto", *LOSSES), _LOSS)
    label_smoothing: float = setting(0.0, "training", SHARE, _SMOOTHING)
    class_weights: str = setting("none", "training", text("WORD"), _CLASSES)
    optimizer: str = setting("adam", "training", choice(*OPTIMIZERS), "the update rule")
    momentum: float = setting(0.0, "training", SHARE, _MOMENTUM)
    weight_decay: float | None = setting(None, "training", number(least=0), _WEIGHTS, shown=_DECAYS)
    learning_rate: float | None = setting(None, "training", number(above=0), _RATE, shown=_RATES)
    schedule: str = setting("one-cycle", "training", choice(*_SCHEDULES), "of the learning rate")
    warm_up: int = setting(0, "training", integer(0), "steps of a rising learning rate before the schedule begins")
    drop_every: int = setting(10, "training", integer(1), _DROP)
    drop_factor: float = setting(0.1, "training", SHARE, "factor of a drop of step or plateau")
    clip_norm: float = setting(0.0, "training", number(least=0), "the largest norm of the gradients; 0: no clipping")
    accumulate: int = setting(1, "training", integer(1), "batches to an optimizer step")
    batch_size: int = setting(64, "training", integer(1), "rows of a batch")
    epochs: int = setting(20, "training", integer(1), "passes over the training rows")
    early_stopping: int = setting(0, "training", integer(0), _STOPPING)
    average: float = setting(0.0, "training", SHARE, _AVERAGE)
    seed: int = setting(0, "run", integer(0), "of the split, the weights, the order of the rows and dropout")
    backend: str | None = setting(None, "run", text("NAME"), CHOICES, shown="BNENGINE_BACKEND or auto")
    threads: int | None = setting(None, "run", integer(1, MOST), _THREADS, shown="BNENGINE_NUM_THREADS or the cores")
    kernels: str = setting("auto", "run", choice(*MODES), _KERNELS)
    graph: str = setting("auto", "run", choice("auto", "yes", "no"), _GRAPH)
    resident: str = setting("auto", "run", choice("auto", "yes", "no"), _RESIDENT)
    checkpoint_every: int = setting(0, "run", integer(0), "steps between checkpoints, in addition to one per epoch")
    watch: str = setting("none", "run", choice("none", "activations"), _WATCH)

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any], where: str) -> Self:
        """Settings from the tables of a config.toml.

        Args:
            tables: values by name, by section; the section made_by is ignored.
            where: the file, with which errors begin.

        Raises:
            InputError: an unknown section or key, or a wrong value.
        """
        known = table()
        values: dict[str, Any] = {}
        for section, entries in tables.items():
            names = [name for name, row in known.items() if row.metadata["section"] == section]
            if section == MADE_BY:
                continue
            if not names or not isinstance(entries, Mapping):
                sections = dict.fromkeys(row.metadata["section"] for row in known.values())
                raise InputError(f"{where}: no table [{section}]. Choose one of {', '.join(sections)} and {MADE_BY}.")
            for name, value in entries.items():
                if name not in names:
                    raise InputError(f"{where}: [{section}] has no key {name!r}. It takes {', '.join(names)}.")
                values[name] = known[name].metadata["kind"].check(f"{where}, [{section}]", name, value)
        return cls(**values)

    def tables(self) -> dict[str, dict[str, Any]]:
        """The settings as the tables of a config.toml, without those that are None."""
        sections: dict[str, dict[str, Any]] = {}
        for name, row in table().items():
            value = getattr(self, name)
            if value is not None:
                section = sections.setdefault(row.metadata["section"], {})
                section[name] = list(value) if isinstance(value, tuple) else value
        return sections

    def changed(self, **values: Any) -> Self:
        """The settings with some of them replaced."""
        return replace(self, **values)


def table() -> "dict[str, Field[Any]]":
    """Every setting by its name."""
    return {row.name: row for row in fields(Settings)}


def flag(name: str) -> str:
    """The option of a setting on the command line."""
    return "--" + name.replace("_", "-")
