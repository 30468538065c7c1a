"""What launchers of native kernels take and write to: layouts, destinations, how launches are cut."""

import re

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.fused.cpu import _launch, dense
from bnengine.fused.cpu.native import replayer
from bnengine.ops import REGISTRY, Example, Out
from bnengine.ops.update import RULES
from bnengine.runtime.memory import Arena, Memory, Outputs
from bnengine.runtime.plan import COLUMNS, ROWS
from bnengine.runtime.reasons import Kind
from tests.cpu.launching import LAUNCHERS, MANY, NAMES, assert_same_bits, examples, of_rows, run, several
from tests.cuda_on_cpu.cases import assert_within
from tests.support import ROOT

pytestmark = pytest.mark.usefixtures("native")


@pytest.mark.parametrize("name", NAMES)
def test_arrays_of_other_layouts_are_brought_into_the_kernel_s(name):
    for example in examples(name):
        expected = run(name, example)
        for moved in (unaligned, strided, turned):
            args = tuple(moved(a) if isinstance(a, np.ndarray) else a for a in example.args)
            assert_same_bits(run(name, example._replace(args=args)), expected, f"{name}, {moved.__name__}")


WIDER = {"b": lambda flags: flags * 0.25, "i": lambda numbers: numbers.astype(np.int32)}


@pytest.mark.parametrize("name", ["commit", *RULES, "average", "count_step", "add_epoch_sums", "correct",
                                  "softmax_cross_entropy", "dropout_backward"])  # fmt: skip
def test_flags_and_whole_numbers_of_other_types_are_brought_into_the_kernel_s(name):
    for example in examples(name):
        args = tuple(WIDER.get(a.dtype.kind, np.asarray)(a) if isinstance(a, np.ndarray) else a for a in example.args)
        assert_same_bits(run(name, example._replace(args=args)), run(name, example), name)


def unaligned(a):
    memory = np.zeros(a.nbytes + 1, np.uint8)
    memory[1:] = np.frombuffer(np.ascontiguousarray(a).tobytes(), np.uint8)
    return memory[1:].view(a.dtype).reshape(a.shape)


def strided(a):
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def turned(a):
    return np.asfortranarray(a)


def test_copies_are_native_launches_so_that_they_replay(rng):
    x = rng.standard_normal((40, 12)).astype(np.float32)
    arena = Arena()
    given, gamma = x.T, rng.standard_normal(40)
    with arena.recording([given, gamma]) as plan:
        got = LAUNCHERS["batch_norm"](Outputs(arena, {}), given, gamma, None)
    replay = replayer(plan)
    assert not isinstance(replay, str), replay
    x[:] = rng.standard_normal(x.shape)
    replay()
    expected = LAUNCHERS["batch_norm"](Outputs(Memory(), {}), np.ascontiguousarray(x.T), gamma.astype(np.float32), None)
    assert got.y.tobytes() == expected.y.tobytes()


@pytest.mark.parametrize("shape", [(6,), (5, 6), (3, 4, 5), (2, 3, 4, 5)])
def test_what_is_not_aligned_or_not_contiguous_is_copied_and_nothing_else_is(shape, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    for given, copies in ((x, 0), (unaligned(x), 1), (strided(x), 1), (np.ascontiguousarray(x.T).T, len(shape) > 1)):
        arena = Arena()
        with arena.recording([given]) as plan:
            ready = _launch.ready(Outputs(arena, {}), given)
        assert len(plan.launches) == copies
        assert (ready is given) == (not copies)
        np.testing.assert_array_equal(ready, x)


def test_a_product_its_normalisation_and_what_follows_share_their_columns(rng):
    x, W, gamma = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 50), (50, 300), (300,)))
    arena = Arena()
    step, samples = np.asarray([3]), np.arange(64)
    with arena.recording([x, W, gamma, step, samples]) as plan:
        to = Outputs(arena, {})
        z = LAUNCHERS["affine"](to, x, W)
        y = LAUNCHERS["batch_norm"](to, z, gamma, None, activation="relu").y
        LAUNCHERS["dropout"](to, y, step, samples, seed=1, layer=0, rate=0.5)
    assert [len(group) for group in plan.groups()] == [3]


# -- destinations


