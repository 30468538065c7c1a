"""Predictions as native calls: the bits of a pass op by op, arrays of their own, weights as they are at that time."""

import threading
import weakref

import numpy as np
import pytest

import bnengine as bn
from bnengine.fused import backend_feature
from bnengine.layers import Layer
from bnengine.network import passes
from bnengine.ops import using

needs_kernels = pytest.mark.skipif(
    backend_feature("numpy", "replayer") is None, reason="there are no native kernels here"
)


def net(inputs=20, outputs=3, dtype="float32", activation="relu", seed=0):
    """A network with statistics that differ from channel to channel."""
    layers, width = [], inputs
    for n in (33, 16):
        layers += [bn.Dense(width, n), bn.BatchNorm(n), bn.Activation(activation)]
        width = n
    network = bn.Sequential(*layers, bn.Dense(width, outputs), backend="numpy", dtype=dtype, seed=seed)
    rng, statistics = np.random.default_rng(seed), network.statistics.array
    channels = statistics.shape[1]
    statistics[0], statistics[1], statistics[2] = 100, rng.standard_normal(channels), rng.random(channels) + 0.5
    return network


def data(rows, inputs=20, dtype="float32", seed=1):
    return np.random.default_rng(seed).standard_normal((rows, inputs)).astype(dtype)


def op_by_op(network, x):
    return network.forward(x, training=False).output


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 2, 63, 1023])
def test_a_repeated_prediction_has_the_bits_of_a_pass_op_by_op(rows, dtype, activation):
    network = net(dtype=dtype, activation=activation)
    for seed in (1, 2, 3):
        x = data(rows, dtype=dtype, seed=seed)
        found = network.predict(x)
        assert found.dtype == dtype
        assert found.tobytes() == op_by_op(network, x).tobytes()


@needs_kernels
def test_the_second_prediction_of_a_shape_is_one_native_call(monkeypatch):
    network = net()
    network.predict(data(5))
    assert network.passes.plans == [(5, 20)]

    def refused(*_, **__):
        raise AssertionError("a forward pass in Python")

    monkeypatch.setattr(network, "forward", refused)
    assert network.predict(data(5, seed=2)).shape == (5, 3)


def test_later_predictions_change_no_earlier_result():
    network, x = net(), data(7)
    given = x.copy()
    kept = [network.predict(data(7, seed=seed)) for seed in range(5)] + [network.predict(x)]
    before = [y.copy() for y in kept]
    for rows in (7, 3, 900, 7):
        network.predict(data(rows, seed=99)).fill(np.nan)
    assert all(np.array_equal(a, b) for a, b in zip(kept, before, strict=True))
    assert len({y.__array_interface__["data"][0] for y in kept}) == len(kept)
    assert np.array_equal(x, given)
    kept[0][:] = np.nan
    assert np.array_equal(network.predict(data(7, seed=0)), before[0])


def test_weights_and_statistics_that_changed_in_between_are_seen():
    network, other, x = net(), net(seed=5), data(9)
    network.predict(x)
    first = network.predict(x)
    network.load_state_dict(other.state_dict())
    assert network.predict(x).tobytes() == op_by_op(other, x).tobytes() != first.tobytes()
    network.named_parameters()["0.W"][...] *= 2
    network.named_statistics()["1.statistics"][1] += 1
    assert network.predict(x).tobytes() == op_by_op(network, x).tobytes()
    trainer = bn.Trainer(network, "adam", learning_rate=0.1, progress="quiet")
    before = network.predict(x)
    trainer.fit((data(64), np.arange(64) % 3), epochs=1, batch_size=16)
    after = network.predict(x)
    assert after.tobytes() == op_by_op(network, x).tobytes() != before.tobytes()
    network.reset_statistics()
    with pytest.raises(bn.errors.InputError, match="no statistics were collected yet"):
        network.predict(x)


