"""Learning rate schedules: figures worked by hand, edges, configurations, and every mistake named."""

import json
from math import sqrt

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.optim.schedules import (
    Constant,
    Cosine,
    Observer,
    OneCycle,
    Plateau,
    Schedule,
    Step,
    WarmUp,
    from_spec,
    get_schedule,
)

ALL = [
    Constant(0.1), Step(0.1, 10, 0.5), Cosine(0.1, 100, 0.01), OneCycle(0.1, 100), Plateau(0.1, 0.5, 2),
    WarmUp(Cosine(0.1, 90), 10, 0.001), WarmUp(Plateau(0.1), 10),
]  # fmt: skip


def test_figures_worked_by_hand():
    assert Step(0.8, 2, 0.5).for_steps(0, 6) == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2]
    rates, half = Cosine(3.0, 4, 1.0).for_steps(0, 7), sqrt(0.5)
    assert rates == pytest.approx([3, 2 + half, 2, 2 - half, 1, 1, 1], rel=1e-15)
    assert rates[4:] == [1, 1, 1]
    assert WarmUp(Constant(0.8), 4).for_steps(0, 6) == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8], rel=1e-15)
    assert WarmUp(Constant(0.5), 2, start=0.1).for_steps(0, 3) == pytest.approx([0.3, 0.5, 0.5], rel=1e-15)
    assert WarmUp(Cosine(0.1, 7), 3).for_steps(3, 7) == Cosine(0.1, 7).for_steps(0, 7)


def test_one_cycle_rises_and_falls_between_three_rates():
    shape = {"rise": 4 / 11, "divisor": 10, "final_divisor": 100}  # up to step 3, down to step 10
    rates = OneCycle(1.0, 11, **shape).for_steps(0, 13)
    assert rates[:4] == pytest.approx([0.1, 0.1 + 0.9 * 0.25, 0.1 + 0.9 * 0.75, 1.0], rel=1e-14)
    assert rates[10:] == [pytest.approx(0.001, rel=1e-14)] * 3
    assert sorted(rates[3:11], reverse=True) == rates[3:11]
    linear = OneCycle(1.0, 11, anneal="linear", **shape).for_steps(0, 11)
    assert linear == pytest.approx([*np.linspace(0.1, 1, 4), *np.linspace(1, 0.001, 8)[1:]], rel=1e-14)


def test_one_cycle_is_defined_for_the_shortest_runs():
    for rise in (0.0, 0.3, 0.99):
        for total in (1, 2, 3):
            rates = OneCycle(1.0, total, rise).for_steps(0, total)
            assert 1 / 25e4 <= min(rates) <= max(rates) <= 1
        assert OneCycle(1.0, 1, rise).for_steps(0, 1) == [1.0]


@pytest.mark.parametrize("schedule", [*ALL, Cosine(0.1), WarmUp(OneCycle(0.1), 5), Constant(np.float64(1))], ids=repr)
def test_a_configuration_makes_the_same_schedule_again(schedule):
    config = schedule.config()
    assert None not in config.values()
    assert from_spec(**json.loads(json.dumps(config))) == schedule
    assert (get_schedule(0.25), type(Step(np.float64(0.5), np.int64(2)).rate(np.int64(5)))) == (Constant(0.25), float)


@pytest.mark.parametrize("make", [Cosine, OneCycle])
def test_an_open_length_is_resolved_once(make):
    schedule = make(0.1)
    with pytest.raises(InputError, match="total_steps is not set"):
        schedule.rate(0)
    assert schedule.resolved(50) == make(0.1, 50)
    assert make(0.1, 20).resolved(50) == make(0.1, 20)
    assert WarmUp(make(0.1), 10).resolved(50) == WarmUp(make(0.1, 40), 10)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_every_schedule_keeps_the_protocol(schedule):
    assert isinstance(schedule, Schedule)
    rates = schedule.for_steps(0, 120)
    assert rates == [schedule.rate(step) for step in range(120)]
    assert schedule.for_steps(17, 5) == rates[17:22]
    assert schedule.for_steps(3, 0) == []
    assert all(type(rate) is float and 0 <= rate <= 0.1 for rate in rates)
    assert isinstance(schedule, Observer) == isinstance(schedule, Plateau | WarmUp)
    assert schedule.resolved(100) == schedule.resolved(None) == get_schedule(schedule) == schedule
    with pytest.raises(InputError, match=r"first must .* got -1"):
        schedule.for_steps(-1, 2)


def observed(schedule, metrics):
    rates = []
    for metric in metrics:
        schedule.observe(metric)
        rates.append(schedule.rate(0))
    return rates


