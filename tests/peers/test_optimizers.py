"""Fifty training steps of every optimizer against PyTorch's, in float64 and from the same weights.

Parameters, the optimizer's state and the running statistics after every step. A step of two correct engines differs by
some 100 u of each value (sums of 20 rows, products of three matrices), and 50 steps add up to 5000 u = 6e-13. An
earlier difference grows by what training does to it, which a test here measures: less than GROWTH times within the 50
steps. Together 6e-12 of the largest value of each array; TOLERANCE is the power of ten above.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from bnengine.data import Batch
from bnengine.layers import Activation, BatchNorm, Dense, Layer, Residual
from bnengine.losses import SoftmaxCrossEntropy
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import SGD, Adam, AdamW, Optimizer
from bnengine.training.state import Average
from bnengine.training.step import Step
from tests.optimizers import TABLE, VARIANTS, moved
from tests.peers.twin import Twin, array

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("torch")]
STEPS, ROWS, TOLERANCE, GROWTH = 50, 20, 1e-11, 10

EVERY = pytest.mark.parametrize("name", list(VARIANTS))


def network(*, norm: bool = True, seed: int = 1) -> Sequential:
    """8-12-12-5 with weights, biases, gammas and betas; with `norm` two batch norms, one with a residual sum."""
    body: list[Layer] = [Dense(12, 12), BatchNorm(12)] if norm else [Dense(12, 12)]
    first: list[Layer] = [BatchNorm(12)] if norm else []
    layers = [Dense(8, 12), *first, Activation("tanh"), Residual(*body), Activation("gelu"), Dense(12, 5)]
    return Sequential(*layers, dtype="float64", seed=seed)


def batches(rows: int = ROWS, steps: int = STEPS) -> list[Batch]:
    """A task that can be learnt in part, so that gradients neither vanish nor stay."""
    rng = np.random.default_rng(11)
    teacher = rng.standard_normal((8, 5))
    made = []
    for i in range(steps):
        x = rng.standard_normal((rows, 8)) * 2 + 1
        y = (x @ teacher + rng.standard_normal((rows, 5))).argmax(axis=1)
        made.append(Batch(x, y, None, np.arange(rows) + rows * i))
    return made


def rates(learning_rate: float) -> list[float]:
    """A learning rate that changes in every step."""
    return [learning_rate * (1 - 0.5 * i / STEPS) for i in range(STEPS)]


def slots_of(race: "Race", slot: str) -> dict[str, np.ndarray]:
    """A slot of the other optimizer's state by our names."""
    return race.twin.state(race.theirs, slot, race.step.state.optimizer.name)


def parts(batch: Batch, sizes: Sequence[int]) -> list[Batch]:
    """Micro-batches of these sizes."""
    edges = np.cumsum([0, *sizes])
    assert edges[-1] == len(batch.x)
    return [Batch(batch.x[a:b], batch.y[a:b], None, batch.samples[a:b]) for a, b in pairwise(edges)]


def assert_close(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], what: str) -> None:
    """Each array to TOLERANCE of its largest value."""
    for name, expected in theirs.items():
        assert ours[name].shape == expected.shape
        error = np.abs(ours[name] - expected).max()
        assert error <= TOLERANCE * np.abs(expected).max(), (
            f"{what}, {name}: off by {error:.3g} of {np.abs(expected).max():.3g}"
        )