@pytest.mark.parametrize(
    "shape_like",
    [
        lambda x: x[::2],
        lambda x: x[:, ::-1],
        lambda x: np.asfortranarray(x),
        lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape),
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.float16),
        lambda x: x.astype(">f4"),
        lambda x: x.tolist(),
    ],
    ids=["strided", "reversed", "columns", "unaligned", "wider", "narrower", "big-endian", "list"],
)
def test_inputs_of_any_layout_and_floating_dtype_are_read_right(shape_like):
    network = net()
    for seed in (1, 2):
        x = shape_like(data(8, seed=seed))
        plain = np.array(x).astype(np.float32)
        assert network.predict(x).tobytes() == op_by_op(network, np.ascontiguousarray(plain)).tobytes()


@needs_kernels
def test_plans_and_memory_are_bounded_whatever_sizes_come(monkeypatch):
    monkeypatch.setattr(passes, "MAX_PLANS", 4)
    network = net()
    network.predict(data(passes.ROWS))
    held = network.passes.nbytes
    for rows in [*range(1, 40), 5000]:
        network.predict(data(rows), batch_size=5000)
        assert len(network.passes.plans) <= 4
    assert network.passes.nbytes == held
    network.predict(data(2))
    for rows in (3, 2, 4, 2, 5, 2, 6):  # the one in use stays
        network.predict(data(rows))
    assert (2, 20) in network.passes.plans


@needs_kernels
def test_passes_of_very_many_rows_hold_no_memory():
    network, x = net(), data(passes.ROWS + 1)
    found = network.evaluated(
        x.shape, (x,), lambda x, *, memory: (network.forward(x, training=False, memory=memory).output,)
    )
    assert found[0].tobytes() == network.predict(x).tobytes()
    assert network.passes.plans == [(passes.ROWS, 20), (1, 20)]


def test_a_ragged_last_batch_gives_what_whole_data_give():
    network, x = net(), data(2500)
    whole = op_by_op(network, x)
    for size in (64, 999, 1024, 4096):
        for _ in range(2):
            assert network.predict(x, batch_size=size).tobytes() == whole.tobytes()


@needs_kernels
def test_a_users_arrays_are_not_kept_alive():
    network = net()
    for rows in (6, 6, 9):
        x = data(rows)
        gone = weakref.ref(x)
        y = network.predict(x)
        result = weakref.ref(y)
        del x, y
        assert gone() is None
        assert result() is None


def test_threads_that_predict_at_once_get_their_own_results():
    network, failures = net(), []
    inputs = [data(rows, seed=rows) for rows in (1, 5, 200, 700)]
    wanted = [op_by_op(network, x).tobytes() for x in inputs]

    def work(i):
        found = [network.predict(inputs[i]).tobytes() for _ in range(100)]
        failures.extend(i for y in found if y != wanted[i])

    workers = [threading.Thread(target=work, args=(i % 4,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


class Halved(Layer):
    """A custom layer that computes outside the ops."""

    def forward(self, x, run):  # noqa: ARG002
        return x * np.float32(0.5), None


@pytest.mark.parametrize("place", [0, 1, 4])
def test_a_layer_that_computes_outside_the_ops_runs_op_by_op(place):
    layers = [bn.Dense(20, 16), bn.Activation("relu"), bn.Dense(16, 16), bn.Dense(16, 3)]
    layers.insert(place, Halved())
    network = bn.Sequential(*layers, backend="numpy")
    for seed in (1, 2, 3):
        x = data(6, seed=seed)
        assert network.predict(x).tobytes() == op_by_op(network, x).tobytes()
    assert network.passes.plans == []


def test_a_network_that_gives_its_input_back_gives_a_copy():
    network, x = bn.Sequential(bn.Dropout(0.5), backend="numpy"), data(4)
    for _ in range(3):
        found = network.predict(x)
        assert np.array_equal(found, x)


def test_references_that_were_asked_for_run():
    network, x = net(), data(6)
    network.predict(x)
    with using("reference"):
        wanted = op_by_op(network, x)
        assert network.predict(x).tobytes() == wanted.tobytes()
    assert network.predict(x).tobytes() == op_by_op(network, x).tobytes()