@pytest.mark.parametrize(
    ("options", "metrics", "rates"),
    [
        ({"patience": 2}, [1.0, *[0.9] * 7], [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
        ({}, [1.0, 0.9, 0.9, 0.9], [1, 1, 0.5, 0.25]),
        ({"threshold": 0.1}, [1.0, 0.95, 0.89, 0.88], [1, 0.5, 0.5, 0.25]),
        ({"threshold": 0.1}, [-1.0, -1.05, -1.11], [1, 0.5, 0.5]),  # negative figures improve by the same margin
        ({"best": "highest"}, [0.5, 0.5, 0.6], [1, 0.5, 0.5]),
        ({"minimum": 0.3}, [1.0] * 4, [1, 0.5, 0.3, 0.3]),
        ({"minimum": 2.0}, [1.0] * 3, [1, 1, 1]),
        *(
            ({"best": best}, [float(bad), 1.0, float(bad), 1.0], [0.5, 0.5, 0.25, 0.125])
            for best in ("lowest", "highest")
            for bad in ("nan", "inf", "-inf")
        ),
    ],
)
def test_a_plateau_drops_where_nothing_improves(options, metrics, rates):
    assert observed(Plateau(1.0, 0.5, **{"patience": 0} | options), metrics) == rates


@pytest.mark.parametrize("best", ["lowest", "highest"])
@pytest.mark.parametrize("cut", [0, 1, 6])
def test_a_plateau_continues_from_its_state(best, cut, rng):
    metrics = rng.standard_normal(20).tolist()
    make = {"patience": 1, "best": best}
    whole, before, after = (WarmUp(Plateau(1.0, 0.5, **make), 3) for _ in range(3))
    expected = observed(whole, metrics)
    observed(before, metrics[:cut])
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert after.state_dict() == before.state_dict()
    assert observed(after, metrics[cut:]) == expected[cut:]


def test_a_state_that_is_none_is_refused():
    with pytest.raises(InputError, match="a state has rate, waited and best"):
        Plateau(0.1).load_state_dict({"rate": 1.0})
    with pytest.raises(InputError, match="has no state"):
        WarmUp(Constant(0.1), 2).load_state_dict({"rate": 1.0})
    WarmUp(Constant(0.1), 2).load_state_dict({})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(-0.1), "Constant: learning_rate must be a finite number of at least 0, got -0.1"),
        (lambda: Constant(float("nan")), "Constant: learning_rate must .* got nan"),
        (lambda: Constant(True), "learning_rate must .* got True"),
        (lambda: get_schedule("fast"), "learning_rate must .* got 'fast'"),
        (lambda: Step(0.1, 0), "Step: every must be an integer of at least 1, got 0"),
        (lambda: Step(0.1, 2, 1.5), "Step: factor must .* and of at most 1, got 1.5"),
        (lambda: Cosine(0.1, 10, 0.2), "Cosine: floor must be at most the learning rate 0.1, got 0.2"),
        (lambda: Cosine(0.1, 2.5), "Cosine: total_steps must .* got 2.5"),
        (lambda: OneCycle(0.1, 10, rise=1.0), "OneCycle: rise must .* below 1, got 1.0"),
        (lambda: OneCycle(0.1, 10, divisor=0.5), "OneCycle: divisor must .* got 0.5"),
        (lambda: OneCycle(0.1, 10, anneal="quick"), "anneal must be 'cosine' or 'linear', got 'quick'"),
        (lambda: WarmUp(0.1, 3), "WarmUp: the schedule must be .*, got 0.1"),
        (lambda: WarmUp(WarmUp(Constant(0.1), 3), 3), "WarmUp: the schedule must be .*, got WarmUp"),
        (lambda: WarmUp(Constant(0.1), 0), "WarmUp: steps must .* got 0"),
        (lambda: WarmUp(Cosine(0.1), 10).resolved(10), "steps must be below the 10 of the run, got 10"),
        (lambda: Cosine(0.1).resolved(0), "total_steps must .* got 0"),
        (lambda: Plateau(0.1, factor=1.0), "Plateau: factor must .* below 1, got 1.0"),
        (lambda: Plateau(0.1, patience=-1), "Plateau: patience must .* got -1"),
        (lambda: Plateau(0.1, best="most"), "Plateau: best must be 'lowest' or 'highest', got 'most'"),
        (lambda: from_spec("linear", rate=0.1), "schedule: name must be 'constant', 'step', 'cosine', .* got 'linear'"),
        (
            lambda: from_spec("cosine", rate=0.1, every=3),
            "cosine has no option 'every'. It takes learning_rate, total_steps, floor",
        ),
        (lambda: from_spec("constant", rate=0.1, every=3), "constant has no option 'every'. It takes learning_rate"),
        (lambda: from_spec("step", rate=0.1), "schedule: step needs every. Give a value"),
        (lambda: from_spec("step", rate=0.1, learning_rate=1.0), "learning_rate is the argument rate. Leave it out"),
        (lambda: from_spec("one_cycle", rate=-1), "OneCycle: peak must .* got -1"),
    ],
)
def test_every_mistake_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_the_command_lines_words_give_schedules():
    assert from_spec("constant", rate=0.1, total_steps=7) == Constant(0.1)
    assert from_spec("one-cycle", rate=0.1, total_steps=9, rise=0.4) == OneCycle(0.1, 9, 0.4)
    assert from_spec("cosine", rate=0.1, total_steps=100, warm_up=10) == WarmUp(Cosine(0.1, 90), 10)
    assert from_spec("step", rate=0.1, every=5, warm_up=2, warm_up_start=0.01) == WarmUp(Step(0.1, 5), 2, 0.01)
