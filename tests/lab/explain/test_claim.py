"""Verdicts: intervals by hand, the states of a part, and the verdict of all parts."""

from math import inf, nan, sqrt

import pytest

from bnengine.errors import InputError
from bnengine.lab.explain import Setting
from bnengine.lab.explain.claim import Claim, Judged, Outcome, Part, state_of, summarized, verdict_of


def test_mean_deviation_and_interval_are_those_of_the_textbook():
    """1, 2, 3, 4, 5: mean 3, s = sqrt(2.5), t(4) = 2.776."""
    found = summarized([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.mean, found.sd) == (3.0, sqrt(2.5))
    assert found.high - found.mean == pytest.approx(2.776 * sqrt(2.5) / sqrt(5), rel=1e-12)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


def test_more_than_thirty_seeds_take_the_last_value_of_the_table():
    found = summarized([0.0, 1.0] * 50)
    assert found.high - found.mean == pytest.approx(2.042 * sqrt(25 / 99) / 10)


def test_one_value_has_no_bounds_and_decides_nothing():
    assert state_of(summarized([3.0]), "<=", 10) == "undecided"
    with pytest.raises(InputError, match="there are no seeds"):
        summarized([])


@pytest.mark.parametrize(
    ("values", "relation", "threshold", "state"),
    [
        ([1.0, 1.1, 0.9], "<=", 2, "holds"),
        ([1.0, 1.1, 0.9], ">=", 2, "fails"),
        ([1.0, 1.1, 0.9], ">=", 0.5, "holds"),
        ([1.0, 1.1, 0.9], "<=", 0.5, "fails"),
        ([1.0, 3.0, 2.0], "<=", 2.5, "undecided"),
        ([1.0, 3.0, 2.0], ">=", 1.5, "undecided"),
        ([2.0, 2.0, 2.0], "<=", 2, "holds"),
        ([2.0, 2.0, 2.0], ">=", 2, "holds"),
        ([inf, inf, 5.0], ">=", 4, "holds"),
        ([inf, inf, 5.0], ">=", 6, "undecided"),
        ([inf, inf, 5.0], "<=", 4, "fails"),
        ([nan, 1.0, 1.0], "<=", 4, "undecided"),
    ],
)
def test_an_interval_decides_where_it_lies_on_one_side(values, relation, threshold, state):
    assert state_of(summarized(values), relation, threshold) == state


def judged(*states: tuple[str, bool]) -> list[Judged]:
    figure = summarized([0.0, 0.0])
    return [Judged(Part("so", "not so", "f", "<=", 1, essential), figure, state) for state, essential in states]


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        ([("holds", True), ("holds", False)], "holds"),
        ([("holds", True), ("fails", False)], "holds within limits"),
        ([("holds", True), ("fails", False), ("undecided", False)], "holds within limits"),
        ([("holds", True), ("undecided", False)], "undecided"),
        ([("undecided", True), ("fails", False)], "undecided"),
        ([("fails", True), ("holds", False)], "does not hold"),
        ([("fails", True), ("undecided", True)], "does not hold"),
    ],
)
def test_the_whole_is_made_of_its_parts(states, verdict):
    assert verdict_of(judged(*states)) == verdict


def test_a_figure_that_the_experiment_does_not_give_is_an_error():
    part = Part("so", "not so", "missing", "<=", 1)
    claim = Claim("x", "", "", "", "", (part,), lambda _setting, _seed: Outcome({}, {}), lambda *_: None, {})
    with pytest.raises(InputError, match="explain x: the experiment returned no figure 'missing'"):
        claim.judge({"other": [1.0]})


def test_a_length_is_a_share_of_the_usual_steps() -> None:
    setting = Setting(backend="numpy", length=0.25)
    assert [setting.steps(n) for n in (600, 10, 1)] == [150, 2, 1]
    assert setting.steps(6, least=2) == 2
    assert Setting(backend="numpy").steps(600) == 600
    for length in (0, 1.5, -1, nan):
        with pytest.raises(InputError, match="length must be a finite number above 0 and of at most 1"):
            Setting(backend="numpy", length=length)
