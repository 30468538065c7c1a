"""Rows of an epoch's steps: the same interface and the same bits, wherever they lie."""

import numpy as np
import pytest

from bnengine.data import ArraySource, Batch, groups, order
from bnengine.training.resident import Resident
from bnengine.training.rows import HostRows, Rows
from bnengine.training.step import Step
from tests.training.support import blobs, trainer

X, Y = blobs(rows=20)
SOURCE = ArraySource(X, Y)
PARTS = [[part] for part in groups(20, 6, last="keep")]
SIZES = [(6,), (6,), (6,), (2,)]


def step_and_rows(kind: str) -> tuple[Step, Rows]:
    """A step, and an epoch of the same rows of each kind."""
    step = trainer().step
    step.schedule([0.01] * 8)
    if kind == "resident":
        held = Resident(SOURCE, step.inputs)
        held.start(order(20, seed=0, epoch=0), PARTS)
        return step, held
    if kind == "arrays":
        return step, HostRows.over(step.inputs, SOURCE, order(20, seed=0, epoch=0), PARTS)
    batches = (SOURCE.take(order(20, seed=0, epoch=0)[part]) for (part,) in PARTS)
    return step, HostRows.from_batches(step.inputs, batches, 1)


def bits(step: Step) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in (step.network.state_dict() | step.state_dict()).items()}


@pytest.mark.parametrize("kind", ["resident", "arrays", "batches"])
def test_each_kind_of_rows_gives_the_same_training(kind):
    step, rows = step_and_rows(kind)
    by_hand, _ = step_and_rows("arrays")
    for sizes, (part,) in zip(SIZES, PARTS, strict=True):
        expected = SOURCE.take(order(20, seed=0, epoch=0)[part])
        assert rows.sizes == sizes
        assert_same(rows.batches(), [expected])
        assert step.next(rows) == 1
        assert_same(rows.batches(-1), [expected])
        by_hand([expected])
    assert (rows.sizes, rows.steps_alike) == ((), 0)
    assert bits(step) == bits(by_hand)


def assert_same(found: list[Batch], expected: list[Batch]) -> None:
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_alike_counts_the_steps_of_one_size_that_follow():
    step, rows = step_and_rows("resident")
    found = []
    while rows.steps_alike:
        found.append(rows.steps_alike)
        step.next(rows)
    assert found == [3, 2, 1, 1]
    assert step_and_rows("arrays")[1].steps_alike == 1


def test_each_resident_data_set_keeps_its_rows():
    step, other = trainer().step, trainer().step
    for one in (step, other):
        one.schedule([0.01] * 6)
    sources = SOURCE, ArraySource(2 * X, Y)
    held = [Resident(source, step.inputs) for source in sources]
    for one in held:
        one.start(np.arange(20), PARTS)
    for part in PARTS[:3]:
        for one, source in zip(held, sources, strict=True):
            step.next(one)
            other([source.take(np.arange(20)[part[0]])])
    assert bits(step) == bits(other)
