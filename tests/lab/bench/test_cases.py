"""What is measured, its models of bytes and operations worked by hand, and what is aimed at."""

import numpy as np

from bnengine.arrays.backend import get_backend
from bnengine.lab.bench.cases import (
    AXES,
    BLAS,
    COPY,
    EAGER,
    JAX,
    ONE_THREAD,
    OURS,
    PRODUCTS,
    REFERENCE,
    V3,
    cpu_cases,
    device_cases,
    device_kernels,
    kernels,
    products,
)
from bnengine.lab.bench.ops import OPS
from bnengine.lab.bench.targets import TARGETS
from bnengine.lab.bench.workloads import WORKLOADS, Workload

# Name -> at most this share of the best peer's time, of the floor; and of the peer's on the lesser instruction set.
AIMS = {
    "step 64-100-100-10, batch 64": (0.20, 1.8, 0.30),
    "step 784-512-512-10, batch 256": (0.50, 1.15, 0.85),
    "step 784-20x128-10, batch 128": (0.35, 1.3, 0.55),
    "step 1024-3x2048-100, batch 1024": (0.55, 1.08, 0.90),
    "prediction 784-512-512-10, batch 1": (0.2, None, None),
    "prediction 784-512-512-10, batch 256": (0.5, None, None),
    "prediction 784-512-512-10, batch 8,192": (0.6, None, None),
    "batch norm (256, 512)": (0.5, None, None),
    "batch norm (4096, 512)": (1.0, None, None),
    "batch norm (65536, 128)": (1.0, 1.25, None),  # 80 % of the bandwidth
    "batch norm (200704, 64)": (1.0, 1.25, None),
    "Adam, 10,000 parameters in 20 tensors": (0.1, None, None),
    "Adam, 1,000,000 parameters": (0.6, None, None),
    "Adam, 10,000,000 parameters": (0.7, 1 / 0.85, None),
    "softmax cross-entropy (4096, 1000)": (0.3, None, None),
    "steps 64-100-100-10, batch 64, many in one call": (None, None, None),
    "steps 784-20x128-10, batch 128, many in one call": (None, None, None),
    "step 64-100-100-10, batch 64, another program on one core": (2.0, None, None),
}
TINY = Workload("4-3-2", (4, 3, 2), 5, rows=20)


def test_the_targets_on_a_cpu_are_those_that_were_set():
    cases = cpu_cases()
    found = {case.name: (case.best_peer, case.by_floor, case.v3) for case in cases if case.kind != "product"}
    assert found == AIMS
    rates = {case.given["workload"]: case.best_peer for case in cases if case.kind == "product"}
    assert rates == {name: 1 / (0.85 if name == "64-100-100-10" else 0.95) for name in (w.name for w in WORKLOADS)}
    assert all(case.best_peer is case.by_floor is None for case in kernels(8))
    assert [case.given["shape"] for case in kernels(10**6) if "tensors" in case.name] == [[20]]


def test_each_product_of_a_step_is_there_once():
    given = [case.given for case in products(Workload("4-3-3-2", (4, 3, 3, 2), 5))]
    assert [each["product"] for each in given] == ["NN", "TN", "NN", "TN", "NT", "NN", "TN", "NT"]  # no dx of the data
    shapes = [(5, 3, 4), (4, 3, 5), (5, 3, 3), (3, 3, 5), (5, 3, 3), (5, 2, 3), (3, 2, 5), (5, 3, 2)]
    assert [tuple(each[name] for name in "mnk") for each in given] == shapes
    assert len(list(products(WORKLOADS[2]))) == 2 + 3 + 3  # of twenty-one layers that have three shapes


def test_peers_are_neither_ours_nor_a_floor():
    step, many, busy = cpu_cases(only="steps", workloads=WORKLOADS[:1])
    assert step.roles == (OURS, V3, REFERENCE, PRODUCTS, *step.peers)
    assert step.peers == (EAGER, "PyTorch compile", JAX)
    assert (many.peers, busy.peers, next(products(WORKLOADS[0])).peers) == ((JAX,), (ONE_THREAD,), (BLAS,))


def test_only_some_cases():
    kinds = {only: {case.kind for case in cpu_cases(only=only)} for only in ("steps", "predictions", "kernels")}
    steps = {"step", "steps", "busy"}
    assert kinds == {"steps": steps, "predictions": {"prediction"}, "kernels": {"kernel", "product"}}


def test_the_plot_has_points_around_three_workloads_each_once():
    cases = cpu_cases(only="steps", sweep=True)
    assert len({case.name for case in cases}) == len(cases) > len(cpu_cases(only="steps", sweep=True, quick=True))
    for axis, values in AXES.items():
        assert sorted(case.places[axis] for case in cases if axis in case.places) == sorted(values)


