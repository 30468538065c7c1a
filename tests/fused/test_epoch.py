"""Whole trainings on the simulated device: an epoch of digits compared with NumPy, and `fit` from beginning to end."""

from pathlib import Path
from typing import Any

import numpy as np

from bnengine import data
from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Layer
from bnengine.losses import SoftmaxCrossEntropy
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import AdamW
from bnengine.optim.schedules import OneCycle
from bnengine.runtime.memory import Arena
from bnengine.training import Trainer
from bnengine.training import step as steps
from bnengine.training.callbacks import Callback, Record
from tests.fused.test_step import checked_step, compare, made

DIGITS = data.load_digits()
X = (DIGITS.x.reshape(-1, 64) / 16).astype(np.float32)
TRAIN, VALID = data.split_dataset(DIGITS, fraction=0.2, seed=3)
EPOCH = TRAIN[:400]
BATCH, PLANTED = 64, 3  # rows of a batch; the step whose input holds a NaN


def layers() -> tuple[Layer, ...]:
    first = Dense(64, 40), BatchNorm(40), Activation("relu"), Dropout(0.2)
    return *first, Dense(40, 21), BatchNorm(21), Activation("gelu"), Dropout(0.1), Dense(21, 10)


def batches(network: Sequential) -> list[data.Batch]:
    """An epoch as `fit` walks it: all rows once, shuffled, 64 at a time; one input is not a number."""
    rows = EPOCH[data.order(len(EPOCH), seed=network.seed, epoch=0)]
    found = [data.Batch(X[r], DIGITS.y[r], None, r) for r in (rows[s] for s in data.groups(len(rows), BATCH))]
    found[PLANTED].x[5, 33] = np.nan
    return found


def stepper(backend: Any, mode: Any) -> steps.Step:
    network = Sequential(*layers(), backend=backend, seed=5)
    return steps.Step(network, AdamW(weight_decay=0.01), SoftmaxCrossEntropy(), clip_norm=1.0, memory=Arena(mode))


def test_an_epoch_of_digits_agrees_with_numpy_step_by_step(device):
    leader, follower = stepper("numpy", "auto"), stepper(device.backend(), "fused")
    epoch = batches(leader.network)
    schedule = OneCycle(0.03, total_steps=len(epoch))
    leader.schedule(schedule.for_steps(0, len(epoch)))
    norms, before = [], leader.network.state_dict()
    for t, batch in enumerate(epoch):
        follower.network.load_state_dict(leader.network.state_dict())
        follower.load_state_dict(leader.state_dict())
        done = leader.report().steps
        follower.schedule(schedule.for_steps(done, len(epoch) - done))
        leader([batch])
        checked_step(follower, [batch], f"step {t}")
        compare(made(follower), made(leader), "float32", f"step {t}")
        assert follower.report()[2:] == leader.report()[2:]
        assert leader.report().ok == (t != PLANTED)
        norms.append(leader.report().norm)
    assert [len(batch.x) for batch in epoch] == [64] * 6 + [16]
    assert np.array_equal(np.sort(np.concatenate([batch.samples for batch in epoch])), np.sort(EPOCH))
    assert min(norms) < 1.0 < np.nanmax(norms)  # some were clipped, some were not
    assert leader.report()[3:5] == (6, 1)
    assert leader.totals().rows == len(EPOCH) - BATCH
    np.testing.assert_allclose(follower.totals(), leader.totals(), rtol=1e-5)
    assert all(np.any(a != before[name]) for name, a in follower.network.state_dict().items() if "count" not in name)
    assert len(follower.plans) == 2
    assert not any(plan.reasons for plan in follower.plans.values())


class Saving(Callback):
    """Saves at given places: (epoch, steps of it that are done)."""

    saves = True

    def __init__(self, folder: Path, *places: tuple[int, int]) -> None:
        self.folder, self.places = folder, places

    def step_ends(self, trainer: Trainer) -> None:
        if (trainer.epoch, trainer.group) in self.places:
            trainer.save(self.folder / f"{trainer.epoch}-{trainer.group}")

    def epoch_ends(self, trainer: Trainer, record: Record) -> None:  # noqa: ARG002 -- what a callback is given
        self.step_ends(trainer)


def trainer(backend: Any, *callbacks: Callback, dtype: str = "float32", progress: Any = "quiet") -> Trainer:
    network = Sequential(*layers(), backend=backend, dtype=dtype, seed=5)
    options: Any = {"learning_rate": OneCycle(0.03), "clip_norm": 0.5, "progress": progress, "callbacks": callbacks}
    return Trainer(network, AdamW(weight_decay=0.01), **options)


class Spoilt:
    """A source of which one row is not a number: each epoch skips the step that meets it."""

    rows = 200

    def take(self, positions: np.ndarray) -> data.Batch:
        x = X[TRAIN[positions]]
        x[positions == 70] = np.nan
        return data.Batch(x, DIGITS.y[TRAIN[positions]], None, positions)


def fitted(made: Trainer, train: Any = None) -> Trainer:
    """Three epochs of 200 rows, 64 at a time, the last batch of 8."""
    train = train or (X[TRAIN[:200]], DIGITS.y[TRAIN[:200]])
    made.fit(train, epochs=3, validation=(X[VALID[:90]], DIGITS.y[VALID[:90]]))
    return made


def everything(made: Trainer) -> dict[str, bytes]:
    """All state of a training, without its times."""
    arrays = made.network.state_dict() | made.state()[0]
    return {name: np.asarray(array).tobytes() for name, array in arrays.items()}


def test_fit_runs_on_the_simulated_device_and_says_how_it_goes(simulated, capsys):
    backends = simulated.backend(), "numpy"
    found, expected = (fitted(trainer(b, dtype="float64", progress="plain"), Spoilt()) for b in backends)
    shown = capsys.readouterr()
    assert "3/3" in shown.out + shown.err
    assert "not finite and was skipped" in shown.out + shown.err
    for epoch, (got, wanted) in enumerate(zip(found.history, expected.history, strict=True)):
        assert got.keys() == wanted.keys()
        for name in set(wanted) - {"seconds", "samples_per_second"}:
            np.testing.assert_allclose(got[name], wanted[name], rtol=1e-9, err_msg=f"{name} of epoch {epoch}")
    assert found.history[-1]["skipped_steps"] == 3
    assert found.history[-1]["valid_accuracy"] > 2 * found.history[0]["valid_accuracy"]


def test_a_resumed_training_has_the_same_bits(simulated, tmp_path):
    places = (0, 1), (1, 0), (1, 3), (2, 4)
    whole = fitted(trainer(simulated.backend(), Saving(tmp_path, *places)))
    assert whole.step.plans
    assert not any(plan.reasons for plan in whole.step.plans.values())
    for place in places:
        resumed = trainer(simulated.backend())
        resumed.resume(tmp_path / f"{place[0]}-{place[1]}")
        assert (resumed.epoch, resumed.group) == place
        assert everything(fitted(resumed)) == everything(whole), place
        untimed = [{k: v for k, v in r.items() if k not in ("seconds", "samples_per_second")} for r in resumed.history]
        assert len(untimed) == 3
        assert all(r.items() >= u.items() for r, u in zip(whole.history, untimed, strict=True))
