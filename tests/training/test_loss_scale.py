"""The loss scale: when it falls and grows, which skips it explains, and that a skip changes nothing else."""

import re
from typing import Any

import numpy as np
import pytest

import bnengine as bn
from bnengine import ops
from bnengine.data import Batch
from bnengine.errors import InputError, TrainingFailed
from bnengine.training import Step
from bnengine.training.scaling import get_loss_scale
from tests.training.support import Rows, blobs, net, network_bits, trainer

X, Y = blobs(rows=24)
BATCH = Batch(X, Y, None, np.arange(24))


def made(**options: Any) -> Step:
    step = Step(net(precision="float16"), bn.Adam(), bn.SoftmaxCrossEntropy(), **options)
    step.schedule([0.01])
    return step


def held(step: Step) -> dict[str, bytes]:
    """Every bit that a skipped step must leave: all but counters and scaling."""
    state = {k: a.tobytes() for k, a in step.state_dict().items() if k not in ("counters", "norm", "scaling")}
    return state | network_bits(step.network) | {"copy16": step.network.copy16.array.tobytes()}


def test_gradients_that_overflow_change_nothing_but_the_scale():
    step = made(loss_scale=bn.LossScale(2.0**30), average=bn.Average(0.5))
    before = held(step)
    for n in range(1, 4):
        step([BATCH])
        report = step.report()
        assert np.isfinite(report.loss)
        assert not np.isfinite(report.norm)
        assert held(step) == before
        assert (report.ok, report.steps, report.skipped, report.loss_scale) == (False, 0, n, 2.0 ** (30 - n))
    while not step.report().ok:
        step([BATCH])
    found = step.report()
    assert found.loss_scale >= 1024
    assert held(step) != before
    # the step that was good is the step of that scale from the beginning on
    other = made(loss_scale=found.loss_scale, average=bn.Average(0.5))
    other([BATCH])
    assert held(other) == held(step)


def test_a_planted_overflow_is_one_skip_and_one_halving():
    good, planted = made(loss_scale=bn.LossScale(64.0)), made(loss_scale=bn.LossScale(64.0))
    large = BATCH._replace(weights=np.where(np.arange(24) == 3, 1.0, 0.0), x=X * 1.0)
    for t in range(6):
        good([BATCH])
        planted([BATCH])
        if t == 2:
            planted.state.scaling.array[0] = 2.0**40
            before = held(planted)
            planted([large])
            assert held(planted) == before
            assert planted.report().loss_scale == 2.0**39
            planted.state.scaling.array[0] = 32.0
    assert planted.report().skipped == 1
    assert good.report().skipped == 0
    assert network_bits(planted.network) == network_bits(good.network)


def test_the_scale_grows_after_so_many_good_steps_and_no_others():
    step, seen = made(loss_scale=bn.LossScale(4.0, growth=8.0, every=3)), []
    for _ in range(7):
        step([BATCH])
        seen.append(step.report().loss_scale)
    assert seen == [4.0, 4.0, 32.0, 32.0, 32.0, 256.0, 256.0]
    bad = BATCH._replace(x=np.where(X[3, 2] == X, np.nan, X))
    step([bad])
    assert (step.report().ok, step.report().loss_scale) == (False, 256.0)  # the loss itself was not finite
    step([BATCH])
    assert step.report().loss_scale == 256.0
    step([BATCH])
    assert step.report().loss_scale == 2048.0


def scaling(*values: float) -> np.ndarray:
    return np.asarray(values, np.float32)


@pytest.mark.parametrize(
    ("before", "kind", "after"),
    [
        ((8, 3, 2, 5), "good", (8, 4, 0, 5)),
        ((8, 4, 0, 5), "good", (16, 0, 0, 5)),
        ((8, 3, 2, 5), "overflow", (4, 0, 2, 5)),
        ((2, 3, 2, 5), "overflow", (1, 0, 2, 5)),
        ((1, 3, 5, 5), "overflow", (0.5, 0, 6, 6)),
        ((8, 3, 2, 5), "loss", (8, 3, 3, 5)),
        ((8, 3, 7, 7), "pending", (8, 3, 8, 8)),
        ((2.0**64, 4, 0, 0), "good", (2.0**64, 0, 0, 0)),
        ((2.0**-24, 0, 0, 0), "overflow", (2.0**-24, 0, 1, 1)),
    ],
)
def test_each_case_by_hand(before, kind, after):
    loss, gradients, pending = np.ones(1, np.float32), np.ones(3, np.float32), np.zeros((1, 3, 2))
    {"loss": loss, "overflow": gradients, "pending": pending[0, 0]}.get(kind, np.zeros(1))[0] = np.inf
    verdict = ops.check_step(loss, gradients, pending, scaling(*before), every=5)
    assert verdict.scaling.tolist() == list(after)
    assert verdict.ok.tolist() == [kind == "good"]


