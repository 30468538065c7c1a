"""What a workload is made of, and its arithmetic worked by hand."""

import numpy as np

from bnengine.arrays.backend import get_backend
from bnengine.lab.bench.device import floors
from bnengine.lab.bench.machine import Rates
from bnengine.lab.bench.workloads import WORKLOADS, Workload

TINY = Workload("4-3-2", (4, 3, 2), 5, rows=20)


def test_the_operations_of_a_step_are_those_of_five_products():
    # forward 2*5*(4*3 + 3*2) = 180, both dW the same, dx of the last layer 2*5*3*2 = 60
    assert TINY.flops == 180 + 180 + 60


def test_the_parameters_are_counted_and_are_those_of_the_network():
    assert TINY.parameters == 4 * 3 + 2 * 3 + 3 * 2 + 2 == 26
    network = TINY.network(get_backend("numpy"))
    assert sum(a.size for a in network.named_parameters().values()) == 26


def test_the_bytes_of_a_step_follow_the_model():
    # 5 rows of 4 inputs 4 times, 3 hidden 13 times, 2 logits 5 times; 26 parameters of 4 bytes 11 times
    assert TINY.bytes(4) == 5 * (16 + 39 + 10) * 4 + 11 * 4 * 26
    assert TINY.bytes(2) == 5 * (16 + 39 + 10) * 2 + 11 * 4 * 26


def test_the_floor_is_the_longer_of_multiplying_and_of_moving_what_no_cache_holds():
    rates = Rates(1000.0, {"highest": 100.0, "tf32": 1e6, "bfloat16": None})
    found = floors(TINY, "highest", rates, 1000)
    assert (found["seconds_to_multiply"], found["seconds_to_move"]) == (4.2, 2.444)
    assert found["floor_seconds"] == 4.2
    assert floors(TINY, "tf32", rates, 1000)["floor_seconds"] == 2.444
    assert floors(TINY, "tf32", rates, 10_000)["floor_seconds"] == 4.2e-4
    assert floors(TINY, "tf32", rates, None)["floor_seconds"] == 4.2e-4
    assert floors(TINY, "bfloat16", rates, None)["floor_seconds"] is None


def test_hidden_layers_are_dense_batch_norm_relu():
    names = [repr(layer) for layer in TINY.layers()]
    assert names[:2] == ["Dense(4, 3)", "BatchNorm(3)"]
    assert "relu" in names[2]
    assert names[3:] == ["Dense(3, 2)"]


def test_the_data_are_the_same_in_every_run_and_every_epoch_has_its_order():
    a, b = TINY.data(), TINY.data()
    assert (a.x.dtype, a.x.shape, a.y.dtype) == (np.float32, (20, 4), np.int64)
    for one, two in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, two)
    assert set(a.y) <= {0, 1}
    assert a.orders.shape == (2, 20)
    for order in a.orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(20))
    assert np.any(a.orders[0] != a.orders[1])


def test_all_batches_of_the_workloads_are_of_one_size():
    assert all(workload.rows == workload.batch * workload.batches for workload in WORKLOADS)
    assert [(w.widths, w.batch) for w in WORKLOADS] == [
        ((64, 100, 100, 10), 64),
        ((784, 512, 512, 10), 256),
        ((784, *[128] * 20, 10), 128),
        ((1024, 2048, 2048, 2048, 100), 1024),
    ]


def test_a_workload_goes_through_json():
    assert Workload.from_json(TINY.to_json()) == TINY


def test_trained_weights_have_running_statistics():
    weights = TINY.trained_weights()
    assert np.all(weights["1.running_count"] == 1)
    assert np.all((weights["1.running_var"] > 0.5) & (weights["1.running_var"] < 1.5))
    np.testing.assert_array_equal(weights["0.W"], TINY.weights()["0.W"])
