"""Several micro-batches to a step: the gradients of the large batch, statistics merged or one after the other."""

import numpy as np
import pytest

from bnengine.layers import Activation, BatchNorm, Dense, Residual
from bnengine.losses import BinaryCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import Adam
from tests.network.support import batch, bits, cut, only, running, statistics_of, step_of

CUTS = [(4,), (2, 4, 6), (3, 6, 9), (1, 11)]


def flat_network(outputs, **options):
    """Layers without BatchNorm: rows do not see each other."""
    return Sequential(
        Dense(5, 6), Activation("tanh"), Residual(Dense(6, 6), Activation("gelu")), Dense(6, outputs),
        backend="numpy", dtype="float64", **options,
    )  # fmt: skip


@pytest.mark.parametrize("ends", CUTS)
@pytest.mark.parametrize(
    ("loss", "outputs"),
    [
        (MeanSquaredError(), 2),
        (BinaryCrossEntropy(), 2),
        (SoftmaxCrossEntropy(label_smoothing=0.1, class_weights=(1.0, 2.0, 0.5)), 3),
    ],
    ids=lambda v: getattr(v, "name", v),
)
@pytest.mark.parametrize("weighted", [False, True])
def test_micro_batches_have_the_gradients_of_the_large_batch(rng, ends, loss, outputs, weighted):
    y = rng.integers(0, 3, 12) if outputs == 3 else rng.random((12, 2))
    whole = batch(rng.standard_normal((12, 5)), y, weights=rng.random(12) if weighted else None)
    steps = [step_of(flat_network(outputs), loss=loss) for _ in range(2)]
    steps[0]([whole])
    steps[1](cut(whole, *ends))
    large, small = (step.state.gradients.array for step in steps)
    np.testing.assert_allclose(small, large, rtol=0, atol=1e-14)
    assert np.abs(large).max() > 1e-3
    reports = [step.report() for step in steps]
    assert reports[1].loss == pytest.approx(reports[0].loss, rel=1e-14)
    assert reports[1].norm == pytest.approx(reports[0].norm, rel=1e-14)
    assert steps[1].totals().loss == pytest.approx(steps[0].totals().loss, rel=1e-14)
    assert steps[1].totals()[1:] == steps[0].totals()[1:]


@pytest.mark.parametrize("decay", [0.9, None])
@pytest.mark.parametrize("ends", [(4,), (2, 4, 6), (5, 10)])
def test_merged_statistics_are_those_of_all_rows_of_the_step(rng, ends, decay):
    whole = batch(rng.standard_normal((12, 3)) + 50, np.zeros((12, 3)))
    networks = [only(BatchNorm(3, decay=decay)) for _ in range(2)]
    for network, micros in zip(networks, ([whole], cut(whole, *ends)), strict=True):
        step = step_of(network, rate=0.0)
        step(micros)
        np.testing.assert_allclose(step.state.pending[0].array[:, :3], statistics_of(whole.x), rtol=1e-13)
    np.testing.assert_allclose(running(networks[1]), running(networks[0]), rtol=1e-13)


def test_each_micro_batch_is_normalized_by_its_own_moments(rng):
    """The gradient of two micro-batches is the sum of theirs, not that of the large batch."""
    whole = batch(rng.standard_normal((12, 3)), rng.standard_normal((12, 3)))
    step = step_of(only(BatchNorm(3)))
    step(cut(whole, 5))
    expected = 0
    for micro in cut(whole, 5):
        apart = step_of(only(BatchNorm(3)))
        apart([micro])
        expected = expected + apart.state.gradients.array * len(micro.x) / 12
    np.testing.assert_allclose(step.state.gradients.array, expected, rtol=0, atol=1e-14)
    large = step_of(only(BatchNorm(3)))
    large([whole])
    assert np.abs(step.state.gradients.array - large.state.gradients.array).max() > 1e-3


def test_statistics_per_micro_batch_are_successive_updates():
    """Rows 1, 2, 3, 6 (mean 3, unbiased variance 14/3) and then 4, 6 (mean 5, unbiased 2), decay 0.75."""
    whole = batch(np.asarray([[1.0], [2.0], [3.0], [6.0], [4.0], [6.0]]), np.zeros((6, 1)))
    network = only(BatchNorm(1, decay=0.75))
    step_of(network, rate=0.0, statistics="per_micro_batch")(cut(whole, 4))
    mean = 0.75 * (0.25 * 3) + 0.25 * 5
    var = 0.75 * (0.75 + 0.25 * 14 / 3) + 0.25 * 2
    np.testing.assert_allclose(running(network)[:, 0], [6, mean, var], rtol=1e-15)


