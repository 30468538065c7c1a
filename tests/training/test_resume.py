"""A training that is stopped anywhere, saved and resumed by new objects ends in the bits of one that never stopped."""

import itertools

import numpy as np
import pytest

import bnengine as bn
from bnengine.errors import CheckpointError, InputError
from bnengine.optim import optimizers as optim
from bnengine.optim.schedules import Constant, Cosine, OneCycle, Plateau, Step, WarmUp
from bnengine.storage import checkpoint
from bnengine.training import EarlyStopping
from tests.optimizers import FULL
from tests.training.support import After, Rows, blobs, net, outcome, trainer

OPTIMIZERS = {repr(one): one for one in [*(cls() for cls in optim.OPTIMIZERS.values()), *FULL]}
SCHEDULES = {
    "constant": lambda: Constant(0.02),
    "step": lambda: Step(0.02, 7, 0.5),
    "cosine": lambda: Cosine(0.02),
    "one-cycle": lambda: OneCycle(0.02),
    "warm-up": lambda: WarmUp(Cosine(0.02), 10),
    "plateau": lambda: WarmUp(Plateau(0.02, factor=0.5, patience=0, threshold=0.5), 3),
}
X, Y = blobs(rows=40)
VALID = blobs(rows=30, seed=1)
BATCH = 5
STEPS = 8  # an epoch


class Stopped(Exception):
    """What ends a training between two steps here."""


def make(optimizer, schedule, *, accumulate=1, average=None, dropout=0.0, early=0, **options):
    callbacks = [EarlyStopping(early)] if early else []
    return trainer(
        net(dropout=dropout, seed=3), optimizer, learning_rate=schedule(), accumulate=accumulate, average=average,
        clip_norm=2.0, callbacks=callbacks, **options,
    )  # fmt: skip


def run(t, data=None, epochs=3):
    t.fit(Rows(X, Y) if data is None else data, epochs=epochs, batch_size=BATCH, validation=VALID)
    return t


def stopped_and_resumed(build, file, steps, data=None, epochs=3):
    """A training saved to `file` after that many steps, and another one that goes on from there."""

    def stop(t):
        t.save(file)
        raise Stopped

    first = build()
    first.callbacks.append(After(steps, stop))
    with pytest.raises(Stopped):
        run(first, data, epochs)
    second = build()
    second.network.reset(99)  # nothing may survive of what it began with
    second.network.seed = first.network.seed
    second.resume(file)
    return run(second, data, epochs)


def same_ends(build, tmp_path, steps, data=None, epochs=3):
    whole = run(build(), data, epochs)
    resumed = stopped_and_resumed(build, tmp_path / "stopped", steps, data, epochs)
    assert outcome(resumed) == outcome(whole)
    for name, t in (("whole", whole), ("resumed", resumed)):
        t.save(tmp_path / name)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "resumed").read_bytes()
    return whole


# Every optimizer, every schedule: what a checkpoint keeps of one does not depend on the other.
@pytest.mark.parametrize(("optimizer", "schedule"), list(zip(OPTIMIZERS, itertools.cycle(SCHEDULES))))
def test_a_training_resumed_in_its_third_epoch_ends_alike(optimizer, schedule, tmp_path):
    def build():
        return make(OPTIMIZERS[optimizer], SCHEDULES[schedule], dropout=0.25, average=bn.Average(0.9), early=2)

    whole = same_ends(build, tmp_path, 2 * STEPS + 3)
    assert whole.history[-1]["steps"] == 3 * STEPS


@pytest.mark.parametrize(
    ("accumulate", "average", "early", "statistics"),
    [
        (1, None, 1, "merged"), (1, "averaged", 0, "merged"), (1, "recomputed", 1, "merged"),
        (2, None, 0, "per_micro_batch"), (2, "averaged", 1, "per_micro_batch"), (2, "recomputed", 0, "merged"),
        (4, None, 1, "merged"), (4, "averaged", 0, "merged"), (4, "recomputed", 1, "per_micro_batch"),
    ],
)  # fmt: skip
def test_so_it_is_with_accumulation_averages_and_early_stopping(accumulate, average, early, statistics, tmp_path):
    def build():
        kept = bn.Average(0.8, statistics=average) if average else None
        return make(
            bn.Adam(), SCHEDULES["cosine"], accumulate=accumulate, average=kept, early=early, statistics=statistics,
            dropout=0.25,
        )  # fmt: skip

    steps = STEPS // accumulate
    same_ends(build, tmp_path, steps + min(3, steps - 1))


@pytest.mark.parametrize("steps", [1, 7, 8, 9, 15, 16, 23, 24])
def test_a_training_may_stop_anywhere(steps, tmp_path):
    def build():
        return make(bn.Adam(), SCHEDULES["plateau"], dropout=0.25, average=bn.Average(0.8), early=9)

    same_ends(build, tmp_path, steps)


