"""The training step: what it computes, its schedule, clipping and weights, its errors and what it reports."""

import numpy as np
import pytest

from bnengine.data import Batch
from bnengine.errors import InputError
from bnengine.layers import Activation, BatchNorm, Dense, Dropout
from bnengine.losses import MeanSquaredError, SoftmaxCrossEntropy
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import SGD, Adam
from bnengine.training.state import Average, Report
from bnengine.training.step import Step
from tests.network.support import batch, bits, step_of


def line(**options):
    """y = x W + b, one input and one output, W = 2 and b = 1: every figure of a step can be worked out by hand."""
    network = Sequential(Dense(1, 1), backend="numpy", dtype="float64", **options)
    network.named_parameters()["0.W"][...] = 2.0
    network.named_parameters()["0.b"][...] = 1.0
    return network


# x = 1, 3 gives 3, 7; targets 2, 9: errors 1, -2; loss (1 + 4)/2; db = (2*1 + 2*-2)/2 = -1; dW = (2*1 - 4*3)/2 = -5
TWO = batch(np.asarray([[1.0], [3.0]]), np.asarray([[2.0], [9.0]]))


def values(network):
    parameters = network.named_parameters()
    return float(parameters["0.W"][0, 0]), float(parameters["0.b"][0])


def test_a_step_of_gradient_descent_by_hand():
    step = step_of(line(), rate=0.1)
    step([TWO])
    assert values(step.network) == (2.5, 1.1)
    report = step.report()
    assert report.loss == 2.5
    assert report.norm == pytest.approx(26**0.5, rel=1e-15)
    assert report == Report(report.loss, report.norm, True, 1, 0, 0, 0)


def test_before_the_first_step_the_report_is_of_nothing():
    assert step_of(line()).report() == Report(0.0, 0.0, True, 0, 0, 0, 0)


def test_without_a_schedule_the_learning_rate_is_zero():
    step = Step(line(), SGD(), MeanSquaredError())
    step([TWO])
    assert values(step.network) == (2.0, 1.0)


@pytest.mark.parametrize(("clip", "factor"), [(1.0, 26**-0.5), (26**0.5, 1.0), (100.0, 1.0), (None, 1.0)])
def test_clipping_scales_gradients_and_reports_their_norm(clip, factor):
    step = step_of(line(), rate=0.1, clip_norm=clip)
    step([TWO])
    np.testing.assert_allclose(values(step.network), (2 + 0.5 * factor, 1 + 0.1 * factor), rtol=1e-15)
    assert step.report().norm == pytest.approx(26**0.5, rel=1e-15)


def test_each_successful_step_takes_the_next_rate():
    step, moves = step_of(line()), []
    step.schedule([0.1, 0.0, 0.2])
    for _ in range(5):
        before = np.asarray(values(step.network))
        step([TWO])
        gradient = np.asarray([step.state.gradients[h].ravel()[0] for h in step.network.named_handles().values()])
        moves.append((before - values(step.network)) / gradient)
    np.testing.assert_allclose(np.asarray(moves)[:, 0], [0.1, 0.0, 0.2, 0.2, 0.2], atol=1e-12)


def test_a_skipped_step_takes_no_rate_from_the_schedule():
    step = step_of(line())
    step.schedule([0.1, 0.0])
    step([TWO._replace(x=np.asarray([[np.nan], [1.0]]))])
    assert values(step.network) == (2.0, 1.0)
    step([TWO])
    assert values(step.network) == (2.5, 1.1)


def test_skipped_steps_leave_their_rates_to_later_ones():
    step, found = step_of(Sequential(Dense(1, 1, bias=False), backend="numpy", dtype="float64")), []
    step.schedule([0.1, 0.2, 0.3])
    weight = step.network.named_parameters()["0.W"]
    good = batch(np.ones((1, 1)), np.ones((1, 1)))
    for skipped in (True, True, False, False, False, False):
        weight[...] = 2.0
        step([good._replace(x=good.x * np.nan) if skipped else good])
        found.append((2.0 - float(weight[0, 0])) / 2)  # (2 - 1) squared has the gradient 2
    np.testing.assert_allclose(found, [0, 0, 0.1, 0.2, 0.3, 0.3], rtol=1e-14)


def test_a_new_schedule_begins_at_its_first_rate():
    step = step_of(line())
    step.schedule([0.0, 0.0, 0.0])
    step([TWO])
    step.schedule([0.1, 0.0])
    step([TWO])
    assert values(step.network) == (2.5, 1.1)