class Race:
    """Our training step and PyTorch's, from the same weights."""

    def __init__(
        self,
        optimizer: Optimizer,
        learning_rate: float,
        *,
        norm: bool = True,
        **options: Any,
    ) -> None:
        self.network = network(norm=norm)
        self.step = Step(self.network, optimizer, SoftmaxCrossEntropy(), **options)
        self.step.schedule(rates(learning_rate))
        self.twin = Twin(self.network)
        self.start = self.twin.values()
        self.rates = iter(rates(learning_rate))
        self.theirs = self.twin.optimizer(optimizer) or ByHand(self.twin, optimizer)
        self.torch = self.twin.torch

    def count_step(
        self, batch: Batch, sizes: Sequence[int] = (ROWS,), *, clip: float | None = None
    ) -> tuple[float, float]:
        """One step of both over micro-batches of these sizes; PyTorch's loss and gradient norm."""
        self.step(parts(batch, sizes))
        rate = next(self.rates)
        for group in self.theirs.param_groups:
            group["lr"] = rate
        self.theirs.zero_grad()
        total = 0.0
        for part in parts(batch, sizes):
            output = self.twin(self.twin.tensor(part.x), training=True)
            loss = (
                self.torch.nn.functional.cross_entropy(output, self.torch.tensor(part.y)) * len(part.x) / len(batch.x)
            )
            loss.backward()
            total += float(loss.detach())
        trained = [t for t in self.twin.tensors.values() if t.requires_grad]
        norm = float(self.torch.nn.utils.clip_grad_norm_(trained, np.inf if clip is None else clip))
        if clip is not None and norm + 1e-6 > clip:
            # PyTorch divides by norm + 1e-6, so that its clipped norm falls short of the bound; ours reaches it.
            for tensor in trained:
                tensor.grad.mul_((norm + 1e-6) / max(norm, clip))
        self.theirs.step()
        return total, norm

    def check(self, what: str) -> None:
        """Parameters, running statistics and optimizer state."""
        assert_close(self.network.state_dict(), self.twin.values(), what)
        state = self.step.state_dict()
        for slot in (name for name, flat in self.step.state.slots.items() if flat is not None):
            ours = {n: state[f"optimizer.{slot}.{n}"] for n in self.network.named_parameters()}
            assert_close(ours, slots_of(self, slot), f"{what}, {slot}")

    def moved(self) -> float:
        """By how much a value has moved at most."""
        return max(float(np.abs(v - self.start[n]).max()) for n, v in self.twin.values().items())


@EVERY
def test_fifty_steps(name: str) -> None:
    optimizer, learning_rate = VARIANTS[name]
    race = Race(optimizer, learning_rate)
    for i, batch in enumerate(batches()):
        loss, norm = race.count_step(batch)
        report = race.step.report()
        assert report.loss == pytest.approx(loss, rel=TOLERANCE)
        assert report.norm == pytest.approx(norm, rel=TOLERANCE)
        race.check(f"step {i + 1}")
    assert race.step.report().steps == STEPS
    assert race.moved() > 0.1, "a training that goes nowhere compares nothing"


@pytest.mark.parametrize("name", [name for name, (one, _) in VARIANTS.items() if not TABLE[one.name].jumps])
def test_what_an_early_difference_grows_to(torch: Any, name: str) -> None:
    """The factor that TOLERANCE is derived with."""
    optimizer, learning_rate = VARIANTS[name]
    results = []
    for delta in (0.0, 1e-7):
        race = Race(optimizer, learning_rate)
        rng = np.random.default_rng(3)
        with torch.no_grad():
            for tensor in race.twin.tensors.values():
                tensor.mul_(1 + delta * race.twin.tensor(rng.uniform(-1, 1, tuple(tensor.shape))))
        for batch in batches():
            race.count_step(batch)
        states = {f"{s}.{n}": v for s, f in race.step.state.slots.items() if f for n, v in slots_of(race, s).items()}
        results.append(race.twin.values() | states)
    growth = max(np.abs(results[1][n] - v).max() / np.abs(v).max() for n, v in results[0].items()) / 1e-7
    assert growth < GROWTH


@pytest.mark.parametrize("resumed", [False, True], ids=["in one go", "resumed"])
@pytest.mark.parametrize("optimizer", [SGD(momentum=0.9), Adam(), AdamW(amsgrad=True)], ids=lambda o: type(o).__name__)
def test_a_rate_that_stays_needs_one_entry(optimizer: Optimizer, resumed: bool) -> None:
    """The bias correction of Adam goes on where the rate does not change, and counts from a loaded state."""
    race = Race(optimizer, 0.01)
    race.rates = iter([0.01] * STEPS)
    race.step.schedule([0.01])
    for i, batch in enumerate(batches()):
        if resumed and i == 20:
            saved = race.step.state_dict()
            race.step = Step(race.network, optimizer, SoftmaxCrossEntropy())
            race.step.schedule([0.01])
            race.step.load_state_dict(saved)
        race.count_step(batch)
        race.check(f"step {i + 1}")


# -- what PyTorch has no twin of: its gradients, and the formula of the table ------------------------------------------


