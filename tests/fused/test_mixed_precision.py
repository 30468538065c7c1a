"""Training steps in 16 bits on the simulated device: recorded, replayed, compared with NumPy, and with a loss scale."""

from typing import Any

import numpy as np
import pytest

from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Layer, Residual
from bnengine.losses import MeanSquaredError, SoftmaxCrossEntropy
from bnengine.network.sequential import Sequential
from bnengine.ops import using
from bnengine.ops.update import RULES
from bnengine.optim.optimizers import AdamW
from bnengine.runtime.memory import Arena
from bnengine.training import LossScale, Step
from bnengine.training.resident import Resident
from tests.fused.test_step import groups
from tests.fused.training import epochs, snapshot, source
from tests.optimizers import FULL
from tests.support import poison

UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8}


@pytest.fixture(params=sorted(UNIT))
def precision(request: pytest.FixtureRequest, require: Any) -> str:
    if request.param == "bfloat16":
        require("ml_dtypes")
    return str(request.param)


def layers() -> tuple[Layer, ...]:
    """Widths that are and are not a multiple of 8, which is 16 bytes of 16 bits; a bias that stays, one that goes."""
    first = Dense(64, 16), BatchNorm(16), Activation("relu"), Dropout(0.2), Dense(16, 7), Activation("tanh")
    return *first, Residual(Dense(7, 7), BatchNorm(7)), Activation("gelu"), Dense(7, 10)


def make(backend: Any, precision: str, optimizer: Any = None, mode: Any = "fused", **options: Any) -> Step:
    network = Sequential(*options.pop("layers", layers)(), backend=backend, precision=precision, seed=2)
    loss = options.pop("loss", SoftmaxCrossEntropy(label_smoothing=0.1))
    step = Step(network, optimizer or AdamW(), loss, clip_norm=1.0, memory=Arena(mode), **options)
    step.schedule([1e-2 * 0.9**t for t in range(40)])
    return step


def rounded_shadow(step: Step) -> bool:
    network, read = step.network, step.backend.to_numpy
    held = read(network.copy16.array)
    return bool(held.tobytes() == read(network.parameters.array).astype(held.dtype).tobytes())


def test_op_by_op_launches_and_graph_have_the_same_bits(device, precision):
    """One row is not a number, once an epoch of two steps; for float16 the first scale is too large."""
    scale = LossScale(2.0**22 if precision == "float16" else 2.0**60, every=2)
    ways = {"op by op": {"replay": False}, "launches": {"graph": False}, "graph": {"graph": True}}
    steps = {how: make(device.backend(), precision, loss_scale=scale, **way) for how, way in ways.items()}
    rows, runs = source(nan=7), []
    for step in steps.values():
        given = Resident(rows, step.inputs) if precision == "float16" else rows
        runs.append(epochs(step, given, 6))
    for _ in zip(*runs, strict=True):
        first, *others = map(snapshot, steps.values())
        assert others == [first, first]
        assert {"copy16", "scaling"} <= first.keys()
        poison(steps["launches"].memory)
    for how in ("launches", "graph"):
        assert [mode.how for mode in steps[how].modes()] == [how, how]
    report = steps["graph"].report()
    assert (report.skipped > 3) == (precision == "float16")
    assert (report.loss_scale < scale.initial) == (precision == "float16")
    assert rounded_shadow(steps["graph"])


@pytest.mark.parametrize("optimizer", FULL, ids=repr)
def test_every_optimizer_writes_the_shadow_in_its_own_launch(optimizer, simulated, precision):
    step = make(simulated.backend(), precision, optimizer, layers=lambda: (Dense(64, 12), Dense(12, 10)))
    step.network.freeze("parameters", "0.W")
    for group in groups(3):
        before = step.network.copy16.array.get().tobytes()
        simulated.STATE.launches.clear()
        step(group)
        assert rounded_shadow(step)
        assert step.network.copy16.array.get().tobytes() != before
        updates = [name for name in simulated.STATE.launches if any(r in name for r in RULES)]
        assert len(updates) == 1
        assert not [name for name in simulated.STATE.launches if "cast" in name]


def test_every_op_of_a_step_in_16_bits_is_fused(device, precision):
    step = make(device.backend(), precision)
    assert {choice.version.startswith("bnengine.fused.cuda") for choice in step.network.explain_dispatch()} == {True}


