"""Callbacks: the order of events, early stopping with the best weights and statistics, checkpoints, kept state."""

from math import inf, nan

import numpy as np
import pytest

import bnengine as bn
from bnengine.errors import InputError
from bnengine.training import Callback, Checkpointing, EarlyStopping
from tests.training.support import After, Notes, Rows, blobs, net, network_bits, outcome, trainer


class Scores(Callback):
    """Writes another figure into each record, and keeps the network's bits of each epoch."""

    def __init__(self, *values):
        self.values, self.bits, self.averages = list(values), [], []

    def epoch_ends(self, trainer, record):
        record["valid_accuracy"] = self.values[record["epoch"]]
        self.bits.append(network_bits(trainer.network))
        if trainer.step.state.averaged is not None:
            self.averages.append([np.array(flat.array) for flat in trainer.step.state.averaged])


def scored(values, *, epochs=None, options=None, **stopping):
    """A training whose validation accuracies are `values`."""
    scores, early = Scores(*values), EarlyStopping(**{"metric": "valid_accuracy", **stopping})
    t = trainer(net(), callbacks=[scores, early], **(options or {}))
    t.fit(blobs(), epochs=len(values) if epochs is None else epochs, batch_size=30)
    return t, scores, early


def test_events_come_in_their_order():
    notes = Notes()
    t = trainer(callbacks=[notes])
    t.fit(blobs(rows=20), epochs=2, batch_size=10)
    epoch = ["step 1", "step 2"]
    first = [
        "fit begins",
        "epoch 0 begins",
        *epoch,
        "epoch 0 ends",
        "epoch 1 begins",
        *epoch,
        "epoch 1 ends",
        "fit ends",
    ]
    assert notes.events == first
    t.fit(blobs(rows=20), epochs=3, batch_size=10)
    assert notes.events[len(first) :] == ["fit begins", "epoch 2 begins", *epoch, "epoch 2 ends", "fit ends"]


def test_an_object_that_served_another_training_begins_anew():
    def given():
        stopping, plateau = EarlyStopping(2, metric="train_loss"), bn.schedules.Plateau(1e-2, patience=0, threshold=0.9)
        return {"callbacks": [stopping], "watch": bn.training.Activations(), "learning_rate": plateau}

    def trained(seed, options):
        made = trainer(net(seed=seed), **options)
        made.fit(blobs(), epochs=4, batch_size=30)
        return made

    shared = given()
    first, second = trained(0, shared), trained(1, shared)
    assert outcome(second) == outcome(trained(1, given()))
    with pytest.raises(InputError, match=r"^Trainer: this Activations has served another training since this one"):
        first.fit(blobs(), epochs=6, batch_size=30)


def test_callbacks_run_in_order_and_savers_last(tmp_path):
    """A checkpoint written before another callback had its turn would lack what that one has just learnt."""
    turns = []

    class Named(Callback):
        def __init__(self, name):
            self.name = name

        def epoch_ends(self, *_):
            turns.append(self.name)

    class Saver(Checkpointing):
        def epoch_ends(self, *_):
            turns.append("saver")

    trainer(callbacks=[Saver(tmp_path / "a"), Named("one"), Named("two")]).fit(blobs(), epochs=1)
    assert turns == ["one", "two", "saver"]


def test_after_an_epoch_the_trainer_is_before_the_next():
    seen = []

    class Where(Callback):
        def epoch_ends(self, trainer, record):
            seen.append((trainer.epoch, trainer.group, trainer.history[-1] is record))

    trainer(callbacks=[Where()]).fit(blobs(), epochs=2)
    assert seen == [(1, 0, True), (2, 0, True)]


def test_stop_ends_after_the_epoch_with_its_reason_shown(capsys):
    notes = Notes()
    t = trainer(progress="plain", callbacks=[notes, After(2, lambda t: t.stop("enough is enough"))])
    assert len(t.fit(blobs(rows=40), epochs=9, batch_size=10)) == 1
    assert notes.events[-3:] == ["step 4", "epoch 0 ends", "fit ends"]
    assert "stopped: enough is enough\n" in capsys.readouterr().err
    assert len(t.fit(blobs(rows=40), epochs=3, batch_size=10)) == 3


