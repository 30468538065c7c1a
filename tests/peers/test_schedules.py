"""Schedules against PyTorch's, step by step."""

import pytest

from bnengine.optim.schedules import Cosine, OneCycle, Plateau, Step, WarmUp

pytestmark = pytest.mark.peers


@pytest.fixture
def peer(require):
    """PyTorch."""
    return require("torch")


def rates(peer, rate, make, count):
    """The rates of `count` optimizer steps under a scheduler of PyTorch."""
    optimizer = peer.optim.SGD([peer.nn.Parameter(peer.zeros(1))], lr=rate)
    scheduler, found = make(optimizer), []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize(("total", "rise"), [(100, 0.3), (37, 0.25), (10, 0.5)])
def test_one_cycle(peer, total, rise, anneal):
    options = {"total_steps": total, "pct_start": rise, "anneal_strategy": {"cosine": "cos"}.get(anneal, anneal)}
    schedulers = peer.optim.lr_scheduler
    expected = rates(peer, 0.1, lambda o: schedulers.OneCycleLR(o, 0.1, cycle_momentum=False, **options), total - 1)
    assert OneCycle(0.1, total, rise, anneal=anneal).for_steps(0, total - 1) == pytest.approx(expected, rel=1e-12)


def test_cosine(peer):
    make = peer.optim.lr_scheduler.CosineAnnealingLR
    expected = rates(peer, 0.1, lambda o: make(o, 50, eta_min=0.001), 51)
    assert Cosine(0.1, 50, 0.001).for_steps(0, 51) == pytest.approx(expected, rel=1e-10)  # theirs is a recurrence


def test_step(peer):
    expected = rates(peer, 0.1, lambda o: peer.optim.lr_scheduler.StepLR(o, 7, 0.3), 40)
    assert Step(0.1, 7, 0.3).for_steps(0, 40) == pytest.approx(expected, rel=1e-12)


def test_warm_up_before_a_cosine(peer):
    schedulers = peer.optim.lr_scheduler

    def make(optimizer):
        up = schedulers.LinearLR(optimizer, start_factor=1 / 10, total_iters=9)
        return schedulers.SequentialLR(optimizer, [up, schedulers.CosineAnnealingLR(optimizer, 30)], [10])

    expected = rates(peer, 0.1, make, 40)
    assert WarmUp(Cosine(0.1, 30), 10).for_steps(0, 40) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("best", ["lowest", "highest"])
def test_plateau(peer, rng, best):
    metrics = (1 + 0.1 * rng.standard_normal(60)).tolist()
    mode = {"lowest": "min", "highest": "max"}[best]
    optimizer = peer.optim.SGD([peer.nn.Parameter(peer.zeros(1))], lr=0.1)
    options = {"factor": 0.5, "patience": 3, "threshold": 0.01, "min_lr": 1e-3}
    theirs = peer.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, eps=0, **options)
    ours = Plateau(0.1, 0.5, 3, minimum=1e-3, threshold=0.01, best=best)
    for metric in metrics:
        theirs.step(metric)
        ours.observe(metric)
        assert ours.rate(0) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-14)
    assert ours.rate(0) == 1e-3