def test_norm_and_clip_factor_leave_out_the_scale():
    given = np.ones(1, np.float32), np.asarray([3.0, 4.0], np.float32) * 512, np.zeros((1, 3, 0))
    for clip, factor in ((None, 1.0), (10.0, 1.0), (2.5, 0.5)):
        verdict = ops.check_step(*given, scaling(512, 0, 0, 0), clip=clip)
        assert verdict.norm.tolist() == [5.0]
        assert verdict.factor.tolist() == [factor / 512]


# -- as a fit meets it ------------------------------------------------------------------------------------------------


def test_a_scale_far_too_large_does_not_end_a_training(capsys):
    """2^30 takes more than ten skips in a row to a scale that float16 gradients bear."""
    t = trainer(net(precision="float16"), progress="plain", loss_scale=bn.LossScale(2.0**36))
    x, y = blobs()
    record = t.fit((x, y), epochs=2, batch_size=6)[-1]
    assert 10 < record["skipped_steps"] < 30
    assert record["steps"] + record["skipped_steps"] == 30
    assert (t.step.report().longest_skip, t.step.report().skipped_in_a_row) == (0, 0)
    message = capsys.readouterr().err
    halved = "step 1 of the training was not finite and was skipped: nothing changed; the loss scale is "
    assert f"{halved}{2.0**35:g} now\n" in message
    assert record["loss_scale"] == t.step.report().loss_scale


def test_ten_skips_in_a_row_below_scale_1_end_a_training():
    """The gradient of a mean of squares that is too large for float16 at any scale but a tiny one."""
    layers = bn.Dense(6, 8), bn.BatchNorm(8), bn.Activation("relu"), bn.Dense(8, 1)
    network = bn.Sequential(*layers, backend="numpy", precision="float16")
    x, _ = blobs()
    y = np.full((90, 1), 3e9)
    t = trainer(network, loss="mean_squared_error", loss_scale=bn.LossScale(4.0))
    before = network_bits(network)
    message = "10 steps in a row were not finite, without those that only lowered a loss scale above 1 (it is "
    with pytest.raises(TrainingFailed, match=re.escape(message)):
        t.fit((x, y), epochs=1, batch_size=5)
    assert network_bits(network) == before
    report = t.step.report()
    assert (report.skipped, report.loss_scale) == (12, 4.0 * 2.0**-12)
    assert (report.longest_skip, report.skipped_in_a_row) == (0, 0)  # forgotten: who cures the cause can go on


def test_nonfinite_data_end_it_and_leave_the_scale_alone():
    x, y = blobs()
    x[:] = np.nan
    t = trainer(net(precision="float16"))
    with pytest.raises(TrainingFailed, match=r"10 steps in a row were not finite.*the input holds nan"):
        t.fit(Rows(x, y), epochs=1, batch_size=5)
    assert (t.step.report().skipped, t.step.report().loss_scale) == (10, 65536.0)


def test_a_scale_that_stays_explains_no_skip():
    t = trainer(net(precision="float16"), loss_scale=2.0**60)
    x, y = blobs()
    with pytest.raises(TrainingFailed, match="10 steps in a row were not finite"):
        t.fit((x, y), epochs=1, batch_size=5)


# -- settings ---------------------------------------------------------------------------------------------------------


def test_only_float16_is_scaled_unasked():
    assert get_loss_scale("auto", "float16") == bn.LossScale(65536.0, 2.0, 0.5, 2000)
    for precision in ("highest", "tf32", "bfloat16"):
        assert get_loss_scale("auto", precision) is None
    for precision in ("highest", "float16"):
        assert get_loss_scale(None, precision) is None
        assert get_loss_scale(8, precision) == bn.LossScale(8.0, growth=1.0, backoff=1.0)
        assert get_loss_scale(bn.LossScale(2.0), precision) == bn.LossScale(2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"initial": 0.0},
            "initial must be a finite number of at least 5.96046e-08 and of at most 1.84467e+19, got 0.0",
        ),
        ({"initial": float("inf")}, "initial must be a finite number"),
        ({"initial": float("nan")}, "initial must be a finite number"),
        ({"growth": 0.5}, "growth must be a finite number of at least 1"),
        ({"backoff": 2.0}, "backoff must be a finite number"),
        ({"every": 0}, "every must be an integer from 1 to 16777216, got 0"),
        ({"every": True}, "every must be an integer"),
        ({"growth": "2"}, "growth must be a finite number"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=re.escape(f"LossScale: {message}")):
        bn.LossScale(**options)


@pytest.mark.parametrize("given", ["dynamic", True, [1.0]])
def test_a_loss_scale_that_is_none_is_refused(given):
    with pytest.raises(InputError, match=r"loss_scale must be a finite number .* Or pass 'auto', None or a LossScale"):
        trainer(loss_scale=given)


def test_a_state_without_a_scale_is_not_taken_for_one_with():
    step, other = made(), made(loss_scale=None)
    with pytest.raises(InputError, match="scaling missing or unknown"):
        step.load_state_dict(other.state_dict())