def test_an_exception_of_a_callback_frees_the_terminal(capsys):
    def fail(_):
        raise RuntimeError("of the callback's own")

    with pytest.raises(RuntimeError, match="of the callback's own"):
        trainer(progress="bar", callbacks=[After(2, fail)]).fit(blobs(), epochs=1, batch_size=10)
    assert capsys.readouterr().err.count("\x1b[?25h") == 1


# -- early stopping ----------------------------------------------------------------------------------------------------


def test_early_stopping_restores_the_best_after_its_patience():
    t, scores, early = scored([0.5, 0.8, 0.7, 0.8, 0.6, 0.9], patience=3)
    assert len(t.history) == 5
    assert (early.best, early.best_epoch, early.waited) == (0.8, 1, 3)
    assert network_bits(t.network) == scores.bits[1]
    different = {name for name in scores.bits[1] if scores.bits[1][name] != scores.bits[4][name]}
    assert {"0.W", "1.gamma", "1.running_mean", "1.running_var"} <= different
    assert t.stopping == "valid_accuracy has not improved for 3 epochs; best 0.8 at 1"


def test_the_best_is_restored_at_the_last_epoch_if_wanted():
    t, scores, _ = scored([0.5, 0.9, 0.6], patience=5)
    assert (len(t.history), t.stopping) == (3, "")
    assert network_bits(t.network) == scores.bits[1]
    t, scores, _ = scored([0.5, 0.9, 0.6], patience=5, restore_best=False)
    assert network_bits(t.network) == scores.bits[2]


def test_a_margin_asks_for_more_than_itself():
    assert len(scored([0.5, 0.75, 0.75, 1.1], patience=2, margin=0.25)[0].history) == 3
    assert len(scored([0.5, 0.76, 1.1, 1.1], patience=2, margin=0.25)[0].history) == 4


def test_the_name_of_a_metric_says_whether_higher_is_better():
    assert scored([3.0, 2.0, 1.0], patience=9, higher_is_better=False)[2].best == 1.0
    assert not EarlyStopping(metric="valid_loss").higher
    assert EarlyStopping(metric="valid_top_2_accuracy").higher


@pytest.mark.parametrize("first", [nan, -inf, inf])
def test_a_first_figure_that_is_not_finite_is_ignored(first):
    values = [first, 0.4, 0.6, 0.5] if first != inf else [inf, -0.4, -0.6, -0.5]
    t, scores, early = scored(values, patience=4, higher_is_better=first != inf)
    assert (early.best, early.best_epoch) == (values[2], 2)
    assert network_bits(t.network) == scores.bits[2]


def test_figures_of_nan_stop_it_and_restore_nothing():
    t, scores, early = scored([nan] * 5, patience=2)
    assert len(t.history) == 2
    assert t.stopping.endswith("it never was a number")
    assert early.best is None
    assert network_bits(t.network) == scores.bits[1]


def test_the_best_averaged_weights_are_restored_too():
    """Validation used the averages; the best of them are what evaluation must see in the end."""
    t, scores, _ = scored([0.5, 0.9, 0.6, 0.7], patience=5, options={"average": bn.Average(0.8)})
    assert network_bits(t.network) == scores.bits[1]
    for flat, best, last in zip(t.step.state.averaged, scores.averages[1], scores.averages[3], strict=True):
        assert flat.array.tobytes() == best.tobytes() != last.tobytes()


def test_an_unknown_metric_is_named_with_those_that_exist():
    with pytest.raises(InputError, match=r"must be one of .*train_loss.*, got 'valid_loss'.* need validation data"):
        trainer(callbacks=[EarlyStopping()]).fit(blobs(), epochs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "patience must .* got 0"),
        ({"margin": -1}, "margin must .* got -1"),
        ({"margin": nan}, "margin must .* got nan"),
    ],
)
def test_early_stopping_refuses_what_makes_no_sense(options, message):
    with pytest.raises(InputError, match=message):
        EarlyStopping(**options)


