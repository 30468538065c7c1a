"""What is measured on a CPU, and what is aimed at."""

import pytest

from bnengine.errors import InputError
from bnengine.lab.bench.cpu.cases import (
    AXES_OF,
    BLAS,
    COPY,
    EAGER,
    JAX,
    ONE_THREAD,
    OURS,
    PRODUCTS,
    REFERENCE,
    V3,
    cases,
    checked_threads,
    products,
    swept,
)
from bnengine.lab.bench.workloads import WORKLOADS, Workload

# Name -> at most so much of the best peer's time, of the floor; and of the peer's on the lesser instruction set.
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
    "step 64-100-100-10, batch 64, another program on one core": (2.0, None, None),
}


def test_the_aims_are_those_that_were_set():
    found = {case.name: (case.best_peer, case.by_floor, case.v3) for case in cases() if case.kind != "product"}
    many = [case.name for case in cases() if case.kind == "steps"]  # beside which nothing was set
    assert [found.pop(name) for name in many] == [(None, None, None)] * 2
    assert found == AIMS
    rates = {case.given["workload"]: case.best_peer for case in cases() if case.kind == "product"}
    assert rates == {name: 1 / (0.85 if name == "64-100-100-10" else 0.95) for name in (w.name for w in WORKLOADS)}


def test_ops_that_are_not_of_the_whole_size_have_no_aim():
    assert all(case.best_peer is None for case in cases(only="kernels", scale=8) if case.kind == "kernel")
    (adam,) = [case for case in cases(only="kernels", scale=10**6) if "tensors" in case.name]
    assert adam.given["shape"] == [20]


def test_each_product_of_a_step_is_there_once():
    shapes = [tuple(case.given[name] for name in "mnk") for case in products(Workload("4-3-3-2", (4, 3, 3, 2), 5))]
    kinds = [case.given["product"] for case in products(Workload("4-3-3-2", (4, 3, 3, 2), 5))]
    assert kinds == ["NN", "TN", "NN", "TN", "NT", "NN", "TN", "NT"]  # no gradient of the input data
    assert shapes == [(5, 3, 4), (4, 3, 5), (5, 3, 3), (3, 3, 5), (5, 3, 3), (5, 2, 3), (3, 2, 5), (5, 3, 2)]
    assert len(list(products(WORKLOADS[2]))) == 2 + 3 + 3  # of twenty-one layers that are of three shapes


def test_the_floor_of_an_op_is_its_bytes_at_the_rate_of_copies():
    found = {case.name: case for case in cases(only="kernels")}
    norm = found["batch norm (65536, 128)"]
    assert (norm.floor, norm.given["working_set"]) == (COPY, 4 * 65536 * 128 * 4)
    assert norm.passes * norm.given["working_set"] == 8 * 65536 * 128 * 4  # 3 passes forward, 5 back
    adam = found["Adam, 10,000,000 parameters"]
    assert adam.passes * adam.given["working_set"] == 7 * 10**7 * 4  # 4 reads, 3 writes
    softmax = found["softmax cross-entropy (4096, 1000)"]
    assert softmax.passes * softmax.given["working_set"] == 2 * 4096 * 1000 * 4


def test_peers_are_what_is_neither_ours_nor_a_floor():
    step, many, busy = cases(only="steps", workloads=WORKLOADS[:1])
    assert step.roles[0] == OURS
    assert {V3, REFERENCE, PRODUCTS} <= set(step.roles)
    assert step.peers == (EAGER, "PyTorch compile", JAX)
    assert many.peers == (JAX,)
    assert busy.peers == (ONE_THREAD,)
    assert next(products(WORKLOADS[0])).peers == (BLAS,)


@pytest.mark.parametrize("only", ["steps", "predictions", "kernels"])
def test_only_some_of_them(only):
    kinds = {"steps": {"step", "steps", "busy"}, "predictions": {"prediction"}, "kernels": {"kernel", "product"}}
    assert {case.kind for case in cases(only=only)} == kinds[only]


def test_the_plot_has_points_around_three_workloads_each_once():
    names = [case.name for case in (*cases(only="steps"), *swept())]
    assert len(names) == len(set(names))
    places = [case.places for case in cases(only="steps", sweep=True) if case.places]
    for axis, values in AXES_OF.items():
        assert sorted(place[axis] for place in places if axis in place) == sorted(values)
    assert len(list(swept(quick=True))) < len(list(swept()))


def test_more_threads_than_cores_are_refused():
    assert checked_threads(2, 4) == 2
    with pytest.raises(InputError, match="bench: --threads 8, but this process may use 4 cores; ask for at most 4"):
        checked_threads(8, 4)
