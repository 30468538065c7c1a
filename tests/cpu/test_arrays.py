"""What launchers of native kernels do with arrays: copies, refusals, launches that share their columns."""

import re

import numpy as np
import pytest

from bnengine.fused.cpu import _launch, dense
from bnengine.fused.cpu.native import replayer
from bnengine.ops import REGISTRY, using
from bnengine.runtime.memory import Arena, Memory, Outputs
from bnengine.runtime.plan import COLUMNS, ROWS
from bnengine.runtime.reasons import Kind
from tests.contracts.examples import of_rows
from tests.support import ROOT

pytestmark = pytest.mark.usefixtures("native")


def run(name, *args, memory=None, **options):
    with using("fused"):
        return REGISTRY[name](*args, memory=memory or Memory(), **options)


def test_copies_are_native_launches_so_that_they_replay(rng):
    x = rng.standard_normal((40, 12)).astype(np.float32)
    arena = Arena("fused")
    given, gamma = x.T, rng.standard_normal(40)
    with arena.recording([given, gamma]) as plan:
        got = run("batch_norm", given, gamma, None, memory=arena)
    replay = replayer(plan)
    x[:] = rng.standard_normal(x.shape)
    replay()
    expected = run("batch_norm", np.ascontiguousarray(x.T), gamma.astype(np.float32), None)
    assert got.y.tobytes() == expected.y.tobytes()


@pytest.mark.parametrize("shape", [(6,), (5, 6), (3, 4, 5), (2, 3, 4, 5)])
def test_only_what_is_unaligned_or_has_gaps_is_copied(shape, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    askew = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(shape)
    askew[...] = x
    apart = np.repeat(x, 2, axis=-1)[..., ::2]
    for given, copies in ((x, 0), (askew, 1), (apart, 1), (np.ascontiguousarray(x.T).T, len(shape) > 1)):
        arena = Arena()
        with arena.recording([given]) as plan:
            ready = _launch.ready(Outputs(arena, {}), given)
        assert len(plan.launches) == copies
        assert (ready is given) == (not copies)
        np.testing.assert_array_equal(ready, x)


def test_a_product_and_what_follows_it_share_their_columns(rng):
    x, W, gamma = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 50), (50, 300), (300,)))
    arena, step, samples = Arena("fused"), np.asarray([3]), np.arange(64)
    with arena.recording([x, W, gamma, step, samples]) as plan:
        z = run("affine", x, W, memory=arena)
        y = run("batch_norm", z, gamma, None, memory=arena, activation="relu").y
        run("dropout", y, step, samples, memory=arena, seed=1, layer=0, rate=0.5)
    assert [len(group) for group in plan.groups()] == [3]


def test_other_arrays_are_refused_in_words():
    assert _launch.DEVICE.refusal(np.zeros(3, np.float32)) is None
    for wrong in ([1.0], np.ma.zeros(3), np.float32(1)):
        assert _launch.DEVICE.refusal(wrong) == (Kind.ARRAY, f"{type(wrong).__name__} is not a plain NumPy array")
    for dtype in ("f2", "i8", ">f4"):
        assert "is not one of float32, float64" in _launch.DEVICE.refusal(np.zeros(3, dtype)).text


def test_rows_of_a_data_set_that_lie_apart_are_not_copied():
    (_, (x, *rest), options), *_ = of_rows("gather", "float32", 40, 600)
    wide = np.zeros((40, 2, 20, 30), np.float32)
    wide[:, 1] = x.reshape(40, 20, 30)
    arena = Arena("fused")
    got, expected = (run("gather", wide[:, 1], *rest, memory=memory, **options) for memory in (arena, None))
    assert [a.tobytes() for a in got] == [a.tobytes() for a in expected]
    np.testing.assert_array_equal(got.x, wide[rest[-2][1:40], 1])
    assert arena.nbytes < sum(a.nbytes for a in got) + x.nbytes / 2


def test_many_rows_are_cut_and_few_are_not():
    assert _launch.cut((_launch.FEW_ROWS, 64), 4).split == COLUMNS
    assert _launch.cut((_launch.FEW_ROWS + 1, 64), 4).split == ROWS
    assert _launch.cut((200_704, 64), 4).blocks > 64
    assert _launch.cut((2, 3), 4).blocks == 1


def test_products_get_the_scratch_that_their_kernel_asks_for():
    source = (ROOT / "kernels" / "cpu" / "gemm.cpp").read_text(encoding="utf-8")
    scratch = re.search(r"kScratch = index\((\d+)\) << (\d+);", source)
    assert scratch, "gemm.cpp does not say how much scratch it needs"
    assert int(scratch[1]) << int(scratch[2]) == dense.SCRATCH
