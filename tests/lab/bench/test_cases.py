"""What is measured, its models of bytes and operations worked by hand, and what is aimed at."""

from math import prod

import pytest

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
    swept,
)
from bnengine.lab.bench.device import rated
from bnengine.lab.bench.machine import Rates
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
    "step 64-100-100-10, batch 64, another program on one core": (2.0, None, None),
}
SHARES = {"steps": {"step", "steps", "busy"}, "predictions": {"prediction"}, "kernels": {"kernel", "product"}}


def test_the_targets_on_a_cpu_are_those_that_were_set():
    found = {case.name: (case.best_peer, case.by_floor, case.v3) for case in cpu_cases() if case.kind != "product"}
    many = [case.name for case in cpu_cases() if case.kind == "steps"]  # which have no target
    assert [found.pop(name) for name in many] == [(None, None, None)] * 2
    assert found == AIMS
    rates = {case.given["workload"]: case.best_peer for case in cpu_cases() if case.kind == "product"}
    assert rates == {name: 1 / (0.85 if name == "64-100-100-10" else 0.95) for name in (w.name for w in WORKLOADS)}


def test_ops_that_are_not_of_full_size_have_no_target():
    assert all(case.best_peer is None for case in kernels(8))
    (adam,) = [case for case in kernels(10**6) if "tensors" in case.name]
    assert adam.given["shape"] == [20]


def test_each_product_of_a_step_is_there_once():
    given = [case.given for case in products(Workload("4-3-3-2", (4, 3, 3, 2), 5))]
    assert [each["product"] for each in given] == ["NN", "TN", "NN", "TN", "NT", "NN", "TN", "NT"]  # no dx of the data
    shapes = [(5, 3, 4), (4, 3, 5), (5, 3, 3), (3, 3, 5), (5, 3, 3), (5, 2, 3), (3, 2, 5), (5, 3, 2)]
    assert [tuple(each[name] for name in "mnk") for each in given] == shapes
    assert len(list(products(WORKLOADS[2]))) == 2 + 3 + 3  # of twenty-one layers that have three shapes


@pytest.mark.parametrize(
    ("name", "moved"),
    [
        ("batch norm (65536, 128)", 8 * 65536 * 128 * 4),  # 3 passes forward, 5 backward
        ("Adam, 10,000,000 parameters", 7 * 10**7 * 4),  # 4 reads, 3 writes
        ("softmax cross-entropy (4096, 1000)", 2 * 4096 * 1000 * 4),
    ],
)
def test_the_floor_of_an_op_is_its_bytes_at_the_rate_of_copies(name, moved):
    (case,) = [case for case in kernels() if case.name == name]
    assert (case.floor, case.passes * case.given["working_set"]) == (COPY, moved)


def test_peers_are_neither_ours_nor_a_floor():
    step, many, busy = cpu_cases(only="steps", workloads=WORKLOADS[:1])
    assert step.roles[0] == OURS
    assert {V3, REFERENCE, PRODUCTS} <= set(step.roles)
    assert step.peers == (EAGER, "PyTorch compile", JAX)
    assert (many.peers, busy.peers, next(products(WORKLOADS[0])).peers) == ((JAX,), (ONE_THREAD,), (BLAS,))


@pytest.mark.parametrize("only", list(SHARES))
def test_only_some_cases(only):
    assert {case.kind for case in cpu_cases(only=only)} == SHARES[only]


def test_the_plot_has_points_around_three_workloads_each_once():
    cases = cpu_cases(only="steps", sweep=True)
    assert len({case.name for case in cases}) == len(cases)
    for axis, values in AXES.items():
        assert sorted(case.places[axis] for case in cases if axis in case.places) == sorted(values)
    assert len(list(swept(quick=True))) < len(list(swept()))


@pytest.mark.parametrize(
    ("what", "dtype", "amount"),
    [
        ("batch norm (65536, 1024)", "float32", 8 * 268_435_456),
        ("batch norm (65536, 1024)", "bfloat16", 8 * 134_217_728),
        ("batch norm (200704, 256)", "float32", 8 * 205_520_896),
        ("Adam, 100,000,000 parameters", "float32", 2_800_000_000),
        ("softmax cross-entropy (65536, 4096)", "float32", 2 * 1_073_741_824 + 524_288),
        ("dropout forward and back (65536, 1024)", "float32", 4 * 268_435_456 + 2 * 67_108_864),
        ("dropout forward and back (65536, 1024)", "bfloat16", 4 * 134_217_728 + 2 * 67_108_864),
        ("affine relu forward and back (65536, 1024) by (1024, 1024)", "float32", 3 * 2 * 65536 * 1024 * 1024),
        ("check_step, 100,000,000 gradients", "float32", 400_000_000),
        ("gather (65536, 1024) of (131072, 1024)", "float32", 2 * 268_435_456),
    ],
)
def test_the_bytes_and_operations_on_a_gpu_are_those_of_the_model(what, dtype, amount):
    (given,) = [case.given for case in device_kernels() if case.name == f"{what}, {dtype}"]
    assert (given["amount"], given["unit"]) == (amount, "flops" if "affine" in what else "bytes")


def test_on_a_gpu_cases_with_targets_come_first_and_every_target_has_a_case():
    cases = device_cases("graph", True, None, WORKLOADS, ())
    named = [(case.given["what"], case.given["variant"]) for case in cases]
    targets = {(target.what, target.variant) for target in TARGETS}
    assert set(named[: len(targets)]) == targets
    assert named[-1] == ("1024-3x2048-100", "highest")
    assert {case.given["op"] for case in cases if case.kind == "kernel"} == set(OPS) - {"NN", "TN", "NT"}
    assert cases[0].peers == (EAGER,)
    assert cases[6].roles[:4] == ("bnengine graph", "bnengine replayed", "bnengine eager", EAGER)
    alone = device_cases("replayed", False, None, WORKLOADS[:1], ("highest",))
    assert alone[-1].roles == (OURS,)
    assert [case.roles for case in alone if case.kind == "step"] == [("bnengine replayed", "bnengine eager")]


def test_a_scale_divides_rows_and_bytes_and_changes_the_name():
    small, whole = list(device_kernels(64)), list(device_kernels())
    assert [case.given["shape"] for case in small[:3]] == [[1024, 1024], [1024, 1024], [3136, 256]]
    assert small[0].given["amount"] * 64 == whole[0].given["amount"]
    assert not {case.name for case in small} & {case.name for case in whole}
    assert all(prod(case.given["shape"]) for case in small)


def test_the_share_is_the_models_rate_over_the_measured_one():
    (case,) = [case for case in device_kernels() if case.given["op"] == "adam"]
    seconds = {"median": 1e-3, "low": 0.9e-3, "high": 1.1e-3, "rounds": 5}
    found = rated(case, seconds, Rates(4e12, {"highest": None}))
    assert (found["rate"], found["share"], found["seconds"]) == (pytest.approx(2.8e12), pytest.approx(0.7), seconds)
    assert rated(case, {"median": 0.0}, Rates(1.0, {})) == {"void": "the device's clock counted no time"}
