"""Recorded steps as one native call: order, groups, the same bits on any number of threads, nothing allocated."""

import ctypes
import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from bnengine import threads
from bnengine.errors import BackendError
from bnengine.fused.cpu.native import NativeKernel, replayer
from bnengine.runtime.plan import COLUMNS, ROWS, Launch, Plan
from tests.cpu.heap import asked_by
from tests.support import ROOT

pytestmark = pytest.mark.usefixtures("kernels_for_tests")
ROWS_OF_X, CHANNELS = 1000, 37


def plan_of(*launches, own=()):
    plan = Plan()
    plan.own([*own, *(x for launch in launches for x in launch.inputs)])
    for launch in launches:
        plan.record(launch)
    return plan


def means(x, partial, out):
    """The mean of each column of x in two launches, and a copy of it: three groups."""
    copy = np.empty_like(out)
    rows, columns = x.shape
    blocks = partial.shape[0]
    sums = NativeKernel("block_sums", width=blocks, blocks=13)
    merged = NativeKernel("merged_sums", width=columns, unit=8, blocks=3)
    copied = NativeKernel("copy<float>", width=columns, unit=16, blocks=2)
    return copy, (
        Launch(sums, whole=(x,), writes=(partial,), scalars=(rows, columns), split=ROWS),
        Launch(merged, whole=(partial,), writes=(out,), scalars=(blocks, columns, 1.0 / rows), split=COLUMNS),
        Launch(copied, reads=(out,), writes=(copy,), split=COLUMNS),
    )


