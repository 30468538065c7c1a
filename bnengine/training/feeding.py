"""Where the rows of each step come from: arrays on the device, arrays of the host, or an iterable of batches."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ..data import ArraySource, Batch, IterableSource, Preprocessing, Source, groups, order
from ..errors import InputError
from .resident import fits
from .step import Step

if TYPE_CHECKING:
    from .trainer import Trainer


class Group(NamedTuple):
    """A step to be done: the rows of its micro-batches, and how many steps there are of such, itself and behind it.

    `batches(i)`: the data of the i-th of these; where they lie on the device, for a fault.
    """

    sizes: tuple[int, ...]
    alike: int
    batches: Callable[[int], list[Batch]]


def bring(source: Source, step: Step, wanted: Literal["auto"] | bool) -> None:
    """The data into the device's memory, if they are to stay there."""
    if not isinstance(source, ArraySource):
        if wanted is True:
            raise InputError(f"fit: resident=True, but {source!r} is no array; give arrays, or resident='auto'")
        step.resident = None
    elif wanted is True or (wanted == "auto" and fits(source, step.inputs)):
        if step.resident is None or step.resident.source is not source:
            step.hold(source)
    else:
        step.resident = None


def steps_of(trainer: "Trainer", source: Source) -> Iterator[Group]:
    """What is still to be done in the trainer's epoch: the step that it stands at, each time anew."""
    done, k = trainer.group * trainer.accumulate, trainer.accumulate
    if isinstance(source, IterableSource):
        batches = source.epoch(skip=done)
        while taken := list(islice(batches, k)):
            yield Group(tuple(len(batch.x) for batch in taken), 1, partial(_given, taken))
        return
    assert source.rows is not None
    positions = order(source.rows, seed=trainer.network.seed, epoch=trainer.epoch)
    micro = groups(source.rows, trainer.batch_size)
    steps = [micro[i : i + k] for i in range(0, len(micro), k)]
    if trainer.step.resident is not None:
        trainer.step.resident.start(positions, steps, trainer.group)
    while (at := trainer.group) < len(steps):
        sizes = _sizes(steps[at])
        alike = len(steps) - at - (_sizes(steps[-1]) != sizes)  # only the last one may be another
        yield Group(sizes, alike, partial(_taken, source, positions, steps, at))


def _sizes(parts: Sequence[slice]) -> tuple[int, ...]:
    return tuple(part.stop - part.start for part in parts)


def _given(batches: list[Batch], _: int) -> list[Batch]:
    return batches


def _taken(source: Source, positions: np.ndarray, steps: Sequence[Sequence[slice]], at: int, i: int) -> list[Batch]:
    return [source.take(positions[part]) for part in steps[at + i]]


def as_source(data: Any, dtype: str, name: str, preprocessing: Preprocessing | None = None) -> Source | None:
    """A Source of what a user gives: one already, (x, y), (x, y, weights), or a callable that returns an iterable of
    batches.
    """
    if data is None or (hasattr(data, "take") and hasattr(data, "rows")):
        return data  # type: ignore[no-any-return]
    if isinstance(data, tuple) and len(data) in (2, 3):
        x, y, weights = data if len(data) == 3 else (*data, None)
        return ArraySource(x, y, weights, preprocessing, dtype=dtype, name=name)
    return IterableSource(data, preprocessing, dtype, name)
