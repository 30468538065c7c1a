"""What becomes of running statistics: the commit's rules, layers used twice, the three freezes."""

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.layers import BatchNorm, Dense
from bnengine.losses import MeanSquaredError
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import SGD, Adam, AdamW
from bnengine.training.step import Step
from tests.network.support import batch, bits, only, running, statistics_of, step_of


def trained(layer, parts, **options):
    """A network of that layer after a step on each of the parts."""
    network = only(layer)
    step = step_of(network, rate=0.0, **options)
    for x in parts:
        step([batch(x, np.zeros_like(x))])
    return network


@pytest.mark.parametrize(("variance", "factor"), [("unbiased", 4 / 3), ("biased", 1.0)])
@pytest.mark.parametrize("decay", [0.9, 0.5, 0.0])
def test_a_step_keeps_the_share_decay_of_the_old_value(decay, variance, factor):
    parts = [np.asarray([[1.0], [2.0], [3.0], [6.0]]), np.asarray([[0.0], [0.0], [4.0], [4.0]])]  # vars 3.5 and 4
    network = trained(BatchNorm(1, decay=decay, variance=variance), parts)
    mean = decay * (1 - decay) * 3 + (1 - decay) * 2
    var = decay * (decay * 1 + (1 - decay) * 3.5 * factor) + (1 - decay) * 4 * factor
    np.testing.assert_allclose(running(network)[:, 0], [8, mean, var], rtol=1e-15)


@pytest.mark.parametrize("variance", ["unbiased", "biased"])
def test_without_decay_batches_merge_to_statistics_of_all_rows(rng, variance):
    parts = [rng.standard_normal((m, 3)) * 2 + 100 for m in (5, 2, 11, 3)]
    network = trained(BatchNorm(3, decay=None, variance=variance), parts)
    np.testing.assert_allclose(running(network), statistics_of(np.concatenate(parts)), rtol=1e-13)


def test_each_layer_has_its_own_rule(rng):
    """A layer's statistics are those of the layer alone, on what reaches it."""
    options = {"decay": 0.5}, {"decay": None}, {"decay": 0.9, "variance": "biased"}
    parts = [rng.standard_normal((m, 3)) for m in (4, 6)]
    together = Sequential(*(BatchNorm(3, **one) for one in options), backend="numpy", dtype="float64")
    step = step_of(together, rate=0.0)
    for x in parts:
        step([batch(x, np.zeros_like(x))])
    for i, one in enumerate(options):
        expected = running(trained(BatchNorm(3, **one), parts))
        np.testing.assert_allclose(running(together, f"{i}.statistics"), expected, rtol=1e-9, atol=1e-12)
        parts = [(x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) for x in parts]


def test_statistics_are_double_whatever_the_network_computes_in():
    assert running(Sequential(BatchNorm(3), backend="numpy", dtype="float32")).dtype == np.float64


# -- a layer that is in the network twice ------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.5, None])
def test_a_layer_used_twice_merges_its_pending_statistics(rng, decay):
    shared = BatchNorm(3, decay=decay)
    network = Sequential(shared, Dense(3, 3, bias=False), shared, backend="numpy", dtype="float64")
    assert list(network.named_statistics()) == ["0.statistics"]
    x = rng.standard_normal((6, 3)) + 2
    hidden = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) @ network.named_parameters()["1.W"]
    seen = statistics_of(np.concatenate([x, hidden]))
    forward = network.forward(x, training=True)
    np.testing.assert_allclose(forward.pending.array[:, :3], seen, rtol=1e-12)
    step_of(network, rate=0.0)([batch(x, np.zeros((6, 3)))])
    if decay is not None:
        seen = np.stack([seen[0], 0.5 * seen[1], 0.5 + 0.5 * seen[2] * 12 / 11])
    np.testing.assert_allclose(running(network), seen, rtol=1e-12)


# -- freezing ----------------------------------------------------------------------------------------------------------


def ready(rng, optimizer=None, **options):
    """A network with collected statistics, its step and a batch."""
    network = Sequential(Dense(3, 4), BatchNorm(4, **options), Dense(4, 2), backend="numpy", dtype="float64")
    step = step_of(network, optimizer)
    given = batch(rng.standard_normal((8, 3)), rng.standard_normal((8, 2)))
    step([given])
    return network, step, given


@pytest.mark.parametrize("decay", [0.9, None])
def test_frozen_statistics_stay_bit_for_bit_until_thawed(rng, decay):
    network, step, given = ready(rng, decay=decay)
    free = network.forward(given.x, training=True)
    network.freeze("statistics")
    frozen = network.forward(given.x, training=True)
    np.testing.assert_array_equal(free.output, frozen.output)  # training uses those of the batch
    np.testing.assert_array_equal(frozen.pending.array, np.zeros_like(frozen.pending.array))
    before, weights = network.statistics.array.tobytes(), network.parameters.array.copy()
    for _ in range(3):
        step([given])
    assert network.statistics.array.tobytes() == before
    assert (network.parameters.array != weights).any()  # the rest trains on
    network.thaw("statistics")
    step([given])
    assert network.statistics.array.tobytes() != before
    assert running(network, "1.statistics")[0, 0] == 16