def test_a_resumed_training_that_had_stopped_stays_stopped(tmp_path):
    """Killed between the epoch's end and the restoring of the best: the run that goes on must end as it would have."""
    file = tmp_path / "run.safetensors"

    def make(*more):
        return trainer(net(), callbacks=[Checkpointing(file), Scores(0.9, 0.8, 0.7, 1.0), early(), *more])

    def early():
        return EarlyStopping(2, metric="valid_accuracy")

    class Killed(Exception):
        pass

    class Kill(Checkpointing):
        def epoch_ends(self, trainer, _):
            if trainer.stopping:
                raise Killed

    whole = make()
    whole.fit(blobs(), epochs=4, batch_size=30)
    assert len(whole.history) == 3
    first = make(Kill(None))
    with pytest.raises(Killed):
        first.fit(blobs(), epochs=4, batch_size=30)
    second = make()
    second.resume(file)
    second.fit(blobs(), epochs=4, batch_size=30)
    assert outcome(second) == outcome(whole)


# -- checkpoints and state ---------------------------------------------------------------------------------------------


def test_checkpointing_saves_after_steps_and_epochs(tmp_path, monkeypatch):
    saved = []
    t = trainer(callbacks=[Checkpointing(tmp_path, every_steps=2)])
    monkeypatch.setattr(t, "save", lambda path: saved.append((path, t.epoch, t.group)))
    t.fit(blobs(rows=50), epochs=2, batch_size=10)
    assert [s[1:] for s in saved] == [(0, 2), (0, 4), (1, 0), (1, 2), (1, 4), (2, 0), (2, 0)]
    assert {s[0] for s in saved} == {tmp_path}
    with pytest.raises(InputError, match=r"every_steps must .* got -1"):
        Checkpointing(tmp_path, every_steps=-1)


def test_the_checkpoint_of_the_end_holds_the_best_weights(tmp_path):
    scores = Scores(0.5, 0.9, 0.6)
    early = EarlyStopping(5, metric="valid_accuracy")
    trainer(net(), callbacks=[Checkpointing(tmp_path), scores, early]).fit(blobs(), epochs=3, batch_size=30)
    assert network_bits(bn.load(tmp_path)) == scores.bits[1]


class Memory(Callback):
    """A callback with a state."""

    def __init__(self, name="memory"):
        self.name, self.seen, self.rows = name, 0.0, np.zeros(3)

    def epoch_ends(self, _, record):
        self.seen, self.rows = self.seen + record["train_loss"], self.rows + 1

    def state_dict(self):
        return {"seen": self.seen, "worst": inf}

    def tensors(self):
        return {"rows": self.rows}

    def load(self, state, tensors):
        assert state["worst"] == inf
        self.seen, self.rows = state["seen"], tensors["rows"]


def test_the_state_of_every_callback_is_saved_under_its_name(tmp_path):
    mine = [Memory("a"), Memory("b"), Notes()]
    t = trainer(callbacks=mine)
    t.fit(blobs(), epochs=2)
    mine[1].seen = 7.0
    t.save(tmp_path)
    others = [Memory("b"), Memory("a")]
    trainer(callbacks=others).resume(tmp_path)
    assert (others[0].seen, others[1].seen) == (7.0, mine[0].seen)
    assert others[0].rows.tolist() == [2, 2, 2]


@pytest.mark.parametrize("callbacks", [[Memory(""), Notes()], [Memory(), Memory()]])
def test_states_of_one_name_are_an_error(callbacks, tmp_path):
    with pytest.raises(InputError, match=r"state of a Memory called '.*' cannot be saved. Give it a `name`"):
        trainer(callbacks=callbacks).save(tmp_path)


def test_a_callback_that_is_new_keeps_its_state_on_resumption(tmp_path):
    t = trainer()
    t.fit(Rows(*blobs()), epochs=1)
    t.save(tmp_path)
    fresh = EarlyStopping(3, metric="train_loss")
    other = trainer(callbacks=[fresh])
    other.resume(tmp_path)
    assert (fresh.best, fresh.waited) == (None, 0)
    assert len(other.fit(blobs(), epochs=2)) == 2