@pytest.fixture
def case(rng):
    x = rng.standard_normal((ROWS_OF_X, CHANNELS)).astype(np.float32)
    partial = np.zeros((-(-ROWS_OF_X // 16), CHANNELS), np.float32)
    out = np.zeros(CHANNELS, np.float32)
    copy, launches = means(x, partial, out)
    return x, out, copy, launches


def test_a_plan_gives_what_its_launches_give_one_by_one(case):
    x, out, copy, launches = case
    plan = plan_of(*launches)
    assert [len(group) for group in plan.groups()] == [1, 2]
    for launch in launches:
        launch()
    eager = copy.tobytes()
    assert np.allclose(copy, x.astype(np.float64).mean(axis=0), atol=1e-6)
    out[:] = copy[:] = np.nan
    run = replayer(plan)
    run()
    assert copy.tobytes() == eager


@pytest.mark.parametrize("blocks", [1, 5, 63])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_threads_and_blocks_change_no_bit(case, count, blocks):
    _, _, copy, launches = case
    threads.set(1)
    replayer(plan_of(*launches))()
    alone = copy.tobytes()
    threads.set(count)
    first = launches[0]._replace(kernel=NativeKernel("block_sums", width=launches[0].kernel.width, blocks=blocks))
    run = replayer(plan_of(first, *launches[1:]))
    for _ in range(200):
        copy[:] = np.nan
        run()
        assert copy.tobytes() == alone


def test_every_block_runs_once_and_groups_run_in_order():
    log, a, b = np.zeros(4000, np.int64), np.zeros(103), np.zeros(50)

    def logged(number, along, unit, blocks, *whole):
        kernel = NativeKernel("logged", width=along.size, unit=unit, blocks=blocks)
        return Launch(kernel, whole=(log, *whole), writes=(along,), scalars=(number,), split=COLUMNS)

    plan = plan_of(logged(0, a, 8, 5), logged(1, a, 4, 9), logged(2, b, 1, 100, a), own=[log])
    assert [len(group) for group in plan.groups()] == [2, 1]
    run = replayer(plan)
    for count in (1, 2, 8):
        threads.set(count)
        for _ in range(20):
            log[:] = 0
            run()
            ran = log[1 : 1 + 3 * log[0]].reshape(-1, 3).tolist()
            assert [number for number, _, _ in ran[-50:]] == [2] * 50
            blocks = sorted((begin, end) for number, begin, end in ran if number == 0)
            assert len(blocks) == 9
            assert [begin for begin, _ in blocks] == [0, *(end for _, end in blocks[:-1])]
            assert blocks[-1][1] == 103
            assert all(begin % 8 == 0 for begin, _ in blocks)
            assert sorted((begin, end) for number, begin, end in ran if number == 1) == blocks
            assert sorted(begin for number, begin, _ in ran if number == 2) == list(range(50))
            order = {(n, begin): i for i, (n, begin, _) in enumerate(ran)}
            assert all(order[0, begin] < order[1, begin] for begin, _ in blocks)


def test_groups_that_need_nothing_of_each_other_run_at_once():
    """The first of the two that wait is answered by the beginning of the second."""
    flags, filled, first, second = np.zeros(3, np.int64), np.zeros(32, np.float32), np.zeros(1), np.zeros(1)
    fill = NativeKernel("fill<float>", 32, 16, 2)
    plan = plan_of(
        Launch(NativeKernel("waits"), whole=(flags[:2],), writes=(first,)),
        Launch(NativeKernel("waits"), whole=(flags[1:],), writes=(second,)),
        Launch(fill, writes=(filled,), scalars=(1.0,), split=COLUMNS),
    )
    run = replayer(plan)
    assert [[len(group) for group in stage] for stage in run.stages] == [[1, 1, 1]]
    assert run.stages[0][0][0].kernel is fill  # what has most blocks begins
    threads.set(2)
    flags[2] = 1
    run()
    assert first[0] == second[0] == 1
    assert filled.tolist() == [1] * 32


def test_what_one_thread_does_alone_it_does_without_a_halt():
    a, b, c, d = (np.zeros(64) for _ in range(4))
    alone, halves = NativeKernel("copy<double>", 64, 64, 3), NativeKernel("copy<double>", 64, 8, 2)
    launches = (
        Launch(NativeKernel("fill<double>", 64), writes=(a,), scalars=(3.0,), split=COLUMNS),
        Launch(alone, whole=(a,), writes=(b,)),
        Launch(alone, whole=(b,), writes=(c,)),
        Launch(halves, reads=(c,), writes=(d,), split=COLUMNS),
        Launch(alone, whole=(d,), writes=(a,)),
    )
    run = replayer(plan_of(*launches))
    assert [[len(group) for group in stage] for stage in run.stages] == [[3], [1], [1]]
    assert run.blocks == [1, 2, 1]
    a[:] = 5
    run()
    assert d.tolist() == a.tolist() == [3.0] * 64


def test_a_launch_without_split_or_width_is_one_block():
    log, a = np.zeros(100, np.int64), np.zeros((0,))
    plan = plan_of(
        Launch(NativeKernel("logged"), writes=(log,), scalars=(7,)),
        Launch(NativeKernel("logged", width=0, blocks=4), whole=(log,), writes=(a,), scalars=(8,), split=COLUMNS),
    )
    replayer(plan)()
    assert log[:7].tolist() == [2, 7, 0, 1, 8, 0, 0]


def test_a_steady_run_asks_for_no_memory(case):
    _, _, _, launches = case
    asked = asked_by(replayer(plan_of(*launches)))
    assert asked.heap == 0
    assert asked.traced < 65536


def test_one_call_runs_a_plan_many_times():
    log, a, seen = np.zeros(100, np.int64), np.zeros(4), np.zeros(1, np.int64)
    plan = plan_of(Launch(NativeKernel("logged"), whole=(log,), writes=(a,), scalars=(7,)), own=[log])
    run = replayer(plan)
    for times in (1, 2, 5):
        before = log[0]
        assert run.many(times, seen) == times
        assert log[0] == before + times


def test_many_runs_end_behind_the_one_that_changes_a_number():
    log, a = np.zeros(100, np.int64), np.zeros(4)
    run = replayer(plan_of(Launch(NativeKernel("logged"), whole=(log,), writes=(a,), scalars=(7,)), own=[log]))
    assert run.many(5, log) == 1  # the log's own count
    assert run.many(5, log[50:]) == 5
    assert run.many(50, log[61:]) == 15  # the twenty-first line of the log begins there, with a 7
    assert log[0] == 21


def test_many_runs_end_when_their_time_is_over(monkeypatch):
    log, a, seen = np.zeros(100, np.int64), np.zeros(4), np.zeros(1, np.int64)
    run = replayer(plan_of(Launch(NativeKernel("logged"), whole=(log,), writes=(a,), scalars=(7,)), own=[log]))
    monkeypatch.setattr("bnengine.fused.cpu.native.CALL", -1)
    assert run.many(5, seen) == 1
    assert log[0] == 1


def test_many_runs_from_inside_a_kernel_are_refused(case, native):
    inner, out, ran, seen = replayer(plan_of(*case[3])), np.full(1, -1), ctypes.c_int64(9), ctypes.c_int64()
    call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
    many = native.library().bnengine_run_on
    from_inside = call(lambda plan: many(plan, 3, ctypes.byref(seen), 1 << 40, ctypes.byref(ran)))
    address = ctypes.cast(from_inside, ctypes.c_void_p).value
    launch = Launch(NativeKernel("runs_a_plan"), writes=(out,), scalars=(address, inner._handle.value))
    replayer(plan_of(launch))()
    assert (out[0], ran.value) == (1, 0)


def test_an_allocation_planted_in_a_kernel_is_seen():
    out = np.zeros(1)
    run = replayer(plan_of(Launch(NativeKernel("allocates"), writes=(out,), scalars=(100,))))
    assert asked_by(run).heap >= 1000 * 100


def test_each_thread_has_the_scratch_that_was_asked_for():
    out = np.zeros(64, np.int64)
    kernel = NativeKernel("uses_scratch", width=64, blocks=64, scratch=100_000)
    run = replayer(plan_of(Launch(kernel, writes=(out,), scalars=(100_000,), split=COLUMNS)))
    for count in (2, 5, 1):
        threads.set(count)
        out[:] = -2
        run()
        assert out.tolist() == list(range(64))


def test_scratch_can_be_poisoned_between_runs(native):
    out = np.zeros(16, np.float32)
    kernel = NativeKernel("reads_scratch", width=16, scratch=64)
    run = replayer(plan_of(Launch(kernel, writes=(out,), split=COLUMNS)))
    native.done(native.library().bnengine_fill_scratch(255), "poison")
    run()
    assert np.isnan(out).all()


def test_a_plan_from_inside_a_kernel_is_refused(case, native):
    inner = replayer(plan_of(*case[3]))
    out = np.full(4, -1)
    address = ctypes.cast(native.library().bnengine_run, ctypes.c_void_p).value
    kernel = NativeKernel("runs_a_plan", width=4, blocks=4)
    Launch(kernel, writes=(out,), scalars=(address, inner._run.args[0].value), split=COLUMNS)()
    assert out.tolist() == [1, 1, 1, 1]
    with pytest.raises(BackendError, match="called from inside a kernel"):
        native.done(int(out[0]), "a native plan")


def test_plans_run_while_threads_change_in_number():
    outcomes = []

    def work(seed):
        x = np.random.default_rng(seed).standard_normal((ROWS_OF_X, CHANNELS)).astype(np.float32)
        partial, out = np.zeros((-(-ROWS_OF_X // 16), CHANNELS), np.float32), np.zeros(CHANNELS, np.float32)
        copy, launches = means(x, partial, out)
        run = replayer(plan_of(*launches))
        run()
        expected = copy.tobytes()
        for _ in range(200):
            copy[:] = np.nan
            run()
            outcomes.append(copy.tobytes() == expected)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for n in (1, 3, 2, 4) * 5:
        threads.set(n)
    threads.release()
    for worker in workers:
        worker.join()
    assert outcomes == [True] * 600


def test_a_run_lets_other_python_threads_run():
    flags, out = np.zeros(2, np.int64), np.zeros(1)

    def answer():
        while not flags[0]:
            time.sleep(0.001)
        flags[1] = 1

    run = replayer(plan_of(Launch(NativeKernel("waits"), whole=(flags,), writes=(out,))))
    other = threading.Thread(target=answer)
    other.start()
    run()  # comes back when it was answered, or after ten seconds
    other.join()
    assert out[0] == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_process_has_a_pool_of_its_own(case):
    _, _, copy, launches = case
    run = replayer(plan_of(*launches))
    run()
    expected = copy.tobytes()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        copy[:] = np.nan
        run()
        threads.set(3)
        run()
        os.write(write, b"same" if copy.tobytes() == expected else b"other")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 10) == b"same"
    os.close(read)
    os.close(write)
    run()


SCRIPT = """
import threading
import numpy as np
from bnengine.fused.cpu.native import NativeKernel, replayer
from bnengine.runtime.plan import COLUMNS, Launch, Plan
out, plan = np.zeros(100_000, np.float32), Plan()
plan.record(Launch(NativeKernel("fill<float>", out.size, 16, 8), writes=(out,), scalars=(1.0,), split=COLUMNS))
run = replayer(plan)
run()
def forever():
    while True:
        run()
threading.Thread(target=forever, daemon=True).start()
print("leaves")
"""


def test_the_interpreter_ends_while_a_daemon_thread_runs_steps():
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "leaves\n", "")


def test_a_plan_goes_with_the_last_reference_to_its_call(case):
    plan = plan_of(*case[3])
    run, held = replayer(plan), weakref.ref(plan)
    del plan
    run()
    assert held() is not None
    del run
    gc.collect()
    assert held() is None