def test_the_device_follows_numpy_within_16_bit_rounding(device, precision):
    """Before each step the device takes NumPy's state; loss and gradients then differ by rounding alone."""
    leader = make("numpy", precision, mode="auto", loss_scale=1024.0)
    step = make(device.backend(), precision, loss_scale=1024.0)
    read = step.backend.to_numpy
    for t, group in enumerate(groups(4)):
        step.network.load_state_dict(leader.network.state_dict())
        step.load_state_dict(leader.state_dict())
        for s in (leader, step):
            s.schedule([1e-2 * 0.9**t])
            s(group)
        np.testing.assert_allclose(read(step.state.value), leader.state.value, rtol=16 * UNIT[precision])
        got, expected = (s.network.export(s.state.gradients, s.state.pending[0]) for s in (step, leader))
        for name, array in expected.items():
            largest = np.abs(array).max()
            assert np.abs(got[name] - array).max() <= 32 * UNIT[precision] * largest, (t, name)
            assert "gamma" not in name or largest > 0


def test_an_overflow_changes_only_counters_and_scale(device):
    step = make(device.backend(), "float16", loss_scale=LossScale(2.0**40))
    kept = ("parameters", "statistics", "m", "v", "copy16", "sums")
    for n in range(1, 4):
        before = snapshot(step)
        step(groups(1)[0])
        after = snapshot(step)
        assert [name for name in kept if after[name] != before[name]] == []
        report = step.report()
        assert (report.ok, report.skipped, report.loss_scale) == (False, n, 2.0 ** (40 - n))
        assert report.longest_skip == 0
    assert np.isfinite(report.loss)


def test_products_have_16_bit_operands_and_float32_gradients(simulated, precision):
    step = make(simulated.backend(), precision, layers=lambda: (Dense(64, 12), BatchNorm(12), Dense(12, 10)))
    step(groups(1)[0])
    (plan,) = step.plans.values()
    products = [launch.kernel.plan.product for launch in plan.launches if hasattr(launch.kernel, "plan")]
    assert {product.dtype for product in products} == {precision}
    forward, dx, dW = ([p for p in products if (p.transpose_a, p.transpose_b) == which] for which in (
        (False, False), (False, True), (True, False)))  # fmt: skip
    assert {p.out_dtype for p in (*forward, *dx)} == {precision}
    assert {p.out_dtype for p in dW} == {"float32"}
    assert (len(forward), len(dx), len(dW)) == (4, 2, 4)  # two micro-batches


def test_dense_before_batch_norm_computes_no_bias_gradient(simulated):
    step = make(simulated.backend(), "highest", layers=lambda: (Dense(64, 12), BatchNorm(12), Dense(12, 10)))
    simulated.STATE.launches.clear()
    step(groups(1)[0])
    assert len([name for name in simulated.STATE.launches if "bias_activation_backward" in name]) == 2  # the last's


def test_losses_of_numbers_take_float32_targets(device, precision, rng):
    step, leader = (
        make(b, precision, mode=m, loss=MeanSquaredError(), layers=lambda: (Dense(64, 3),), loss_scale=64.0)
        for b, m in ((device.backend(), "fused"), ("numpy", "auto"))
    )
    group = [b._replace(y=rng.random((len(b.x), 3)) + 100.3) for b in groups(1)[0]]
    for s in (step, leader):
        s(group)
    np.testing.assert_allclose(step.backend.to_numpy(step.state.value), leader.state.value, rtol=4 * UNIT[precision])


def test_tf32_reaches_the_products_and_nothing_else(device):
    step = make(device.backend(), "tf32", layers=lambda: (Dense(64, 12), BatchNorm(12), Dense(12, 10)))
    assert step.network.copy16 is None
    assert step.state.scaling.array is None
    step(groups(1)[0])
    (plan,) = step.plans.values()
    products = [launch.kernel.plan.product for launch in plan.launches if hasattr(launch.kernel, "plan")]
    assert {(p.dtype, p.out_dtype, p.precision) for p in products} == {("float32", "float32", "tf32")}


def test_a_reference_in_tf32_multiplies_in_float32_and_says_so(simulated):
    network = make(simulated.backend(), "tf32").network
    fused = {choice.op: choice for choice in network.explain_dispatch()}
    assert fused["affine"].why == fused["affine_backward"].why == ""
    with using("reference"):
        plain = {choice.op: choice.why for choice in network.explain_dispatch()}
    why = "reference mode requested"
    assert plain["affine"] == plain["affine_backward"] == f"{why}; its products are float32, not tf32"
    assert plain["batch_norm"] == why