@pytest.mark.parametrize("name", [n for n in NAMES if REGISTRY[n].accumulates])
def test_a_destination_is_written_or_added_to(name):
    op = REGISTRY[name]
    for example in several(name):
        plain = run(name, example)
        for field, rule in op.accumulates.items():
            if plain[field] is None:
                continue
            before = np.abs(np.random.default_rng(1).standard_normal(plain[field].shape)) + 1
            before = before.astype(plain[field].dtype)
            for adds in (False, True):
                target = before.copy()
                got = run(name, example, {field: Out(target, adds)})
                assert got[field].tobytes() == target.tobytes()
                with np.errstate(all="ignore"):
                    expected = rule(before, plain[field]) if adds else plain[field]
                unit = 2.0**-52 if target.dtype == np.float64 else 2.0**-22
                scale = 4 * unit * (np.abs(before) + np.abs(plain[field]))
                assert_within(target, expected, scale, f"{name}, {field}")
                for other, value in plain.items():
                    assert other == field or value is None or got[other].tobytes() == value.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_every_output_refuses_a_destination_that_does_not_fit(name):
    for example in examples(name):
        for field, value in run(name, example).items():
            if value is None:
                continue
            other = np.int16 if value.dtype.kind != "f" else np.float16
            read_only = np.ones_like(value)
            read_only.flags.writeable = False
            for wrong in (np.ones((2, *value.shape), value.dtype), np.ones(value.shape, other), read_only):
                before = wrong.tobytes()
                with pytest.raises(InputError, match=f"the destination of '{field}' is "):
                    run(name, example, {field: Out(wrong)})
                assert wrong.tobytes() == before


@pytest.mark.parametrize("rows", [50, MANY])
def test_a_proposal_is_merged_into_columns_of_a_larger_buffer(rows, rng):
    x = rng.standard_normal((rows, 8)).astype(np.float32)
    own = run("batch_norm", Example("", (x, None, None)))
    before = np.abs(rng.standard_normal((3, 30))) + 1
    for adds in (False, True):
        buffer = before.copy()
        got = run("batch_norm", Example("", (x, None, None)), {"pending": Out(buffer[:, 8:16], adds)})
        for field in ("y", "batch"):
            assert got[field].tobytes() == own[field].tobytes()
        expected = REGISTRY["merge"].reference(before[:, 8:16], own["batch"]) if adds else own["batch"]
        np.testing.assert_allclose(buffer[:, 8:16], expected, rtol=1e-14)
        np.testing.assert_array_equal(np.delete(buffer, range(8, 16), axis=1), np.delete(before, range(8, 16), axis=1))


def test_statistics_may_be_columns_of_a_larger_buffer(rng):
    x, buffer = rng.standard_normal((20, 8)).astype(np.float32), np.full((3, 30), 7.0)
    buffer[:, 8:16] = own = run("moments", Example("", (x,)))["batch"]
    got = run("normalize", Example("", (x, buffer[:, 8:16], None, None)))
    assert_same_bits(got, run("normalize", Example("", (x, own, None, None))), "normalize")


def test_a_destination_of_an_output_that_a_call_does_not_have_is_refused(rng):
    x, statistics = rng.standard_normal((4, 3)).astype(np.float32), np.ones((3, 3))
    for field in ("dgamma", "dbeta", "dadd"):
        with pytest.raises(InputError, match=f"no output '{field}'"):
            run("normalize_backward", Example("", (x, x, x, statistics, None, None)), {field: Out(np.ones(3, "f4"))})


# -- what they take, and how they are cut


def test_other_arrays_are_refused_in_words():
    assert _launch.refusal(np.zeros(3, np.float32)) is None
    for wrong in ([1.0], np.ma.zeros(3), np.float32(1)):
        assert _launch.refusal(wrong) == (Kind.ARRAY, f"{type(wrong).__name__} is not a plain NumPy array")
    for dtype in ("f2", "i8", ">f4"):
        assert "is not one of float32, float64" in _launch.refusal(np.zeros(3, dtype)).text


def test_the_rows_of_a_data_set_may_lie_apart_and_are_not_copied():
    example = of_rows("gather", 40, 6)
    wide = np.zeros((40, 11), np.float32)
    wide[:, 2:8] = example.args[0]
    arena = Arena()
    got = run("gather", example._replace(args=(wide[:, 2:8], *example.args[1:])), memory=arena)
    assert_same_bits(got, run("gather", example), "gather")
    assert arena.nbytes < wide.nbytes + 8 * 64 + sum(a.nbytes + 64 for a in got.values())


def test_many_rows_are_cut_and_few_are_not():
    assert _launch.cut((_launch.FEW_ROWS, 64), 4).split == COLUMNS
    assert _launch.cut((_launch.FEW_ROWS + 1, 64), 4).split == ROWS
    assert _launch.cut((200_704, 64), 4).blocks > 64
    assert _launch.cut((2, 3), 4).blocks == 1


def test_products_get_the_scratch_that_their_kernel_asks_for():
    source = (ROOT / "kernels" / "cpu" / "gemm.cpp").read_text(encoding="utf-8")
    found = re.search(r"kScratch = index\((\d+)\) << (\d+);", source)
    assert found, "gemm.cpp does not say how much scratch it needs"
    assert int(found[1]) << int(found[2]) == dense.SCRATCH
