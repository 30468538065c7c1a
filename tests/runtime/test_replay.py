"""A recorded step replayed: the same bytes, the same memory, and every setting that is baked in."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bnengine import data
from bnengine.errors import InputError
from bnengine.layers import Activation, BatchNorm, Dense, Layer, deliver
from bnengine.losses import SoftmaxCrossEntropy
from bnengine.network.sequential import Sequential
from bnengine.ops import using
from bnengine.optim.optimizers import Adam
from bnengine.runtime.flat import Parameter
from bnengine.runtime.memory import Arena
from bnengine.runtime.plan import Obstacle
from bnengine.training.step import Step
from tests.support import give_versions, poison

from .toy import installed, replay_by_blocks

DIGITS = data.load_digits()
X, Y = (DIGITS.x.reshape(-1, 64) / 16).astype(np.float32), DIGITS.y


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)


def network(width: int = 24) -> Sequential:
    hidden = [Dense(64, width), BatchNorm(width), Activation("relu"), Dense(width, width), BatchNorm(width)]
    return Sequential(*hidden, Activation("relu"), Dense(width, 10), backend="numpy")


def batch(rows: np.ndarray) -> data.Batch:
    return data.Batch(X[rows], Y[rows], None, rows)


def make(**options: Any) -> Step:
    with using("fused"):
        memory = Arena()
    step = Step(network(), options.pop("optimizer", Adam()), SoftmaxCrossEntropy(), memory=memory, **options)
    step.schedule([1e-3 * 0.99**t for t in range(400)])
    return step


def groups(steps: int) -> list[list[data.Batch]]:
    """Two micro-batches of 32, the last group of an epoch ragged; one NaN on the way."""
    rng, made = np.random.default_rng(0), []
    for i in range(steps):
        rows = rng.integers(0, len(X), 64 if i % 8 else 45)
        group = [batch(rows[:32]), batch(rows[32:])]
        if i == steps // 2:
            x = group[1].x.copy()
            x[3, 5] = np.nan
            group[1] = group[1]._replace(x=x)
        made.append(group)
    return made


def snapshot(step: Step) -> list[bytes]:
    network = step.network
    arrays = [
        network.parameters.array,
        network.statistics.array,
        step.state.counters,
        step.state.sums,
        step.state.value,
    ]
    arrays += [a for a in step.state.checked if a is not None]
    return [a.tobytes() for a in (*arrays, *(flat.array for flat in step.state.slots.values() if flat is not None))]


@pytest.mark.parametrize("statistics", ["merged", "per_micro_batch"])
@pytest.mark.parametrize("steps", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_replayed_training_is_eager_training_byte_for_byte(steps: int, statistics: Any) -> None:
    eager, replayed = (make(replay=replay, clip_norm=1.0, statistics=statistics) for replay in (False, True))
    for i, group in enumerate(groups(steps)):
        if i == steps // 3:
            for step in (eager, replayed):
                step.schedule([1e-2 * 0.99**t for t in range(2 * steps)])
        eager(group)
        replayed(group)
        assert snapshot(eager) == snapshot(replayed)
    assert not eager.plans
    assert len(replayed.plans) == 2
    assert all(not plan.reasons and len(plan.launches) > 20 for plan in replayed.plans.values())
    assert replayed.report().skipped == 1


def test_replay_by_blocks_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, blocks = make(), make()
    group = [batch(np.arange(50))]
    for step in (whole, blocks):
        step(group)
    (plan,) = blocks.plans.values()
    monkeypatch.setattr(plan, "replay", lambda: replay_by_blocks(plan, 24))
    for _ in range(5):
        whole(group)
        blocks(group)
    assert snapshot(whole) == snapshot(blocks)


def test_memory_full_of_nan_before_a_step_changes_nothing() -> None:
    clean, poisoned = make(), make()
    for group in groups(10):
        clean(group)
        poison(poisoned.memory)
        poisoned(group)
    assert snapshot(clean) == snapshot(poisoned)


def test_a_larger_batch_retires_plans_of_older_memory() -> None:
    eager, replayed = make(replay=False), make()
    for rows in (20, 20, 64, 20, 20):
        for step in (eager, replayed):
            step([batch(np.arange(rows))])
    assert snapshot(eager) == snapshot(replayed)


@pytest.mark.parametrize("change", ["clip_norm", "optimizer", "freeze", "freeze parameters"])
def test_another_setting_is_another_plan(change: str) -> None:
    eager, replayed = make(replay=False, clip_norm=0.5), make(clip_norm=0.5)
    for i in range(6):
        for step in (eager, replayed):
            if i == 3 and change == "clip_norm":
                step.state.clip_norm = 0.1
            if i == 3 and change == "optimizer":
                step.state.optimizer = replace(step.state.optimizer, beta1=0.5)
            if i == 3 and change == "freeze":
                step.network.freeze("statistics", "1")
            if i == 3 and change == "freeze parameters":
                step.network.freeze("parameters", "0.W")
            step([batch(np.arange(40))])
        assert snapshot(eager) == snapshot(replayed)
    assert len(replayed.plans) == 2


def test_what_is_frozen_again_keeps_nothing_of_the_time_between() -> None:
    names = {"parameters": "0.W", "statistics": "1"}
    eager, replayed = make(replay=False, clip_norm=0.5), make(clip_norm=0.5)
    for frozen in (True, False, True, False, True):
        for step in (eager, replayed):
            change = step.network.freeze if frozen else step.network.thaw
            for kind, name in names.items():
                change(kind, name)
            for _ in range(2):
                step([batch(np.arange(40))])
                exported = step.network.export(step.state.gradients, step.state.pending[0])
                assert exported["0.W"].any() != frozen
                assert exported["1.running_count"].any() != frozen
        assert snapshot(eager) == snapshot(replayed)
    assert len(replayed.plans) == 2


def test_an_op_without_a_fused_version_makes_the_step_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    give_versions(monkeypatch, {"correct": None})
    step = Step(network(), Adam(), SoftmaxCrossEntropy())
    for _ in range(3):
        step([batch(np.arange(40))])
    (plan,) = step.plans.values()
    assert plan.reasons == [Obstacle(op="correct")]


class Shifted(Layer):
    """x + b, without an op."""

    def __init__(self) -> None:
        self.b = Parameter((24,))

    def handles(self) -> Any:
        return {"b": self.b}

    def forward(self, x: Any, run: Any) -> Any:
        def pullback(dy: Any, grads: Any, *, dx: Any = True) -> Any:
            grads.put(self.b, dy.sum(0))
            return deliver(dy, dx, run.memory)

        return x + self.b.value, pullback


class Unmoved(Shifted):
    """x unchanged; b gets a gradient all the same, which no launch reads before the end of the step."""

    def forward(self, x: Any, run: Any) -> Any:
        return x, super().forward(x, run)[1]


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (Shifted, "what _affine reads was computed outside the ops"),
        (Unmoved, "a layer computed gradients outside the ops"),
    ],
)
def test_a_layer_that_computes_without_ops_makes_the_step_eager(layer: Any, why: str) -> None:
    def made(**options: Any) -> Step:
        layers = Dense(64, 24), layer(), Dense(24, 10)
        step = Step(Sequential(*layers, backend="numpy"), Adam(), SoftmaxCrossEntropy(), **options)
        step.schedule([1e-2] * 10)
        return step

    eager, replayed = made(replay=False), made()
    for i in range(4):
        for step in (eager, replayed):
            step([batch(np.arange(40 * i, 40 * i + 40))])
        assert snapshot(eager) == snapshot(replayed)
    (mode,) = replayed.modes()
    assert mode.how == "op by op"
    assert why in mode.why


def test_a_stale_forward_raises() -> None:
    memory, net = Arena(), network()
    first = net.forward(X[:8], training=True, memory=memory)
    net.forward(X[:8], training=True, memory=memory)
    with pytest.raises(InputError, match=r"output: another forward pass has begun"):
        _ = first.output
    with pytest.raises(InputError, match=r"pullback: another forward pass has begun"):
        first.pullback(np.ones((8, 10), np.float32), net.gradients())


def test_a_batch_without_statistics_leaves_none_pending() -> None:
    def made(**options: Any) -> Step:
        layers = Dense(64, 24), BatchNorm(24, one_value="running"), Activation("relu"), Dense(24, 10)
        return Step(Sequential(*layers, backend="numpy"), Adam(), SoftmaxCrossEntropy(), **options)

    eager, replayed = made(replay=False), made()
    for rows in (8, 1, 8, 1, 1, 8, 8, 1):
        for step in (eager, replayed):
            before = step.network.statistics.array.copy()
            step([batch(np.arange(rows))])
            assert np.array_equal(before, step.network.statistics.array) == (rows == 1)
        assert snapshot(eager) == snapshot(replayed)
    assert len(replayed.plans) == 2