def test_per_micro_batch_differs_from_merged_in_statistics_only(rng):
    whole = batch(rng.standard_normal((12, 3)), rng.standard_normal((12, 3)))
    networks = []
    for statistics in ("merged", "per_micro_batch"):
        network = only(BatchNorm(3))
        step_of(network, Adam(), statistics=statistics)(cut(whole, 4, 8))
        networks.append(network)
    np.testing.assert_array_equal(networks[0].parameters.array, networks[1].parameters.array)
    assert (running(networks[0])[1:] != running(networks[1])[1:]).all()
    np.testing.assert_array_equal(running(networks[0])[0], running(networks[1])[0])


def test_a_shorter_group_commits_only_its_own_statistics(rng):
    """The buffers of micro-batches that this step does not have hold the step before's."""
    long, short = (batch(rng.standard_normal((m, 2)), np.zeros((m, 2))) for m in (9, 4))
    network = only(BatchNorm(2, decay=0.5))
    step = step_of(network, rate=0.0, statistics="per_micro_batch")
    step(cut(long, 3, 6))
    before = running(network)
    step(cut(short, 2))
    expected = before
    for micro in cut(short, 2):
        count, mean, var = statistics_of(micro.x)
        expected = np.stack([expected[0] + count, 0.5 * expected[1] + 0.5 * mean, 0.5 * expected[2] + 0.5 * var * 2])
    np.testing.assert_allclose(running(network), expected, rtol=1e-13)
    assert len(step.state.pending) == 3  # the same buffers again
    step([long])
    count, mean, var = statistics_of(long.x)
    expected = np.stack([expected[0] + 9, 0.5 * expected[1] + 0.5 * mean, 0.5 * expected[2] + 0.5 * var * 9 / 8])
    np.testing.assert_allclose(running(network), expected, rtol=1e-13)


@pytest.mark.parametrize("statistics", ["merged", "per_micro_batch"])
def test_per_micro_batch_a_layer_used_twice_merges_within_each(rng, statistics):
    shared = BatchNorm(2, decay=None)
    network = Sequential(shared, shared, backend="numpy", dtype="float64")
    whole = batch(rng.standard_normal((6, 2)) * 3 + 1, np.zeros((6, 2)))
    step_of(network, rate=0.0, statistics=statistics)(cut(whole, 3))
    seen = []
    for micro in cut(whole, 3):
        x = micro.x
        seen += [x, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)]
    np.testing.assert_allclose(running(network), statistics_of(np.concatenate(seen)), rtol=1e-12)


def test_nothing_of_one_step_reaches_the_next(rng):
    first, second = (batch(rng.standard_normal((8, 5)), rng.standard_normal((8, 2))) for _ in range(2))
    steps = [step_of(flat_network(2), rate=0.0) for _ in range(2)]
    steps[0](cut(first, 2, 4, 6))
    for step in steps:
        step([second])
    np.testing.assert_array_equal(steps[0].state.gradients.array, steps[1].state.gradients.array)
    assert steps[0].report().loss == steps[1].report().loss


def test_one_micro_batch_in_a_list_is_the_step_itself(rng):
    given = batch(rng.standard_normal((8, 3)), rng.standard_normal((8, 3)))
    results = []
    for statistics in ("merged", "per_micro_batch"):
        step = step_of(only(BatchNorm(3)), Adam(), statistics=statistics)
        step([given])
        results.append(bits(step))
    assert results[0] == results[1]


@pytest.mark.parametrize("name", ["merged", "per_micro_batch"])
def test_hits_are_counted_over_all_micro_batches(name):
    network = Sequential(Dense(2, 2, bias=False), backend="numpy", dtype="float64")
    network.named_parameters()["0.W"][...] = np.eye(2)
    step = step_of(network, loss=SoftmaxCrossEntropy(), statistics=name)
    whole = batch(np.asarray([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 3.0]]), np.asarray([0, 1, 1, 1]))
    step(cut(whole, 1, 3))
    assert step.totals()[1:] == (0.75, 4)