# Bytes, or operations, by hand: of an op on a CPU, and on a GPU by dtype.
AMOUNTS = {
    "batch norm (65536, 128)": 8 * 65536 * 128 * 4,  # 3 passes forward, 5 backward
    "Adam, 10,000,000 parameters": 7 * 10**7 * 4,  # 4 reads, 3 writes
    "softmax cross-entropy (4096, 1000)": 2 * 4096 * 1000 * 4,
    "batch norm (65536, 1024), float32": 8 * 268_435_456,
    "batch norm (65536, 1024), bfloat16": 8 * 134_217_728,
    "batch norm (200704, 256), float32": 8 * 205_520_896,
    "Adam, 100,000,000 parameters, float32": 2_800_000_000,
    "softmax cross-entropy (65536, 4096), float32": 2 * 1_073_741_824 + 524_288,
    "dropout forward and back (65536, 1024), float32": 4 * 268_435_456 + 2 * 67_108_864,
    "dropout forward and back (65536, 1024), bfloat16": 4 * 134_217_728 + 2 * 67_108_864,
    "affine relu forward and back (65536, 1024) by (1024, 1024), float32": 3 * 2 * 65536 * 1024 * 1024,
    "check_step, 100,000,000 gradients, float32": 400_000_000,
    "gather (65536, 1024) of (131072, 1024), float32": 2 * 268_435_456,
}


def test_the_bytes_and_operations_of_an_op_are_those_of_the_model():
    found = {case.name: case.passes * case.given["working_set"] for case in kernels() if case.floor == COPY}
    found |= {case.name: case.given["amount"] for case in device_kernels()}
    assert {name: found[name] for name in AMOUNTS} == AMOUNTS
    assert [case.given["op"] for case in device_kernels() if case.given["unit"] == "flops"] == ["affine"]


def test_on_a_gpu_cases_with_targets_come_first_and_every_target_has_a_case():
    cases = device_cases(True, None, WORKLOADS, ())
    named = [(case.given["what"], case.given["variant"]) for case in cases]
    targets = {(target.what, target.variant) for target in TARGETS}
    assert set(named[: len(targets)]) == targets
    assert named[-1] == ("1024-3x2048-100", "highest")
    used = {case.given["op"] for case in cases if case.kind == "kernel"}
    assert {name for name in set(OPS) - used if not name.startswith("gemm")} == {"NN", "TN", "NT"}
    assert cases[0].peers == (EAGER,)
    assert cases[6].roles[:4] == ("bnengine graph", "bnengine replayed", "bnengine eager", EAGER)
    alone = device_cases(False, None, WORKLOADS[:1], ("highest",), 64)
    assert [case.given["variant"] for case in alone if case.kind == "step"] == ["highest"]
    small = [case for case in alone if case.kind == "kernel"]
    assert [case.given["shape"] for case in small[:3]] == [[1024, 1024], [1024, 1024], [3136, 256]]
    assert small[0].given["amount"] * 64 == cases[0].given["amount"]
    assert not {case.name for case in small} & {case.name for case in cases}


def test_the_operations_bytes_and_parameters_of_a_step():
    # forward 2*5*(4*3 + 3*2) = 180, both dW the same, dx of the last layer 2*5*3*2 = 60
    assert TINY.flops == 180 + 180 + 60
    assert TINY.parameters == 4 * 3 + 2 * 3 + 3 * 2 + 2
    network = TINY.network(get_backend("numpy"))
    assert sum(a.size for a in network.named_parameters().values()) == TINY.parameters
    # 5 rows of 4 inputs 4 times, 3 hidden 13 times, 2 logits 5 times; 26 parameters of 4 bytes 11 times
    assert [TINY.bytes(size) for size in (4, 2)] == [5 * 65 * size + 11 * 4 * 26 for size in (4, 2)]


def test_workloads_have_batches_of_one_size_and_go_through_json():
    assert all(workload.rows == workload.batch * workload.batches for workload in WORKLOADS)
    assert Workload.from_json(TINY.to_json()) == TINY


def test_the_data_are_the_same_in_every_run_and_every_epoch_has_its_order():
    a, b = TINY.data(), TINY.data()
    assert (a.x.dtype, a.x.shape, a.y.dtype, set(a.y)) == (np.float32, (20, 4), np.int64, {0, 1})
    for one, two in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(np.sort(a.orders), [np.arange(20)] * 2)
    assert np.any(a.orders[0] != a.orders[1])


def test_a_network_is_dense_batch_norm_relu_and_its_weights_are_given_block_by_block():
    hidden, last = TINY.blocks(trained=True)
    assert (set(last), last["W"].shape, hidden["W"].shape) == ({"W", "b"}, (3, 2), (4, 3))
    assert hidden["running_var"].dtype == np.float32
    assert np.all((hidden["running_var"] > 0.5) & (hidden["running_var"] < 1.5))
    state = TINY.state(trained=True)
    assert np.all(state["1.running_count"] == 1)
    np.testing.assert_array_equal(hidden["W"], TINY.state()["0.W"])
    names = [repr(layer) for layer in TINY.network(get_backend("numpy")).layers]
    assert (names[:2], "relu" in names[2], names[3:]) == (["Dense(4, 3)", "BatchNorm(3)"], True, ["Dense(3, 2)"])
