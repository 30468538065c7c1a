"""Models of what an op must move, worked by hand, and the figures that follow from a time."""

import numpy as np
import pytest

from bnengine.lab.bench.kernel_rows import disagreement, rated
from bnengine.lab.bench.kernels import kernels
from bnengine.lab.bench.machine import Rates
from bnengine.lab.bench.timing import Spread
from bnengine.lab.bench.torch_kernels import PEERS

BY_NAME = {(k.what, k.variant): k for k in kernels()}


@pytest.mark.parametrize(
    ("what", "dtype", "amount"),
    [
        ("batch norm (65536, 1024)", "float32", 8 * 268_435_456),
        ("batch norm (65536, 1024)", "bfloat16", 8 * 134_217_728),
        ("batch norm (200704, 256)", "float32", 8 * 205_520_896),
        ("batch norm (200704, 256)", "bfloat16", 8 * 102_760_448),
        ("Adam, 100,000,000 parameters", "float32", 2_800_000_000),
        ("softmax cross-entropy (65536, 4096)", "float32", 2 * 1_073_741_824 + 524_288),
        ("dropout forward and back (65536, 1024)", "float32", 4 * 268_435_456 + 2 * 67_108_864),
        ("dropout forward and back (65536, 1024)", "bfloat16", 4 * 134_217_728 + 2 * 67_108_864),
        ("check_step, 100,000,000 gradients", "float32", 400_000_000),
        ("gather (65536, 1024) of (131072, 1024)", "float32", 2 * 268_435_456),
    ],
)
def test_the_bytes_are_those_of_the_model(what, dtype, amount):
    assert (BY_NAME[what, dtype].amount, BY_NAME[what, dtype].unit) == (amount, "bytes")


def test_an_affine_op_is_counted_in_operations():
    kernel = BY_NAME["affine relu forward and back (65536, 1024) by (1024, 1024)", "float32"]
    assert (kernel.amount, kernel.unit) == (3 * 2 * 65536 * 1024 * 1024, "flops")


def test_those_with_targets_come_first_and_each_has_a_peer_that_exists():
    targeted = [kernel.targeted for kernel in kernels()]
    assert targeted == sorted(targeted, reverse=True)
    assert sum(targeted) == 6
    assert {kernel.peer for kernel in kernels()} == set(PEERS)


def test_a_smaller_scale_divides_rows_and_bytes_and_changes_the_name():
    small = kernels(64)
    assert [k.shape for k in small[:3]] == [(1024, 1024), (1024, 1024), (3136, 256)]
    assert small[0].what == "batch norm (1024, 1024)"
    assert small[0].amount * 64 == kernels()[0].amount
    assert not {k.what for k in small} & {k.what for k in kernels()}


def test_the_share_is_the_models_rate_over_the_measured_one():
    kernel = BY_NAME["Adam, 100,000,000 parameters", "float32"]
    found = rated(kernel, Spread(1e-3, 0.9e-3, 1.1e-3, 5), Rates(4e12, {"highest": None}))
    assert found["rate"] == pytest.approx(2.8e12)
    assert found["share"] == pytest.approx(0.7)
    assert found["seconds"] == {"median": 1e-3, "low": 0.9e-3, "high": 1.1e-3, "rounds": 5}
    assert rated(kernel, Spread(0.0, 0.0, 0.0, 5), Rates(1.0, {})) == {"void": "the device's clock counted no time"}


def test_results_are_compared_as_shares_of_the_largest_element():
    a = np.asarray([1.0, -2.0, 4.0])
    assert disagreement(a, np.asarray([1.0, -1.7, 4.0]), 0.1) is None
    assert (
        disagreement(a, np.asarray([1.0, -1.5, 4.0]), 0.1)
        == "the results differ by 0.12 of the largest, 0.1 is allowed"
    )
    assert "nan" in (disagreement(a, a * np.nan, 0.1) or "")
    assert disagreement(a, a[:2], 0.1) == "the results are of shape (3,) and (2,)"
    assert disagreement(a, -a, None) is None