@pytest.mark.parametrize("statistics", [False, True])
def test_frozen_normalization_takes_statistics_as_constants(rng, statistics):
    network = only(BatchNorm(3))
    x, dy = rng.standard_normal((5, 3)) + 1, rng.standard_normal((5, 3))
    step_of(network)([batch(x, dy)])
    network.freeze("normalization")
    if statistics:
        network.freeze("statistics")
    _, mean, var = running(network)
    inv_std = 1 / np.sqrt(var + 1e-5)
    grads = network.gradients()
    forward = network.forward(x, training=True)
    np.testing.assert_array_equal(forward.output, network.predict(x))
    dx = forward.pullback(dy, grads)
    handles = network.named_handles()
    np.testing.assert_allclose(dx, dy * network.named_parameters()["0.gamma"] * inv_std, rtol=1e-14)
    np.testing.assert_allclose(grads[handles["0.gamma"]], (dy * (x - mean) * inv_std).sum(0), rtol=1e-12)
    np.testing.assert_allclose(grads[handles["0.beta"]], dy.sum(0), rtol=1e-13)


def test_frozen_normalization_goes_on_collecting_statistics(rng):
    network, step, given = ready(rng)
    network.freeze("normalization")
    before = running(network, "1.statistics")
    hidden = given.x @ network.named_parameters()["0.W"]
    step([given])
    count, mean, var = statistics_of(hidden)
    expected = [before[0] + count, 0.9 * before[1] + 0.1 * mean, 0.9 * before[2] + 0.1 * var * 8 / 7]
    np.testing.assert_allclose(running(network, "1.statistics"), expected, rtol=1e-12)


def test_with_both_frozen_one_row_is_enough(rng):
    network, step, given = ready(rng)
    network.freeze("normalization")
    with pytest.raises(InputError, match="one value per channel"):  # it would have to be a statistic
        network.forward(given.x[:1], training=True)
    network.freeze("statistics")
    np.testing.assert_allclose(
        network.forward(given.x[:1], training=True).output, network.predict(given.x)[:1], rtol=1e-14
    )
    step([batch(given.x[:1], given.y[:1])])
    assert step.report().ok


@pytest.mark.parametrize(
    "optimizer", [SGD(momentum=0.9, weight_decay=0.1), Adam(weight_decay=0.1), AdamW()], ids=lambda o: o.name
)
def test_frozen_gamma_and_beta_stay_under_momentum_and_decay(rng, optimizer):
    network, step, given = ready(rng, optimizer)
    step([given])  # there is momentum in them now
    network.freeze("affine")
    names = ("1.gamma", "1.beta")
    before = {n: network.named_parameters()[n].tobytes() for n in names}
    state = {k: v.tobytes() for k, v in step.state_dict().items() if k.endswith((".gamma", ".beta"))}
    weights = network.named_parameters()["0.W"].copy()
    for _ in range(3):
        step([given])
    assert {n: network.named_parameters()[n].tobytes() for n in names} == before
    assert {k: step.state_dict()[k].tobytes() for k in state} == state
    assert (network.named_parameters()["0.W"] != weights).all()
    network.thaw("affine")
    step([given])
    assert all(network.named_parameters()[n].tobytes() != before[n] for n in names)


def test_a_freeze_and_a_thaw_leave_no_trace():
    networks = []
    for freeze in (False, True):
        network, step, given = ready(np.random.default_rng(3), Adam())
        if freeze:
            for what in ("statistics", "normalization", "affine", "parameters"):
                network.freeze(what)
            step.network.forward(given.x, training=True)
            for what in ("statistics", "normalization", "affine", "parameters"):
                network.thaw(what)
        step([given])
        networks.append(bits(step))
    assert networks[0] == networks[1]


def test_with_everything_frozen_a_step_changes_no_bit(rng):
    network, step, given = ready(rng, AdamW())
    for what in ("statistics", "parameters"):
        network.freeze(what)
    before = bits(step)
    step([given])
    assert bits(step) == before
    assert step.report().steps == 2


def test_a_step_made_while_frozen_trains_what_is_thawed_later(rng):
    network = only(BatchNorm(2))
    network.freeze("parameters")
    step = Step(network, SGD(), MeanSquaredError())
    step.schedule([0.1])
    given = batch(rng.standard_normal((4, 2)), np.ones((4, 2)))
    step([given])
    np.testing.assert_array_equal(network.named_parameters()["0.beta"], [0, 0])
    network.thaw("parameters", "0.beta")
    step([given])
    assert (network.named_parameters()["0.beta"] != 0).all()
    np.testing.assert_array_equal(network.named_parameters()["0.gamma"], [1, 1])