class ByHand:
    """The interface of an optimizer of PyTorch's over a formula."""

    def __init__(self, twin: Twin, ours: Optimizer) -> None:
        self.twin, self.ours, self.steps = twin, ours, 0
        self.param_groups: list[dict[str, Any]] = [{}]
        self.trained = {n: t for n, t in twin.tensors.items() if t.requires_grad}
        self.kept: dict[Any, dict[str, Any]] = {t: {} for t in self.trained.values()}

    @property
    def state(self) -> dict[Any, dict[str, Any]]:
        names = TABLE[self.ours.name].state
        return {t: {names.get(n, n): self.twin.tensor(v) for n, v in kept.items()} for t, kept in self.kept.items()}

    def zero_grad(self) -> None:
        for tensor in self.trained.values():
            tensor.grad = None

    def step(self) -> None:
        self.steps += 1
        with self.twin.torch.no_grad():
            for name, tensor in self.trained.items():
                p, g, rate = array(tensor), array(tensor.grad), self.param_groups[0]["lr"]
                new = moved(self.ours, p, g, rate, self.steps, self.kept[tensor], decays=name.endswith(".W"))
                tensor.copy_(self.twin.tensor(new))


# -- clipping, accumulation, averaging ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SGD, Nesterov, weight decay", "RMSprop", "Adam"])
def test_clipping_by_the_global_norm(name: str) -> None:
    optimizer, learning_rate = VARIANTS[name]
    clip, clipped = 0.7, 0
    race = Race(optimizer, learning_rate, clip_norm=clip)
    for i, batch in enumerate(batches()):
        loss, norm = race.count_step(batch, clip=clip)
        report = race.step.report()
        assert (report.loss, report.norm) == pytest.approx((loss, norm), rel=TOLERANCE), (
            "the norm is the one before clipping"
        )
        race.check(f"step {i + 1}")
        clipped += norm > clip
    assert 0 < clipped < STEPS, "some steps are clipped and some are not"


@pytest.mark.parametrize("name", ["SGD, momentum", "Adam, L2", "AdamW"])
@pytest.mark.parametrize("sizes", [(10, 10), (9, 1, 7, 3)])
def test_gradients_of_micro_batches_add_up(sizes: tuple[int, ...], name: str) -> None:
    """Without batch normalization the micro-batches are one large batch: PyTorch's losses are scaled by their share."""
    optimizer, learning_rate = VARIANTS[name]
    race, whole = Race(optimizer, learning_rate, norm=False), Race(optimizer, learning_rate, norm=False)
    for i, batch in enumerate(batches()):
        loss, norm = race.count_step(batch, sizes)
        report = race.step.report()
        assert (report.loss, report.norm) == pytest.approx((loss, norm), rel=TOLERANCE)
        race.check(f"step {i + 1}")
        whole.step([batch])
        assert_close(race.network.state_dict(), whole.network.state_dict(), f"step {i + 1} against one large batch")


def test_statistics_per_micro_batch_match_pytorch() -> None:
    optimizer, learning_rate = VARIANTS["Adam"]
    race = Race(optimizer, learning_rate, statistics="per_micro_batch")
    for i, batch in enumerate(batches()):
        race.count_step(batch, (9, 4, 7))
        race.check(f"step {i + 1}")
    counts = [v[0] for v in race.network.named_statistics().values()]
    assert all(np.all(c == STEPS * ROWS) for c in counts)


def test_merged_statistics_are_one_update_by_all_rows() -> None:
    """A normalization that sees the data itself: PyTorch's update by the whole batch is ours by its parts, merged."""
    given = Sequential(BatchNorm(8), Dense(8, 5), dtype="float64")
    step = Step(given, SGD(), SoftmaxCrossEntropy())
    twin = Twin(given)
    for i, batch in enumerate(batches(steps=10)):
        step(parts(batch, (9, 4, 7)))
        twin(twin.tensor(batch.x), training=True)
        ours, theirs = given.state_dict(), twin.values()
        running = ("0.running_mean", "0.running_var")
        assert_close({n: ours[n] for n in running}, {n: theirs[n] for n in running}, f"step {i + 1}")


def test_the_average_of_the_weights_is_pytorch_s(torch: Any) -> None:
    """`AveragedModel` takes its first update as the start; ours starts from the weights before training."""
    optimizer, learning_rate = VARIANTS["SGD, momentum"]
    race = Race(optimizer, learning_rate, average=Average(0.9))
    model = torch.nn.ParameterList(t for t in race.twin.tensors.values() if t.requires_grad)
    names = [n for n, t in race.twin.tensors.items() if t.requires_grad]
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    average.update_parameters(model)
    for batch in batches():
        race.count_step(batch)
        average.update_parameters(model)
    state = race.step.state_dict()
    for name, tensor in zip(names, average.module.parameters(), strict=True):
        theirs = array(tensor).T if name.endswith(".W") else array(tensor)
        assert_close({name: state[f"average.{name}"]}, {name: theirs}, "average")
        assert np.abs(theirs - race.network.state_dict()[name]).max() > 1e-6, "it lags the weights"
