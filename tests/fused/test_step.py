"""Whole training steps on the simulated device: recorded and replayed, and compared with NumPy step by step."""

from typing import Any

import numpy as np
import pytest

from bnengine import data, ops
from bnengine.contracts.update import by_new_state
from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Layer, Residual
from bnengine.losses import BinaryCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import AdamW
from bnengine.runtime.memory import Arena
from bnengine.training import step as steps
from tests.contracts.cases import assert_within
from tests.fused.training import X, Y, snapshot
from tests.optimizers import FULL
from tests.support import poison

PLANTED = 4  # the step whose input holds a NaN
# What the order of sums may be worth in a small network, as a share of a tensor's largest element. That each op keeps
# its own bound is tested in tests/contracts; here a wrong address, a lost term or a stale buffer is to show.
TOLERANCE = {"float32": 2.0**-24 * 2**10, "float64": 2.0**-53 * 2**10}


def layers() -> tuple[Layer, ...]:
    """Every kind of layer, widths that are and are not a multiple of 16 bytes."""
    first = Dense(64, 20), BatchNorm(20), Activation("relu"), Dropout(0.2)
    body = Dense(20, 20), BatchNorm(20, decay=None), Activation("gelu"), Dense(20, 20), BatchNorm(20)
    second = Residual(*body), Activation("leaky_relu"), Dense(20, 7), Activation("tanh")
    return *first, *second, BatchNorm(7, gamma=False), Dense(7, 10)


def make(backend: Any, mode: Any = "auto", optimizer: Any = None, *, dtype: str = "float32", **options: Any) -> Any:
    network = Sequential(*options.pop("layers", layers)(), backend=backend, dtype=dtype, seed=2)
    loss = options.pop("loss", SoftmaxCrossEntropy(label_smoothing=0.1))
    options = {"clip_norm": 1.0, **options}
    step = steps.Step(network, optimizer or AdamW(weight_decay=0.01), loss, memory=Arena(mode), **options)
    step.schedule([1e-2 * 0.9**t for t in range(40)])
    return step


def groups(count: int, rows: int = 24) -> list[list[data.Batch]]:
    """Micro-batches of 24 and 13 rows; every third group is ragged; the weights vary; one input is not a number."""
    rng, made = np.random.default_rng(0), []
    for t in range(count):
        sizes = (rows, 13) if t % 3 else (rows, 9)
        group = []
        for size in sizes:
            chosen = rng.integers(0, len(X), size)
            x = X[chosen]
            if t == PLANTED:
                x[3, 5] = np.nan
            group.append(data.Batch(x, Y[chosen], rng.random(size) + 0.5, chosen))
        made.append(group)
    return made


def test_a_replayed_step_is_the_eager_one_byte_for_byte(device):
    eager, replayed = (make(device.backend(), "fused", replay=replay) for replay in (False, True))
    for group in groups(6):
        device.STATE.schedule = "forward"
        eager(group)
        device.STATE.schedule = "shuffled"
        poison(replayed.memory)
        replayed(group)
        assert snapshot(eager) == snapshot(replayed)
    assert not eager.plans
    assert len(replayed.plans) == 2
    assert all(not plan.reasons and len(plan.launches) > 50 for plan in replayed.plans.values())
    report = replayed.report()
    assert (report.steps, report.skipped) == (5, 1)


def test_a_replay_launches_what_was_recorded_and_nothing_else(simulated):
    step = make(simulated.backend(), "fused")
    simulated.STATE.launches.clear()
    step(groups(1)[0])
    (plan,) = step.plans.values()
    recorded, nbytes, products = list(simulated.STATE.launches), step.memory.nbytes, simulated.STATE.model.streams
    assert len(recorded) + len(products) <= len(plan.launches)
    count = len(products)
    simulated.STATE.launches.clear()
    used, simulated.streams.POOL.total = simulated.streams.POOL.used, simulated.streams.POOL.used
    plan.replay()
    assert simulated.STATE.launches == recorded
    assert len(products) == 2 * count
    assert step.memory.nbytes == nbytes
    assert used == simulated.streams.POOL.used == simulated.streams.POOL.total


@pytest.mark.parametrize("optimizer", FULL, ids=repr)
def test_every_optimizer_runs_fused_with_frozen_parameters(optimizer, device):
    def small() -> tuple[Layer, ...]:
        return Dense(64, 12), BatchNorm(12), Activation("relu"), Dense(12, 10)

    step = make(device.backend(), "fused", optimizer, layers=small)
    step.network.freeze("parameters", "0.W", "1.beta")
    for t, group in enumerate(groups(3)):
        checked_step(step, group, f"step {t}")