def test_the_bias_correction_goes_on_counting_over_schedules():
    """Two schedules of two steps are one of four: t of Adam counts successful steps from the first."""
    results = []
    for halves in (True, False):
        step = step_of(line(), Adam())
        step.schedule([0.1, 0.2] if halves else [0.1, 0.2, 0.3, 0.4])
        for i in range(4):
            if halves and i == 2:
                step.schedule([0.3, 0.4])
            step([TWO])
        results.append(bits(step))
    assert results[0] == results[1]


@pytest.mark.parametrize("given", [[0.1], [0.1] * 3, [0.1] * 150])
def test_where_the_rate_stays_the_bias_correction_does_not(given):
    """c = 1 - beta^t goes on changing after the last rate; with gradients of +-1 the moves of Adam show it."""
    steps = [step_of(line(), Adam(beta1=0.5, beta2=0.9)) for _ in range(2)]
    steps[0].schedule(given)
    steps[1].schedule([0.1] * 150)
    nan = TWO._replace(x=TWO.x * np.nan)
    for i in range(150):
        for step in steps:
            step([TWO if i % 10 else nan])
    assert bits(steps[0]) == bits(steps[1])
    assert steps[0].report().steps == 135


def test_skips_in_a_row_can_be_forgotten():
    step = step_of(line())
    nan = TWO._replace(x=TWO.x * np.nan)
    for one in (nan, nan, TWO, nan):
        step([one])
    step.state.forget_skips()
    assert step.report()[3:7] == (1, 3, 0, 0)
    step([nan])
    assert step.report()[3:7] == (1, 4, 1, 1)


@pytest.mark.parametrize(
    "rates", [[], [0.1, float("nan"), 0.1], [float("inf"), 0.1], [0.1, float("inf")], [-0.1], [0.1, -1e-9]]
)
def test_a_negative_or_nonfinite_learning_rate_is_an_error(rates):
    with pytest.raises(
        InputError, match=r"^Step: learning rates must be at least one finite number of at least 0, got \["
    ):
        step_of(line()).schedule(rates)


def test_the_error_of_a_long_schedule_shows_its_beginning():
    with pytest.raises(InputError, match=r"got \[0\.1, 0\.2, 0\.3, 0\.4\]\."):
        step_of(line()).schedule([0.1, 0.2, 0.3, 0.4, 0.5, -1.0])


@pytest.mark.parametrize("clip", [0.0, -1.0, float("inf"), float("nan")])
def test_a_clip_norm_that_is_not_above_zero_is_an_error(clip):
    with pytest.raises(InputError, match=r"^Step: clip_norm must be a finite number above 0, got .*\. Or pass None"):
        Step(line(), SGD(), MeanSquaredError(), clip_norm=clip)


def test_other_options_that_are_unknown_are_errors():
    with pytest.raises(InputError, match=r"^Step: statistics must be 'merged' or 'per_micro_batch', got 'sum'"):
        Step(line(), SGD(), MeanSquaredError(), statistics="sum")
    with pytest.raises(InputError, match=r"^Average: decay must be .* below 1, got 1\.0"):
        Average(1.0)
    with pytest.raises(InputError, match=r"^Average: decay must be .* got -0\.1"):
        Average(-0.1)
    with pytest.raises(InputError, match=r"^Average: statistics must be 'averaged' or 'recomputed', got 'none'"):
        Average(statistics="none")
    assert (Average().decay, Average().statistics, Average(0.0).decay) == (0.999, "averaged", 0.0)


# -- weights -----------------------------------------------------------------------------------------------------------


def test_weights_of_samples_weigh_the_mean():
    step = step_of(line(), rate=0.1)
    step([TWO._replace(weights=np.asarray([3.0, 1.0]))])  # loss (3*1 + 4)/4; db (3*2 - 4)/4; dW (3*2 - 12)/4
    assert step.report().loss == 1.75
    np.testing.assert_allclose(values(step.network), (2 + 0.15, 1 - 0.05), rtol=1e-15)


def test_a_sample_of_weight_zero_is_as_good_as_absent():
    steps = [step_of(line()), step_of(line())]
    steps[0](
        [batch(np.asarray([[1.0], [3.0], [50.0]]), np.asarray([[2.0], [9.0], [0.0]]), weights=np.asarray([1.0, 1, 0]))]
    )
    steps[1]([TWO])
    assert bits(steps[0]) == bits(steps[1])


