"""Steps that are not finite, as a fit meets them: skipped, counted and reported; ten in a row end it."""

import re
from math import inf, nan

import numpy as np
import pytest

import bnengine as bn
from bnengine.data import order
from bnengine.errors import TrainingFailed
from bnengine.training import Callback, EarlyStopping, Trainer
from tests.training.support import Rows, blobs, net, network_bits, outcome, trainer


def spoilt(at, value=nan, rows=60, batch=5):
    """A source whose batches of the given numbers, in the first epoch of seed 0, hold a value that is not finite."""
    x, y = blobs(rows=rows)
    positions = order(rows, seed=0, epoch=0)
    for i in at:
        x[positions[i * batch + 1], 2] = value
    return Rows(x, y)


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_one_bad_batch_is_skipped_counted_and_reported(value, capsys):
    t = trainer(net(dropout=0.2), progress="plain", average=bn.Average(0.9))
    record = t.fit(spoilt([3], value), epochs=1, batch_size=5)[0]
    assert (record["steps"], record["skipped_steps"]) == (11, 1)
    log = capsys.readouterr().err
    assert "step 4 of the training was not finite and was skipped: nothing changed\n" in log
    assert "skipped steps 1" in log
    assert all(np.isfinite(array).all() for array in t.network.state_dict().values())


def test_a_bad_batch_leaves_the_training_without_that_batch():
    source = spoilt([3])
    t = trainer(average=bn.Average(0.9))
    t.fit(source, epochs=1, batch_size=5)
    without = trainer(average=bn.Average(0.9))
    without.step.schedule([0.01])
    for i, rows in enumerate(np.split(order(60, seed=0, epoch=0), 12)):
        if i != 3:
            without.step([source.take(rows)])
    assert network_bits(t.network) == network_bits(without.network)
    mine, others = t.step.state_dict(), without.step.state_dict()
    assert all(mine[k].tobytes() == others[k].tobytes() for k in mine if k not in ("counters",))


def test_a_bad_batch_out_of_micro_batches_skips_the_whole_step():
    t = trainer(accumulate=3)
    record = t.fit(spoilt([3]), epochs=1, batch_size=5)[0]
    assert (record["steps"], record["skipped_steps"]) == (3, 1)


def test_a_training_whose_last_step_was_skipped_can_be_saved(tmp_path):
    """The last gradient's norm is then not finite, which JSON cannot hold."""
    t = trainer(callbacks=[EarlyStopping(3, metric="gradient_norm")])
    t.fit(spoilt([11]), epochs=1, batch_size=5)
    assert not np.isfinite(t.history[0]["gradient_norm"])
    t.save(tmp_path / "run.safetensors")
    other = trainer(callbacks=[EarlyStopping(3, metric="gradient_norm")])
    other.resume(tmp_path / "run.safetensors")
    assert outcome(other) == outcome(t)


class Rarely(Trainer):
    """Reads the counters at the ends of epochs only, as a device would be."""

    def _reads_now(self):
        return False


def test_skipped_steps_are_reported_if_counters_are_read_late(capsys):
    t = Rarely(net(), progress="plain")
    assert t.fit(spoilt([3, 8]), epochs=1, batch_size=5)[0]["skipped_steps"] == 2
    assert "2 of the steps up to step 12 of the training were not finite and were skipped" in capsys.readouterr().err
    t = Rarely(net(), progress="plain")
    t.fit(spoilt([3]), epochs=1, batch_size=5)
    assert "1 of the steps up to step 12 of the training were not finite" in capsys.readouterr().err
    with pytest.raises(TrainingFailed, match="10 steps in a row were not finite; the batch is unknown"):
        Rarely(net(), progress="quiet").fit(spoilt(range(1, 11)), epochs=1, batch_size=5)


def test_nine_skipped_steps_in_a_row_are_borne_and_ten_are_not():
    t = trainer()
    assert t.fit(spoilt(range(9)), epochs=1, batch_size=5)[0]["skipped_steps"] == 9
    with pytest.raises(TrainingFailed, match=r"^fit: 10 steps in a row were not finite; the input holds nan at"):
        trainer().fit(spoilt(range(10)), epochs=1, batch_size=5)


def test_skips_that_are_not_in_a_row_do_not_add_up():
    assert trainer().fit(spoilt([0, 1, 2, 3, 4, 6, 7, 8, 9, 10]), epochs=1, batch_size=5)[0]["skipped_steps"] == 10


def test_ten_in_a_row_are_counted_over_the_end_of_an_epoch():
    x, y = blobs(rows=30)
    source = Rows(np.full_like(x, nan), y)
    t = trainer()
    with pytest.raises(TrainingFailed, match="10 steps in a row"):
        t.fit(source, epochs=3, batch_size=5)
    assert (t.epoch, t.group) == (1, 4)


def test_weights_of_nan_fail_with_their_name():
    network = net()
    network.named_parameters()["3.W"][2, 1] = nan
    t = trainer(network, average=bn.Average(0.9))
    before = outcome(t)
    with pytest.raises(TrainingFailed, match=r"parameter 3\.W holds nan at \(2, 1\)") as failed:
        t.fit(blobs(), epochs=2, batch_size=5)
    assert "The network is unchanged by them. Lower the learning rate" in str(failed.value)
    after = outcome(t)
    assert after["network"] == before["network"]
    changed = {name for name in before["arrays"] if before["arrays"][name] != after["arrays"][name]}
    assert changed == {"step.counters", "step.norm"}


def test_an_exploding_rate_fails_after_the_last_good_step():
    states = {}

    class Watch(Callback):
        def step_ends(self, trainer):
            if trainer.step.report().ok:
                states["good"] = network_bits(trainer.network)

    network = bn.Sequential(bn.Dense(6, 8), bn.Activation("relu"), bn.Dense(8, 3), backend="numpy")
    t = trainer(network, "sgd", learning_rate=1e25, callbacks=[Watch()])
    with pytest.raises(TrainingFailed, match=r"10 steps in a row.*(parameter|output of|loss|gradient)"):
        t.fit(blobs(), epochs=4, batch_size=5)
    assert network_bits(t.network) == states["good"]


def test_a_layer_that_overflows_is_named():
    network = bn.Sequential(bn.Dense(6, 8), bn.Dense(8, 3), backend="numpy")
    network.named_parameters()["1.W"][...] = 3e38
    with pytest.raises(TrainingFailed, match=re.escape("the output of Dense(8, 3), layer 1 holds")):
        trainer(network).fit(blobs(), epochs=2, batch_size=5)


def test_whoever_cures_the_cause_of_a_failure_can_go_on():
    source = spoilt(range(10))
    t = trainer()
    with pytest.raises(TrainingFailed):
        t.fit(source, epochs=1, batch_size=5)
    source.x[...] = np.nan_to_num(source.x)
    record = t.fit(source, epochs=1, batch_size=5)[0]
    assert (record["steps"], record["skipped_steps"]) == (2, 10)