@pytest.mark.parametrize(
    ("loss", "outputs"), [(BinaryCrossEntropy(), 1), (MeanSquaredError(), 3)], ids=lambda v: getattr(v, "name", "")
)
def test_losses_of_numbers_run_fused(loss, outputs, device, rng):
    def small() -> tuple[Layer, ...]:
        return Dense(64, 12), BatchNorm(12), Activation("relu"), Dense(12, outputs)

    step, leader = (make(b, m, loss=loss, layers=small) for b, m in ((device.backend(), "fused"), ("numpy", "auto")))
    group = [b._replace(y=rng.random((len(b.x), outputs))) for b in groups(1)[0]]
    for s in (step, leader):
        s(group)
    compare(made(step), made(leader), "float32", loss.name)


def made(step: Any) -> dict[str, np.ndarray]:
    """Loss, gradients and pending statistics of the last step."""
    fetch = step.backend.to_numpy
    found = {
        "loss": fetch(step.state.value),
        "norm": fetch(step.state.checked.norm),
        "correct": fetch(step.state.correct),
    }
    return found | step.network.export(step.state.gradients, step.state.pending[0])


def compare(got: dict[str, Any], expected: dict[str, Any], dtype: str, what: str) -> None:
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        finite = np.abs(array[np.isfinite(array)])
        largest = max(finite.max(initial=0.0), TOLERANCE[dtype])
        assert_within(got[name], array, TOLERANCE[dtype] * largest, f"{what}, {name}")


def checked_step(step: Any, group: list[data.Batch], what: str) -> None:
    """One step; then the update against the references of the ops in float64, on the step's own gradients."""
    network, fetch = step.network, lambda a: np.array(step.backend.to_numpy(a))
    old = [fetch(a) for a in (network.parameters.array, *(f.array for f in step.state.slots.values() if f is not None))]
    running, counters = fetch(network.statistics.array), fetch(step.state.counters)
    step(group)
    value, gradients, proposed = (
        fetch(step.state.value),
        fetch(step.state.gradients.array),
        fetch(step.state.pending_array),
    )
    u, (ok, norm, factor) = 2.0 ** (-24 if network.dtype == "float32" else -53), map(fetch, step.state.checked[:3])
    wide = [np.float64(a) for a in (value, gradients, proposed)]
    with np.errstate(all="ignore"):
        judged = ops.check_step.reference(*wide, clip=step.state.clip_norm)
    assert ok == judged.ok, what
    assert_within(norm, judged.norm, 1e-12 * np.abs(judged.norm), f"{what}, norm")
    assert_within(factor, judged.factor, 10 * u, f"{what}, factor")
    slots = iter(old[1:])
    state = [None if flat is None else np.float64(next(slots)) for flat in step.state.slots.values()]
    args = (np.float64(old[0]), wide[1], *state, fetch(step.state.table.array), counters, ok, np.float64(factor))
    options = {"decay_end": network.decay_end, **step.state.optimizer.options()}
    frozen = network.parameters.ranges(h for h in network.named_handles().values() if getattr(h, "frozen", False))
    op = step.state.optimizer.op
    with np.errstate(all="ignore"):
        result = op.reference(*args, frozen=frozen, **options)
        bound = op.contract.bound(u, *by_new_state(op, args, result), **options)._asdict()
    after = [network.parameters.array, *(None if f is None else f.array for f in step.state.slots.values())]
    assert result.copy16 is None
    for name, expected, got in zip(op.fields, result, after, strict=False):
        if expected is not None:
            still = 20 * u * np.abs(args[0])  # no gradient yet: nothing but weight decay moves it
            allowed = np.where(np.isfinite(bound[name]), bound[name], still)
            assert_within(fetch(got), expected, allowed, f"{what}, {name}")
    args = (running, proposed[0], ok, *map(fetch, network.commit_rules))
    expected = ops.commit.reference(*args)
    assert_within(fetch(network.statistics.array), expected, ops.commit.contract.bound(u, *args), f"{what}, statistics")
    if not ok:
        assert fetch(network.parameters.array).tobytes() == old[0].tobytes()


def train_beside_numpy(device: Any, dtype: str, count: int) -> Any:
    """Before each step the device takes NumPy's state; then both step."""
    leader, step = make("numpy", dtype=dtype), make(device.backend(), "fused", dtype=dtype)
    for t, group in enumerate(groups(count)):
        step.network.load_state_dict(leader.network.state_dict())
        step.load_state_dict(leader.state_dict())
        rate = [1e-2 * 0.9**t]
        step.schedule(rate)
        leader.schedule(rate)
        leader(group)
        checked_step(step, group, f"step {t}")
        compare(made(step), made(leader), dtype, f"step {t}")
        assert step.report()[2:] == leader.report()[2:]
    return step


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_of_ragged_micro_batches_agree_with_numpy_s(dtype, device):
    step = train_beside_numpy(device, dtype, 7)
    assert step.report().skipped == 1
    assert len(step.plans) == 2
    assert not any(plan.reasons for plan in step.plans.values())


def test_every_op_of_a_network_takes_its_fused_version(device):
    network = Sequential(*layers(), backend=device.backend())
    choices = network.explain_dispatch()
    assert {choice.library for choice in choices} == {"cupy"}
    for choice in choices:
        assert choice.version.startswith("bnengine.fused.cuda."), choice
        assert choice.why == ""