@pytest.mark.parametrize("steps", [2, 5, 11])
def test_skipped_steps_before_and_after_the_stop_are_counted(steps, tmp_path):
    x = X.copy()
    x[[3, 30]] = np.nan

    def build():
        return make(bn.AdamW(), SCHEDULES["one-cycle"], dropout=0.25)

    whole = same_ends(build, tmp_path, steps, Rows(x, Y), epochs=2)
    assert whole.history[-1]["skipped_steps"] in (2, 3, 4)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("steps", [3, 8, 10])
def test_batches_of_a_function_are_skipped_up_to_the_place(accumulate, steps, tmp_path):
    def batches():
        yield from ((X[a : a + 5], Y[a : a + 5]) for a in range(0, 40, 5))

    def build():
        return make(bn.Adam(), lambda: Cosine(0.02, 20), accumulate=accumulate, dropout=0.25)

    same_ends(build, tmp_path, steps, batches)


def test_resuming_before_the_first_or_after_the_last_step(tmp_path):
    def build():
        return make(bn.Adam(), SCHEDULES["cosine"], early=9, average=bn.Average(0.8))

    fresh, whole = build(), run(build())
    fresh.save(tmp_path / "fresh")
    whole.save(tmp_path / "whole")
    first, last = build(), build()
    first.resume(tmp_path / "fresh")
    last.resume(tmp_path / "whole")
    assert outcome(run(first)) == outcome(whole)
    assert outcome(run(last)) == outcome(whole)


def test_equal_trainings_write_equal_bytes(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        t = trainer(net(dropout=0.2, seed=seed), average=bn.Average(0.9))
        run(t, epochs=2).save(tmp_path / name)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_what_is_frozen_stays_frozen(tmp_path):
    def build():
        t = make(bn.AdamW(), SCHEDULES["constant"])
        t.network.freeze("affine")
        t.network.freeze("statistics")
        return t

    def build_warm():
        t = build()
        t.network.thaw("statistics")
        run(t, epochs=1)
        t.network.freeze("statistics")
        return t

    whole = build_warm()
    whole.save(tmp_path / "saved")
    second = build()
    second.resume(tmp_path / "saved")
    for t in (whole, second):
        run(t, epochs=2)
    assert outcome(whole) == outcome(second)


# -- what does not fit -------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """A checkpoint from within an epoch of plain Adam, by two micro-batches a step."""
    file = tmp_path / "run.safetensors"

    def stop(t):
        t.save(file)
        raise Stopped

    t = make(bn.Adam(), SCHEDULES["constant"], accumulate=2)
    t.callbacks.append(After(3, stop))
    with pytest.raises(Stopped):
        run(t)
    return file


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: make(bn.SGD(), SCHEDULES["constant"], accumulate=2), r"has optimizer .*'adam'.*got .*'sgd'"),
        (lambda: make(bn.Adam(beta1=0.8), SCHEDULES["constant"], accumulate=2), "'beta1': 0.9.*'beta1': 0.8"),
        (
            lambda: make(bn.Adam(), SCHEDULES["constant"], accumulate=2, loss="mean_squared_error"),
            "the saved training has loss",
        ),
        (lambda: make(bn.Adam(), SCHEDULES["constant"]), "has accumulate 2, got 1"),
        (lambda: make(bn.Adam(), SCHEDULES["constant"], accumulate=2, average=bn.Average()), r"average\..* missing"),
        (lambda: make(bn.Adam(), SCHEDULES["plateau"], accumulate=2), "Plateau: a state has rate, waited and best"),
    ],
)
def test_the_state_of_another_training_is_refused(build, message, saved):
    with pytest.raises(InputError, match=message):
        build().resume(saved)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: net(seed=4), "other seed: 3; the trainer's network has 4"),
        (lambda: net(seed=3, dtype="float64"), "other dtype: float32; the trainer's"),
        (lambda: net(seed=3, dropout=0.5), "other layers: "),
        (lambda: net(seed=3, outputs=4), "other layers: "),
    ],
)
def test_the_checkpoint_of_another_network_is_refused(network, message, saved):
    t = trainer(network(), accumulate=2)
    before = outcome(t)
    with pytest.raises(CheckpointError, match=message):
        t.resume(saved)
    assert outcome(t) == before


def test_another_batch_size_within_an_epoch_is_refused(saved):
    t = make(bn.Adam(), SCHEDULES["constant"], accumulate=2)
    t.resume(saved)
    with pytest.raises(InputError, match=r"an epoch that used batch_size=5, got 6\. Call fit\(batch_size=5\)"):
        t.fit(Rows(X, Y), epochs=3, batch_size=6)
    assert len(run(t).history) == 3


def test_a_checkpoint_without_a_training_is_an_error(tmp_path):
    bn.save(tmp_path / "net", net())
    with pytest.raises(CheckpointError, match=r"holds a network without a training. Load it with bnengine\.load"):
        trainer().resume(tmp_path / "net")


def test_a_checkpoint_of_a_training_holds_no_times_and_no_places(saved, tmp_path):
    values = checkpoint.read(saved).metadata["training"]
    assert not {"seconds", "samples_per_second"} & {name for record in values["history"] for name in record}
    assert str(tmp_path) not in str(values)
