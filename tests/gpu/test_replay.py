"""With every kind of layer: graphs, replays and eager steps have the same bytes, and so have two runs."""

from typing import Any

import numpy as np

import bnengine as bn
from bnengine.fused import backend_feature
from tests.fused.test_step import groups, layers, make
from tests.fused.training import X, Y, snapshot
from tests.support import poison

CYCLE = 30  # steps; one of them is skipped for a NaN in its input, every third is ragged, all accumulate two batches


def test_eager_launched_and_graph_steps_have_the_same_bytes(device, many):
    steps = many(1000, 7)
    eager, launched, graph = (
        make(device.backend(), "fused", **how) for how in ({"replay": False}, {"graph": False}, {"graph": True})
    )
    cycle = groups(CYCLE)
    for t in range(steps):
        for step in (eager, launched, graph):
            step(cycle[t % CYCLE])
        if t < 10 or t % 25 == 0 or t == steps - 1:
            expected = snapshot(eager)
            assert snapshot(launched) == expected, f"launch by launch, step {t}"
            assert snapshot(graph) == expected, f"as a graph, step {t}"
    assert eager.modes() == []
    assert {mode.how for mode in launched.modes()} == {"launches"}
    assert {mode.how for mode in graph.modes()} == {"graph"}
    assert len(graph.modes()) == 2
    assert all(mode.launches > 50 for mode in graph.modes())
    assert graph.report().skipped == sum(t % CYCLE == 4 for t in range(steps))


def test_capturing_a_step_runs_nothing_and_changes_nothing(device):
    step = make(device.backend(), "fused", graph=False)
    group = groups(1)[0]
    step(group)
    poison(step.memory)  # what the step wrote on its way: an operation that ran would overwrite it
    before, held = snapshot(step), [b.get().tobytes() for b in step.memory.outputs_held._bytes]
    (plan,) = step.plans.values()
    again = backend_feature("cupy", "replayer")(plan)
    assert callable(again), again
    device.backend().synchronize()
    assert snapshot(step) == before
    assert [b.get().tobytes() for b in step.memory.outputs_held._bytes] == held
    twin = make(device.backend(), "fused", replay=False)
    twin(group)
    assert snapshot(twin) == before
    again()
    twin(group)
    device.backend().synchronize()
    assert snapshot(step) == snapshot(twin)


def test_two_runs_give_the_same_bytes(device, many):
    runs, cycle = [], groups(CYCLE)
    for _ in range(2):
        step = make(device.backend(), "fused", graph=True)
        for t in range(many(300, 6)):
            step(cycle[t % CYCLE])
        runs.append(snapshot(step))
    assert runs[0] == runs[1]


def trained(device: Any, epochs: int, **options: Any) -> dict[str, bytes]:
    network = bn.Sequential(*layers(), backend=device.backend(), seed=3)
    trainer = bn.Trainer(network, "adamw", learning_rate=2e-3, clip_norm=1.0, progress="quiet", **options)
    trainer.fit((X[:300], Y[:300]), epochs=epochs, batch_size=64)
    return {name: np.asarray(a).tobytes() for name, a in network.state_dict().items()}


def test_a_training_has_the_same_bytes_however_it_runs(device, many):
    epochs = many(20, 1)
    expected = trained(device, epochs, graph=False, resident=False)
    for graph in (True, False):
        for resident in (True, False):
            assert trained(device, epochs, graph=graph, resident=resident) == expected, (graph, resident)