@pytest.mark.parametrize("weights", [[np.nan, 1.0], [np.inf, 1.0], [1.0, -2.0], [1.0, -1.0], [2.0, -1.0]])
def test_weights_below_zero_or_not_finite_are_an_error(weights):
    step = step_of(line())
    before = bits(step)
    with pytest.raises(InputError, match=r"^MeanSquaredError: weights must be finite and at least 0, got (nan|inf|-)"):
        step([TWO._replace(weights=np.asarray(weights))])
    assert bits(step) == before
    assert step.report().steps == 0


def test_weights_may_be_zero_in_one_micro_batch_of_two():
    steps = [step_of(line()), step_of(line())]
    steps[0]([TWO, TWO._replace(x=TWO.x * 9, weights=np.zeros(2))])
    steps[1]([TWO])
    assert bits(steps[0]) == bits(steps[1])


def test_weights_of_samples_weigh_every_row_of_an_image(rng):
    """A sample of h rows, weighted, is h samples of that weight."""
    x, y, weights = rng.standard_normal((4, 3, 5)), rng.integers(0, 2, (4, 3)), np.asarray([1.0, 0.5, 2.0, 0.0])
    for loss, target in ((SoftmaxCrossEntropy(), y), (MeanSquaredError(), rng.standard_normal((4, 3, 2)))):
        steps = []
        for flat in (False, True):
            step = step_of(Sequential(Dense(5, 2), backend="numpy", dtype="float64"), loss=loss)
            if flat:
                step([batch(x.reshape(12, 5), target.reshape(12, *target.shape[2:]), weights=np.repeat(weights, 3))])
            else:
                step([batch(x, target, weights=weights)])
            steps.append(step)
        assert steps[0].report().loss == pytest.approx(steps[1].report().loss, rel=1e-14)
        np.testing.assert_allclose(*(s.network.parameters.array for s in steps), rtol=1e-13)


# -- what does not fit -------------------------------------------------------------------------------------------------


def test_no_micro_batches_is_an_error():
    with pytest.raises(InputError, match=r"^Step: no micro-batches. Pass at least one"):
        step_of(line())([])


@pytest.mark.parametrize(
    "change",
    [
        {"y": np.asarray([[2.0]])},
        {"samples": np.arange(3)},
        {"samples": np.arange(2)[:, None]},
        {"x": np.ones((3, 1))},
    ],
)
def test_rows_that_do_not_belong_together_are_an_error(change):
    step = step_of(line())
    before = bits(step)
    with pytest.raises(
        InputError, match=r"^Step: targets and sample indices must be one per row \(.\), got shapes .* and "
    ):
        step([TWO._replace(**change)])
    assert bits(step) == before


def test_weights_of_another_number_than_the_samples_are_an_error():
    with pytest.raises(
        InputError,
        match=r"^MeanSquaredError: weights must be one per sample, \(2,\), got shape \(3,\) for targets .*\(2, 1\)",
    ):
        step_of(line())([TWO._replace(weights=np.ones(3))])


@pytest.mark.parametrize(
    ("loss", "shape"), [(SoftmaxCrossEntropy(), (4, 2)), (MeanSquaredError(), (4, 2)), (MeanSquaredError(), (4, 1, 2))]
)
def test_targets_with_other_axes_than_the_output_are_an_error(loss, shape):
    step = step_of(Sequential(Dense(5, 2), backend="numpy"), loss=loss)
    y = np.zeros(shape, np.int64 if loss.task == "classification" else np.float64)
    x = np.ones((4, 5)) if loss.task == "classification" else np.ones((4, 3, 5))
    with pytest.raises(InputError, match=r"^Step: targets must be a class per row, .*got shape"):
        step([batch(x, y)])


def test_a_loss_that_does_not_fit_the_network_is_an_error():
    network = Sequential(Dense(5, 3), backend="numpy")
    with pytest.raises(InputError, match=r"class_weights must be one per output \(3\), got 2"):
        Step(network, SGD(), SoftmaxCrossEntropy(class_weights=(1.0, 2.0)))


def test_an_error_in_a_batch_leaves_the_step_usable():
    steps = [step_of(line(), Adam()), step_of(line(), Adam())]
    with pytest.raises(InputError):
        steps[0]([TWO, TWO._replace(x=np.ones((2, 4)))])
    for step in steps:
        step([TWO])
    assert bits(steps[0]) == bits(steps[1])


# -- the parts ---------------------------------------------------------------------------------------------------------


