"""Steps that one native call does in a row: the training is that of steps one by one, bit for bit."""

from typing import Any

import numpy as np
import pytest

import bnengine as bn
from bnengine.data import ArraySource
from bnengine.errors import InputError, TrainingFailed
from bnengine.fused import backend_feature
from bnengine.training import Activations, Callback, Checkpointing, Trainer
from bnengine.training.resident import Resident
from tests.training.support import Notes, blobs, net


@pytest.fixture
def calls(monkeypatch):
    """How many steps each native call of many did."""
    if backend_feature("numpy", "replayer") is None:
        pytest.skip("steps are no native calls here")
    from bnengine.fused.cpu.native import NativePlan

    found, many = list[int](), NativePlan.many

    def counted(plan: Any, times: int, until: Any) -> int:
        found.append(many(plan, times, until))
        return found[-1]

    monkeypatch.setattr(NativePlan, "many", counted)
    return found


def bits(made: Trainer) -> dict[str, bytes]:
    state = made.network.state_dict() | made.step.state_dict()
    return {name: array.tobytes() for name, array in state.items()}


def trained(*callbacks: Callback, x: Any = None, epochs: int = 3, **options: Any) -> Trainer:
    """Epochs of eleven steps, the last of fewer rows, with what varies from step to step."""
    own, y = blobs()
    made = Trainer(
        net(dropout=0.3), "adam", learning_rate=bn.schedules.OneCycle(0.02), clip_norm=0.5, callbacks=callbacks,
        **{"progress": "quiet", **options},
    )  # fmt: skip
    made.fit((own if x is None else x, y), epochs=epochs, batch_size=8)
    return made


def spoilt(*steps: int) -> np.ndarray:
    """The inputs of `trained`, of which products overflow in each of these steps of its first epoch."""
    x = blobs()[0].copy()
    rows = bn.data.order(len(x), seed=0, epoch=0)
    x[[rows[8 * step + 3] for step in steps], 2] = 3e38
    return x


def test_an_epoch_in_few_calls_has_the_bits_of_single_steps(calls):
    together = trained()
    # The first step is recorded, and so is the one of fewer rows at the end; all others are done in one call an epoch.
    assert calls == [10, 11, 11]
    single = trained(Notes())
    assert len(calls) == 3
    assert bits(together) == bits(single)
    assert [r["train_loss"] for r in together.history] == [r["train_loss"] for r in single.history]


def test_micro_batches_are_steps_like_others(calls):
    together, single = trained(accumulate=2), trained(Notes(), accumulate=2)
    assert calls == [4, 5, 5]
    assert bits(together) == bits(single)


def test_a_call_ends_after_a_skipped_step_and_reports_it(calls, capsys):
    x = spoilt(3, 4, 9)
    together = trained(x=x, epochs=1, progress="plain")
    log = capsys.readouterr().err
    assert calls == [3, 1, 5]  # and one step alone at the beginning and at the end
    for step in (4, 5, 10):
        assert f"step {step} of the training was not finite and was skipped: nothing changed\n" in log
    assert bits(together) == bits(trained(Notes(), x=x, epochs=1))


def test_ten_skips_in_a_row_end_the_training_and_name_the_fault(calls):
    x = spoilt(*range(1, 11))
    fault = r"^fit: 10 steps in a row were not finite; the output of Dense\(6, 8\), layer 0 holds -?inf at \(3,"
    with pytest.raises(TrainingFailed, match=fault) as together:
        trained(x=x)
    assert calls == [1] * 9
    with pytest.raises(TrainingFailed) as single:
        trained(Notes(), x=x)
    assert str(together.value) == str(single.value)


def test_whoever_looks_every_few_steps_finds_them_done(calls, tmp_path):
    class Saved(Checkpointing):
        def step_ends(self, trainer: Trainer) -> None:
            super().step_ends(trainer)
            at.append((trainer.epoch, trainer.group))

    at = list[tuple[int, int]]()
    trained(Saved(tmp_path / "state", every_steps=4), epochs=2)
    assert at == [(0, 1), (0, 4), (0, 8), (0, 11), (0, 12), (1, 4), (1, 8), (1, 11), (1, 12)]
    assert calls == [3, 4, 3, 4, 4, 3]


def test_samples_of_activations_are_taken_before_their_steps(calls):
    together, single = (trained(*callbacks, watch=Activations(every=7)) for callbacks in ([], [Notes()]))
    assert len(calls) > 3
    records = [[r["activations"] for r in made.history] for made in (together, single)]
    assert [r["steps"] for r in records[0]] == [[0, 1, 2, 5, 7], [14, 21], [28, 35]]
    assert records[0] == records[1]
    assert bits(together) == bits(single)


@pytest.mark.parametrize("every", [1, 7, 30, 5000])
def test_steps_to_the_next_sample_lead_to_it(every):
    watch = Activations(every=every)
    taken = [n for n in range(300) if n % every == 0 or (n < every and n in (1, 2, 5, 10, 20, 50, 100, 200))]
    found = list[int]()
    while watch.done < 300:
        found.append(watch.done)
        watch.done += watch.steps_ahead(None)  # type: ignore[arg-type]
    assert set(taken) <= set(found)
    assert len(found) <= 3 * len(taken) + 3


def test_more_steps_than_the_epoch_has_rows_for_are_refused():
    x, y = blobs(rows=20)
    step = Trainer(net(), progress="quiet").step
    held = Resident(ArraySource(x, y), step.inputs)
    held.start(np.arange(20), [[slice(0, 8)], [slice(8, 16)], [slice(16, 20)]])
    with pytest.raises(
        InputError, match=r"^Step: 0 steps of an epoch of 3 steps, 0 of them done cannot run. Pass times=1 or more"
    ):
        step.next(held, 0)
    assert held.steps_alike == 2
    assert [step.next(held, 3) for _ in range(3)] == [1, 1, 1]  # the first and the last are recorded
    with pytest.raises(InputError, match=r"^Step: 3 steps of an epoch of 3 steps, 3 of them done cannot run\. "):
        step.next(held, 3)
