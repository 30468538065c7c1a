"""Launches in order: what is independent, what may run at once, what a recording refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnengine.errors import InputError
from bnengine.runtime.plan import COLUMNS, ROWS, Launch, Plan, Spans, independent, view_of

from .toy import block, replay_by_blocks


def copy(source: np.ndarray, target: np.ndarray) -> None:
    np.copyto(target, source)


def double(x: np.ndarray, y: np.ndarray) -> None:
    np.multiply(x, 2, out=y)


def add(x: np.ndarray, out: np.ndarray) -> None:
    """Its own old value is read too, which what a launch writes always may be."""
    np.add(out, x, out=out)


def plan_of(*launches: Launch) -> Plan:
    plan = Plan()
    plan.launches = list(launches)
    return plan


def test_memory_reused_in_another_shape_keeps_its_barrier() -> None:
    """Same width, same split, same bytes: but block 0 of the float64 array is on block 1 of the float32 one."""
    buffer, out = np.zeros(256, np.uint8), np.zeros((4, 16), np.float32)
    old, new, ones = buffer.view(np.float32).reshape(4, 16), buffer.view(np.float64).reshape(2, 16), np.ones((2, 16))
    plan = plan_of(
        Launch(copy, reads=(old,), writes=(out,), split=COLUMNS),
        Launch(copy, reads=(ones,), writes=(new,), split=COLUMNS),
    )
    old[...] = 7
    replay_by_blocks(plan, 8)
    assert np.all(out == 7)
    assert np.all(new == 1)
    assert len(plan.groups()) == 2


def test_launches_that_need_only_the_same_block_form_a_group() -> None:
    x, y, z, w = (np.zeros((4, 16), np.float32) for _ in range(4))
    first = Launch(double, reads=(x,), writes=(y,), split=COLUMNS)
    second = Launch(double, reads=(y,), writes=(z,), split=COLUMNS)
    in_full = Launch(double, whole=(z,), writes=(w,), split=COLUMNS)
    by_rows = Launch(double, reads=(z,), writes=(w,), split=ROWS)
    assert [len(g) for g in plan_of(first, second).groups()] == [2]
    assert [len(g) for g in plan_of(first, second, in_full).groups()] == [2, 1]
    assert [len(g) for g in plan_of(first, second, by_rows).groups()] == [2, 1]
    assert not independent(Launch(double, reads=(x,), writes=(y,)), second)  # one block each: no block i of anything
    assert not independent(first, Launch(double, reads=(y[:, 1:],), writes=(z[:, 1:],), split=COLUMNS))  # another width
    overwritten = Launch(double, reads=(z,), writes=(x[:, ::-1],), split=COLUMNS)
    assert not independent(first, overwritten)  # block 0 of one is the last block of the other


def test_a_group_waits_only_for_what_it_reads_and_overwrites() -> None:
    a, b, c, d, e = (np.zeros((4, 16), np.float32) for _ in range(5))
    pairs = (a, b), (b, c), (d, e), (c, b)
    read, overwritten, apart, last = (Launch(copy, whole=(x,), writes=(y,)) for x, y in pairs)
    again = Launch(copy, whole=(e,), writes=(d[:1],))
    plan = plan_of(read, overwritten, apart, last, again)
    stages = [[launch for group in stage for launch in group] for stage in plan.stages()]
    expected = [[read, apart], [overwritten, again], [last]]
    assert [list(map(id, stage)) for stage in stages] == [list(map(id, stage)) for stage in expected]
    plan.launches = [Launch(copy, whole=(a,), writes=(b,)), Launch(copy, whole=(a,), writes=(c,))]
    assert [len(stage) for stage in plan.stages()] == [2]  # both read
    plan.launches = [Launch(copy, whole=(a,), writes=(c,)), Launch(copy, whole=(b,), writes=(c[1:2],))]
    assert [len(stage) for stage in plan.stages()] == [1, 1]  # both write


@settings(deadline=None)  # A busy machine is no failure.
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_stage_by_stage_in_any_order_gives_what_the_order_gives(pairs: list[tuple[int, int]]) -> None:
    buffers = [np.full((2, 4), float(i)) for i in range(6)]
    plan = plan_of(*(Launch(add, whole=(buffers[i],), writes=(buffers[j],)) for i, j in pairs))
    plan.replay()
    expected = [b.copy() for b in buffers]
    for i, b in enumerate(buffers):
        b[...] = i
    for stage in plan.stages():
        for group in reversed(stage):
            for launch in group:
                launch()
    np.testing.assert_array_equal(buffers, expected)


@pytest.mark.parametrize("split", [COLUMNS, ROWS])
def test_a_block_is_the_same_launch_on_a_part(split: int) -> None:
    x, y = np.arange(24.0).reshape(4, 6), np.zeros((4, 6))
    launch = Launch(double, reads=(x,), writes=(y,), split=split)
    block(launch, 1, 3)()
    part = np.zeros((4, 6), bool)
    part[(slice(None), slice(1, 3)) if split == COLUMNS else slice(1, 3)] = True
    np.testing.assert_array_equal(y, np.where(part, 2 * x, 0))
    assert launch.width == (6 if split == COLUMNS else 4)


def test_what_no_launch_wrote_cannot_be_read_in_a_recording() -> None:
    x, y, z = (np.ones((2, 3)) for _ in range(3))
    plan = Plan()
    plan.own([x])
    plan.record(Launch(double, reads=(x, None), writes=(y,)))
    plan.record(Launch(double, reads=(y[:, 1:],), writes=(z,)))
    with pytest.raises(InputError, match=r"plan: double reads an array of shape \(2, 3\) that no launch wrote"):
        plan.record(Launch(double, reads=(y + 1,), writes=(z,)))
    assert len(plan.launches) == 2


def test_a_view_has_its_bytes_for_every_layout() -> None:
    x = np.zeros((4, 6), np.float32)
    start = x.__array_interface__["data"][0]
    assert view_of(x) == (start, start + 96, (4, 6), (24, 4))
    assert view_of(x[1:3, 2:4])[:2] == (start + 32, start + 24 + 24 + 16)
    assert view_of(x.T)[:2] == (start, start + 96)
    assert view_of(x[::-1, ::-1])[:2] == (start, start + 96)
    assert view_of(x[:, ::2])[:2] == (start, start + 92)
    empty = view_of(x[:0])
    assert empty.start == empty.stop


RANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=12)


@settings(deadline=None)  # A busy machine is no failure.
@given(RANGES, st.integers(0, 50), st.integers(0, 12))
def test_spans_are_a_set_of_bytes(ranges: list[tuple[int, int]], start: int, length: int) -> None:
    spans, held = Spans(), set()
    for low, size in ranges:
        spans.add(low, low + size)
        held |= set(range(low, low + size))
    assert spans.covers(start, start + length) == (set(range(start, start + length)) <= held)
