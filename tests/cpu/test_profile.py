"""Where a replay spends its time: stage by stage and by kind of kernel; the replays are real."""

import re

import numpy as np
import pytest

from bnengine import threads
from bnengine.errors import BackendError, InputError
from bnengine.fused.cpu.native import NativeKernel
from bnengine.lab.bench.workloads import Workload
from bnengine.runtime.plan import COLUMNS, Launch, Plan
from tests.benchmarks import where
from tests.benchmarks.profile import GroupTime, StageTime, by_kind, profile, table

pytestmark = pytest.mark.usefixtures("native")


def plan_of(*launches):
    plan = Plan()
    for launch in launches:
        plan.record(launch)
    return plan


@pytest.fixture
def filled():
    """A large array and a small one filled, and copied where the small one ends."""
    large, small, end = np.zeros(1 << 20), np.zeros(8), np.zeros(8)
    launches = (
        Launch(NativeKernel("fill<double>", large.size, 8, 16), writes=(large,), scalars=(2.0,), split=COLUMNS),
        Launch(NativeKernel("fill<double>", small.size), writes=(small,), scalars=(3.0,), split=COLUMNS),
        Launch(NativeKernel("copy<double>", 8), whole=(small,), writes=(end,)),
    )
    return plan_of(*launches), large, end


@pytest.mark.parametrize("count", [1, 2])
def test_a_profile_has_the_order_of_the_replay(filled, count):
    threads.set(count)
    plan, large, end = filled
    times = profile(plan, 5)
    assert (large == 2).all()
    assert (end == 3).all()
    assert [[(group.kernels, group.blocks) for group in stage.groups] for stage in times] == [
        [(("fill<double>",), 16), (("fill<double>",), 1)],
        [(("copy<double>",), 1)],
    ]
    (many, few), (copied,) = (stage.groups for stage in times)
    assert many.busy[0] > few.busy[0]
    assert many.busy[0] > copied.busy[0]
    assert all(stage.seconds > 0 for stage in times)
    assert many.busy[0] + few.busy[0] <= 1.5 * count * times[0].seconds  # medians of different replays


def test_kinds_add_up_what_their_launches_took(filled):
    threads.set(1)
    times = profile(filled[0], 5)
    kinds = by_kind(times)
    assert [(kind.kernel, kind.launches) for kind in kinds] == [("fill<double>", 2), ("copy<double>", 1)]
    first = times[0].groups
    assert kinds[0].seconds == first[0].busy[0] + first[1].busy[0]
    total = sum(stage.seconds for stage in times)
    assert kinds[0].share == pytest.approx(kinds[0].seconds / total)
    assert kinds[1].share < kinds[0].share


def test_a_table_has_a_line_for_each_kind_and_one_for_the_rest(monkeypatch):
    monkeypatch.setattr("bnengine.fused.threads.get", lambda: 2)
    groups = GroupTime(("gemm", "batch_norm"), 4, (6e-6, 2e-6)), GroupTime(("gemm",), 1, (4e-6,))
    lines = table([StageTime(groups, 8e-6)]).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["gemm", "2", "10.00", "62.5%"],
        ["batch_norm", "1", "2.00", "12.5%"],
        ["(between", "blocks)", "1", "4.00", "25.0%"],
    ]


def test_each_replay_begins_where_it_is_set(filled):
    calls = []
    profile(filled[0], 3, lambda: calls.append(filled[2].copy()))
    assert [list(seen) for seen in calls] == [[0.0] * 8, [3.0] * 8, [3.0] * 8]


def test_a_profile_refuses_what_it_cannot_time(filled):
    with pytest.raises(InputError, match="profile: replays 0 is less than 1"):
        profile(filled[0], 0)
    x = np.zeros(4)
    plan = plan_of(Launch(np.copyto, writes=(x,), scalars=(1.0,)))
    with pytest.raises(BackendError, match="profile: copyto is not a native kernel"):
        profile(plan)


def test_the_benchmark_tells_where_a_step_goes_batch_by_batch():
    workload = Workload("12-16-5", (12, 16, 5), 16, rows=64)
    header, _, *kinds = where.lines("12-16-5", where.times(workload, 7))
    assert re.fullmatch(r"\| 12-16-5: [\d,]+ µs a replay \| launches \| µs \| share \|", header)
    names = [line.split(" | ")[0].removeprefix("| ") for line in kinds]
    assert {"gather_raw<f4, float>", "batch_norm<float, relu>", "adam<float>"} <= set(names)
    assert names[-1] == "between blocks"
    shares = [float(line.split(" | ")[-1].removesuffix("% |")) for line in kinds]
    assert sum(shares) == pytest.approx(100, abs=1)


class Replayed:
    """A replay of three groups whose clock is known: 200 ticks a second, groups one and two at once, then the third."""

    stages, blocks = [[["one"], ["two"]], [["three", "four"]]], [1, 1, 2]

    def __init__(self):
        self.runs = iter([([40, 20, 60, 80], [1000, 1300, 1200, 1500]), ([40, 20, 60, 80], [1600, 1900, 1800, 2200])])

    def timed(self):
        return next(self.runs)


def test_ticks_are_told_as_seconds_of_stages_and_launches(monkeypatch):
    clock = iter([10.0, 16.0])
    monkeypatch.setattr("tests.benchmarks.profile.replayer", lambda _: Replayed())
    monkeypatch.setattr("tests.benchmarks.profile.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("tests.benchmarks.profile._name", lambda launch: launch)
    both, last = profile(Plan(), 2)
    assert both == StageTime((GroupTime(("one",), 1, (0.2,)), GroupTime(("two",), 1, (0.1,))), 1.5)
    assert last == StageTime((GroupTime(("three", "four"), 2, (0.3, 0.4)),), 1.25)  # 200 and 300 ticks
