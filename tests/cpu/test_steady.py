"""A steady step allocates nothing: a thousand of them, with dropout, clipping, a schedule, accumulation and more."""

import ctypes
import mmap

import numpy as np
import pytest

from bnengine import threads
from bnengine.data import ArraySource, Batch
from bnengine.fused.cpu.native import NativeKernel
from bnengine.layers import Activation, BatchNorm, Dense, Dropout
from bnengine.losses import SoftmaxCrossEntropy
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import AdamW
from bnengine.optim.schedules import OneCycle
from bnengine.training.resident import Resident
from bnengine.training.state import Average
from bnengine.training.step import Step
from tests.cpu.heap import asked_by

ROWS, RAGGED, EPOCH, PARTS = (
    40,
    17,
    9,
    2,
)  # rows of a micro-batch, and of the last; steps of an epoch; parts of each
STEPS = 4000
TRACED, FAULTS = 64 << 10, 50

pytestmark = pytest.mark.usefixtures("native")


def made() -> Step:
    """A step with everything that varies from one to the next."""
    hidden = [Dense(64, 100), BatchNorm(100), Activation("gelu"), Dropout(0.2), Dense(100, 70), BatchNorm(70)]
    network = Sequential(*hidden, Activation("relu"), Dropout(0.1), Dense(70, 10), backend="numpy", seed=1)
    loss = SoftmaxCrossEntropy(label_smoothing=0.1)
    step = Step(network, AdamW(weight_decay=0.01), loss, clip_norm=0.05, average=Average(0.99))
    step.schedule(OneCycle(0.01, total_steps=STEPS).for_steps(0, STEPS))
    return step


def sizes() -> list[tuple[int, ...]]:
    """Rows of the micro-batches of each step of an epoch."""
    return [(ROWS,) * PARTS] * (EPOCH - 1) + [(ROWS, RAGGED)]


class GivenBatches:
    """Steps over batches of NumPy arrays, made beforehand."""

    def __init__(self) -> None:
        self.step, rng, self.at = made(), np.random.default_rng(0), -1
        self.batches = [
            [
                Batch(rng.random((n, 64), np.float32), rng.integers(0, 10, n), None, rng.integers(0, 999, n))
                for n in rows
            ]
            for rows in sizes()
        ]

    def __call__(self) -> None:
        self.at = (self.at + 1) % EPOCH
        self.step(self.batches[self.at])


class HeldData:
    """Steps that gather their own rows of data that are held."""

    def __init__(self) -> None:
        self.step, rng, self.at = made(), np.random.default_rng(0), -1
        sizes_of_all, at, self.parts = [n for rows in sizes() for n in rows], 0, list[list[slice]]()
        for rows in sizes():
            self.parts.append([])
            for n in rows:
                self.parts[-1].append(slice(at, at + n))
                at += n
        self.order = rng.permutation(sum(sizes_of_all))
        source = ArraySource(rng.random((at, 64), np.float32), rng.integers(0, 10, at))
        self.data = Resident(source, self.step.inputs)

    def __call__(self) -> None:
        self.at = (self.at + 1) % EPOCH
        if self.at == 0:
            self.data.start(self.order, self.parts)
        self.step.next(self.data)


@pytest.mark.parametrize(("steps", "count"), [(GivenBatches, 2), (HeldData, 1)])
def test_a_thousand_steps_leave_nothing_on_the_heap(steps, count):
    threads.set(count)
    run = steps()
    asked = asked_by(run)
    assert asked.heap == 0
    assert asked.traced < TRACED
    assert asked.faults < FAULTS
    report = run.step.report()
    assert (report.steps, report.skipped) == (3000, 0)
    assert report.norm > 0.05  # so it was clipped
    assert len(run.step.modes()) == 2
    assert {mode.how for mode in run.step.modes()} == {"one call"}


def test_what_a_step_leaves_behind_in_python_is_seen():
    run, left = GivenBatches(), []

    def leaves():
        run()
        left.append(bytes(1024))

    assert asked_by(leaves, times=100).traced > TRACED


def test_what_a_step_leaves_behind_in_c_is_seen():
    run, malloc = GivenBatches(), ctypes.CDLL(None).malloc
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]

    def leaves():
        run()
        assert malloc(16)

    assert asked_by(leaves, times=100).heap >= 16 * 100


@pytest.mark.usefixtures("kernels_for_tests")
def test_what_a_kernel_of_a_step_takes_is_seen():
    run, out, kernel = GivenBatches(), np.zeros(1), NativeKernel("allocates")

    def takes():
        run()
        kernel(out, 100)

    assert asked_by(takes, times=100).heap >= 100 * 100


def test_pages_that_a_step_takes_and_gives_back_are_seen():
    run = GivenBatches()

    def takes():
        run()
        with mmap.mmap(-1, mmap.PAGESIZE) as page:
            page[0] = 1

    assert asked_by(takes, times=100).faults >= 100
