"""Layers from outside bnengine: those that launch the same in every step are replayed, and no others."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bnengine as bn
from bnengine import ops
from bnengine.data import Batch
from bnengine.fused.cpu import _load
from bnengine.layers import Activation, BatchNorm, Dense, Layer, Residual
from bnengine.layers.initializers import He
from bnengine.losses import SoftmaxCrossEntropy
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import Adam
from bnengine.runtime.flat import Parameter
from bnengine.runtime.plan import Launch, Plan
from bnengine.training.confirmation import custom_classes, difference
from bnengine.training.step import Step
from tests.cpu.same_bits import state
from tests.runtime.toy import installed
from tests.support import missing
from tests.training.support import blobs

X, Y = blobs(200, 6)


@pytest.fixture(params=["native", "toy"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "toy":
        installed(monkeypatch)
    elif reason := _load.available():
        missing("kernels", reason)
    return request.param


class Steady(BatchNorm):
    """As its base class."""


class Drifting(BatchNorm):
    """Another eps in every step."""

    def forward(self, x: Any, run: Any) -> Any:
        self.eps *= 2
        return super().forward(x, run)


class Once(BatchNorm):
    """Another eps from the fifth step on: later than anybody looks."""

    steps = 0

    def forward(self, x: Any, run: Any) -> Any:
        self.steps += 1
        self.eps = 1e-5 if self.steps < 5 else 1e-3
        return super().forward(x, run)


class Alternating(Layer):
    """x W, with one W in every other step, and the other in the rest."""

    def __init__(self) -> None:
        self.Ws, self.turn = [Parameter((8, 8), He()) for _ in range(2)], 0

    def handles(self) -> dict[str, Any]:
        return {"first": self.Ws[0], "second": self.Ws[1]}

    def forward(self, x: Any, run: Any) -> Any:
        self.turn = 1 - self.turn
        W = self.Ws[self.turn]
        y = ops.affine(x, W.value, memory=run.memory)

        def pullback(dy: Any, grads: Any, **_: Any) -> Any:
            into = grads.into(dW=W)
            return ops.affine_backward(dy, x, W.value, y, bias_gradient=False, memory=run.memory, into=into).dx

        return y, pullback


class Growing(Alternating):
    """x W, and from the second step on x W W."""

    def forward(self, x: Any, run: Any) -> Any:
        y, pull = super().forward(x, run)
        if not self.turn:
            return y, pull
        z, again = super().forward(y, run)
        self.turn = 1
        return z, lambda dy, grads, **more: pull(again(dy, grads), grads, **more)


def make(layer: Layer, *, replay: bool = True) -> Step:
    network = Sequential(Dense(6, 8), layer, BatchNorm(8), Activation("relu"), Dense(8, 3), backend="numpy", seed=2)
    step = Step(network, Adam(), SoftmaxCrossEntropy(), replay=replay)
    step.schedule([1e-2] * 40)
    return step


def batch(rows: int = 20, start: int = 0) -> list[Batch]:
    chosen = np.arange(start, start + rows)
    return [Batch(X[chosen], Y[chosen], None, chosen)]


def as_eager(layer: Callable[[], Layer], rows: tuple[int, ...] = (20,) * 8) -> Step:
    """The step of a network with this layer, replayed where it can be, once it gave the bits of one op by op."""
    eager, replayed = make(layer(), replay=False), make(layer())
    for i, n in enumerate(rows):
        for step in (eager, replayed):
            step(batch(n, 10 * i))
        assert state(eager) == state(replayed), f"step {i + 1}"
    return replayed


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (lambda: Drifting(8), "class Drifting .* with [^(]*, then with "),
        (Alternating, "class Alternating .* on other memory"),
        (Growing, "class Growing "),
    ],
    ids=["Drifting", "Alternating", "Growing"],
)
def test_a_layer_whose_steps_differ_runs_op_by_op_and_is_named(layer, why) -> None:
    (mode,) = as_eager(layer).modes()
    assert mode.how == "op by op"
    assert re.search(why, mode.why), mode.why
    assert "ran different operations in two steps (" in mode.why


def test_a_layer_of_equal_steps_is_replayed_from_the_third(library) -> None:
    step = make(Steady(8))
    for _ in range(2 + (library == "toy")):  # whose scratch grows in the first step, which therefore does not count
        step(batch())
        assert not step.modes()
    step(batch())
    (mode,) = step.modes()
    assert mode.how == ("one call" if library == "native" else "launches")
    as_eager(lambda: Steady(8))


def test_a_layer_of_bnengine_is_replayed_from_the_second_on() -> None:
    step = make(BatchNorm(8))
    step(batch())
    assert not step.modes()
    step(batch())
    assert [mode.how == "op by op" for mode in step.modes()] == [False]


def test_memory_that_grows_meanwhile_is_no_difference() -> None:
    rows = (10, 20, 40, 10, 20, 40, 10, 20, 40, 10, 20, 40)
    modes = as_eager(lambda: Steady(8), rows).modes()
    assert [mode.how == "op by op" for mode in modes] == [False] * 3


def test_every_shape_is_looked_at_on_its_own() -> None:
    modes = as_eager(lambda: Drifting(8), (20, 10) * 4).modes()
    assert [mode.how for mode in modes] == ["op by op"] * 2


@pytest.mark.parametrize("kind", [Steady, BatchNorm])
def test_an_attribute_set_between_steps_counts_from_then_on(kind) -> None:
    eager, replayed = make(kind(8), replay=False), make(kind(8))
    for eps in (1e-5, 1e-3, 1e-1):
        for step in (eager, replayed):
            step.network.layers[1].eps = eps
            for _ in range(6):
                step(batch())
        assert state(eager) == state(replayed)
        assert [mode.how == "op by op" for mode in replayed.modes()] == [False]


def test_an_attribute_set_between_predictions_counts() -> None:
    network = make(Steady(8)).network
    network.forward(X, training=True)
    network.load_state_dict({k: np.ones_like(v) for k, v in network.state_dict().items()})
    wanted = []
    for eps in (1e-5, 1e-1, 1e-5):
        network.layers[1].eps = eps
        found = {network.predict(X[:9]).tobytes() for _ in range(3)}
        assert found == {network.forward(X[:9], training=False).output.tobytes()}
        wanted += found
    assert wanted[0] == wanted[2] != wanted[1]


def test_what_a_layer_changes_after_the_second_step_is_not_seen() -> None:
    """The documented limit."""
    eager, replayed = make(Once(8), replay=False), make(Once(8))
    for step in (eager, replayed):
        for _ in range(8):
            step(batch())
    assert state(eager) != state(replayed)


def test_the_log_says_why(capsys) -> None:
    network = Sequential(Dense(6, 8), Drifting(8), Dense(8, 3), backend="numpy")
    bn.Trainer(network, progress="plain").fit((X, Y), epochs=2, batch_size=50)
    written = "".join(capsys.readouterr())
    assert "steps run op by op: custom class Drifting ran different operations" in written


def test_custom_layers_and_losses_are_found() -> None:
    class Own(SoftmaxCrossEntropy):
        pass

    def found(layer: Layer, loss: Any) -> list[str]:
        network = Sequential(Dense(6, 8), Residual(Dense(8, 8), layer), Dense(8, 3), backend="numpy")
        return Step(network, Adam(), loss)._custom_classes()

    assert found(BatchNorm(8), SoftmaxCrossEntropy()) == []
    assert found(Steady(8), SoftmaxCrossEntropy()) == ["Steady"]
    assert found(BatchNorm(8), Own()) == ["Own"]
    assert custom_classes([1, Dense(2, 2)]) == ["int"]


def kernel(*_: Any) -> None:
    pass


def plan(*launches: Launch) -> Plan:
    made = Plan()
    made.launches.extend(launches)
    return made


def test_recordings_differ_in_kernels_scalars_memory_and_number() -> None:
    a, b = np.zeros((3, 4)), np.zeros((3, 4))
    one = Launch(kernel, reads=(a, None), writes=(b,), scalars=(1, float("nan"), np.float32(2)))
    same = Launch(kernel, reads=(a[:], None), writes=(b[:],), scalars=(1, float("nan"), np.float32(2)))
    assert difference(plan(one, one), plan(same, one)) == ""
    a[:] = 5
    assert difference(plan(one), plan(same)) == ""
    others = {
        "<lambda>": one._replace(kernel=lambda *_: None),
        "kernel with 1, nan, 2.0, then with 1, nan, 3.0": one._replace(scalars=(1, float("nan"), np.float32(3))),
        "kernel with 1, nan, 2.0, then with 1.0, ": one._replace(scalars=(1.0, float("nan"), np.float32(2))),
        "kernel on other memory": one._replace(reads=(a.copy(), None)),
    }
    for what, other in others.items():
        assert what in difference(plan(one), plan(other))
    for other in (one._replace(reads=(a.T, None)), one._replace(reads=(a, a)), one._replace(split=0)):
        assert difference(plan(one), plan(other)) == "kernel on other memory"
    assert difference(plan(one), plan(one._replace(reads=(a.view(np.int64), None)))) == "kernel on other memory"
    assert difference(plan(one, one), plan(one)) == "2 launches, then 1"