def test_class_weights_reach_the_loss(rng):
    x, y, weights = rng.standard_normal((6, 4)), np.asarray([0, 1, 2, 0, 1, 2]), (1.0, 0.0, 5.0)
    step = step_of(
        Sequential(Dense(4, 3), backend="numpy", dtype="float64"), loss=SoftmaxCrossEntropy(class_weights=weights)
    )
    z = x @ step.network.named_parameters()["0.W"]
    log_q = z - np.log(np.exp(z).sum(1, keepdims=True))
    w = np.asarray(weights)[y]
    step([batch(x, y)])
    assert step.report().loss == pytest.approx(-(w * log_q[np.arange(6), y]).sum() / w.sum(), rel=1e-14)


def test_dropout_is_keyed_by_successful_steps_and_by_samples(rng):
    x, y = rng.standard_normal((4, 6)), np.zeros((4, 6))

    def losses(given, batches):
        step = step_of(Sequential(Dropout(0.5), BatchNorm(6), backend="numpy", dtype="float64"), rate=0.0)
        found = []
        for one in batches:
            step(given(one))
            found.append(step.report().loss)
        return found

    whole = batch(x, y + rng.standard_normal((1, 6)), first=40)
    order = np.asarray([2, 0, 3, 1])
    mixed = Batch(*(None if part is None else part[order] for part in whole))
    first, second = losses(lambda one: [one], [whole, whole])
    assert first != second  # another step, another mask
    np.testing.assert_allclose(losses(lambda one: [one], [mixed, mixed]), [first, second], rtol=1e-13)
    bad = whole._replace(x=np.full((4, 6), np.nan))
    found = losses(lambda one: [one], [bad, whole, bad, whole])
    np.testing.assert_array_equal(found[1::2], [first, second])
    assert losses(lambda one: [one], [whole._replace(samples=whole.samples + 1)]) != [first]


def test_totals_are_means_over_the_successful_steps_of_an_epoch():
    step = step_of(
        Sequential(Dense(2, 2, bias=False), backend="numpy", dtype="float64"), loss=SoftmaxCrossEntropy(), rate=0.0
    )
    step.network.named_parameters()["0.W"][...] = np.eye(2)
    x = np.asarray([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    right, wrong = np.log(1 + np.exp(-1.0)), np.log(1 + np.exp(2.0))
    assert np.isnan(step.totals().loss)
    assert step.totals().accuracy is None
    step([batch(x, np.asarray([0, 1, 1]))])
    step([batch(x[:1] * np.nan, np.asarray([0]))])
    step([batch(x[:1], np.asarray([0])), batch(x[1:2], np.asarray([1]))])
    loss, accuracy, rows = step.totals()
    assert (accuracy, rows) == (4 / 5, 5)
    assert loss == pytest.approx((4 * right + wrong) / 5, rel=1e-14)
    step.state.start_epoch()
    assert step.totals().rows == 0
    step([batch(x[2:], np.asarray([1]))])
    assert step.totals() == (pytest.approx(wrong, rel=1e-14), 0.0, 1)
    assert step.report().steps == 3


def test_a_regression_has_no_accuracy():
    step = step_of(line())
    step([TWO])
    assert step.totals() == (2.5, None, 2)


def test_the_mean_of_an_epoch_weighs_steps_by_their_weights():
    step = step_of(line(), rate=0.0)
    step([TWO])  # loss 2.5 over 2
    step([TWO._replace(weights=np.asarray([3.0, 1.0]))])  # 1.75 over 4
    assert step.totals().loss == pytest.approx((2 * 2.5 + 4 * 1.75) / 6, rel=1e-15)


def test_frozen_parameters_keep_their_bits_and_their_state():
    step = step_of(line(), Adam(weight_decay=0.1))
    step([TWO])
    step.network.freeze("parameters", "0.W")
    before = {name: array.tobytes() for name, array in {**step.state_dict(), **step.network.state_dict()}.items()}
    step([TWO])
    after = {name: array.tobytes() for name, array in {**step.state_dict(), **step.network.state_dict()}.items()}
    same = {name for name in after if after[name] == before[name]}
    assert same == {"0.W", "optimizer.m.0.W", "optimizer.v.0.W"}
    assert step.report().norm == pytest.approx(abs(float(step.state.gradients.array[8])), rel=1e-15)  # that of b alone


def test_where_the_width_of_the_output_is_unknown_one_is_taken():
    step = step_of(Sequential(Activation("identity"), backend="numpy", dtype="float64"))
    step([batch(np.asarray([[1.0], [3.0]]), np.asarray([2.0, 5.0]))])
    assert step.report().loss == 2.5
