"""Names at the ends of curves, and the two shapes of a picture."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("matplotlib")
from bnengine.lab.explain.drawing import (
    APART,
    NARROW,
    apart,
    legend_below,
    named_curve,
    new_figure,
    panels,
    png,
    points_and_mean,
)


def test_names_that_collide_are_pushed_apart_about_their_mean() -> None:
    assert apart([10.0, 11.0], 4) == [8.5, 12.5]
    assert apart([11.0, 10.0], 4) == [12.5, 8.5]
    assert apart([0.0, 10.0, 20.0], 4) == [0.0, 10.0, 20.0]


def test_a_pair_that_is_pushed_onto_a_third_takes_it_along() -> None:
    assert apart([10.0, 10.0, 13.0], 4) == [7.0, 11.0, 15.0]


@settings(deadline=None)  # A busy machine is no failure.
@given(st.lists(st.floats(-1e3, 1e3), max_size=8))
def test_names_keep_their_order_and_their_distance(heights: list[float]) -> None:
    moved = apart(heights, 5)
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    assert all(moved[b] - moved[a] >= 5 - 1e-9 for a, b in pairwise(order))
    assert sum(moved) == pytest.approx(sum(heights), abs=1e-6)


def test_a_picture_has_its_names_apart_whatever_its_scale() -> None:
    figure = new_figure()
    (panel,) = panels(figure, ["two curves"])
    for name, end in (("one", 1.0), ("other", 1.0001)):
        named_curve(panel, [0, 1], [1e-9, end], name, "#0072B2")
    panel.set_yscale("log")
    png(figure)
    low, high = (text.xyann[1] for text in panel.texts)
    assert high - low == pytest.approx(APART, abs=0.1)


def test_a_stacked_picture_is_narrow_and_high() -> None:
    sizes = []
    for stacked in (False, True):
        figure = new_figure(stacked)
        first, _ = panels(figure, ["left", "right"])
        first.plot([0, 1], [0, 1], label="a name")
        legend_below(figure, first)
        sizes.append(tuple(int.from_bytes(png(figure)[at : at + 4], "big") for at in (16, 20)))
    (width, height), (narrow, high) = sizes
    assert width > 2 * height / 1.5
    assert narrow == round(NARROW * 150)
    assert high == 2 * height


def test_values_are_points_with_a_bar_at_their_mean() -> None:
    (panel,) = panels(new_figure(), ["two kinds"])
    points_and_mean(panel, 1.25, [1.0, 2.0, 6.0], "#0072B2", 0.5, "a kind")
    points_and_mean(panel, 2.0, [0.0], "#0072B2", 0.5)
    points, bar = panel.collections[:2]
    assert points.get_offsets().tolist() == [[1.25, 1.0], [1.25, 2.0], [1.25, 6.0]]
    assert bar.get_segments()[0].tolist() == [[0.75, 3.0], [1.75, 3.0]]
    assert panel.get_legend_handles_labels()[1] == ["a kind"]
