"""Every launcher of native kernels: within its op's bound, and the same bits however it is run."""

import importlib
import importlib.util
import re
from contextlib import contextmanager

import numpy as np
import pytest

from bnengine import threads
from bnengine.errors import InputError
from bnengine.fused.cpu import _launch, dense
from bnengine.fused.cpu.native import NativeKernel, replayer
from bnengine.memory import Arena, Fresh, Outputs
from bnengine.ops import REGISTRY, Example, Into
from bnengine.plan import COLUMNS, ROWS
from tests.cpu.build import require_set
from tests.cpu.large import large
from tests.cuda_on_cpu.cases import Case, assert_within, fields
from tests.cuda_on_cpu.launch import Path
from tests.cuda_on_cpu.storage import DOUBLE, FLOAT
from tests.support import ROOT

pytestmark = pytest.mark.usefixtures("native")

MANY = _launch.FEW_ROWS + 809  # rows: they are cut, and neither blocks of 16 nor those of a partial result end evenly


def found():
    """{op: launcher} of all ops that have native kernels, by the place of their CUDA launchers."""
    launchers = {}
    for name, op in REGISTRY.items():
        module, _, function = op.fused_names[0].replace(".cuda.", ".cpu.").partition(":")
        if importlib.util.find_spec(module):
            launchers[name] = getattr(importlib.import_module(module), function)
    return launchers


LAUNCHERS = found()
NAMES = sorted(LAUNCHERS)
OF_ROWS = (
    *("moments", "normalize", "batch_norm", "normalize_backward", "activation", "activation_backward", "total"),
    *("affine", "affine_backward", "dropout", "dropout_backward", "gather"),
)


def run(name, example, into=None, memory=None):
    result = LAUNCHERS[name](Outputs(memory or Fresh(), into or {}), *example.args, **example.options)
    return fields(REGISTRY[name], result)


def examples(name, storage=FLOAT):
    return REGISTRY[name].examples(np.random.default_rng(0), storage.dtype.name)


def assert_same_bits(got, expected, what):
    assert got.keys() == expected.keys()
    for field, value in expected.items():
        other = got[field]
        assert other is value is None or other.tobytes() == value.tobytes(), f"{what}, {field}"


def assert_exact(name, example, storage):
    """Within the bound of the exact result: a reference that adds up thousands of rows in a chain is not always."""
    case, got = Case(name, Path(storage, 1), example), run(name, example)
    for field, value in got.items():
        if value is not None:
            case.check(field, value)
    return got


def assert_right(name, example, storage):
    """Within the bound of the exact result, and twice that of the reference."""
    case, got = Case(name, Path(storage, 1), example), assert_exact(name, example, storage)
    with np.errstate(all="ignore"):
        reference = fields(case.op, case.op.reference(*example.args, **example.options))
    assert got.keys() == reference.keys()
    for field, expected in reference.items():
        if expected is None:
            assert got[field] is None, (case.what, field)
            continue
        assert got[field].dtype == expected.dtype, (case.what, field)
        with np.errstate(all="ignore"):
            assert_within(got[field], expected, 2 * case.bound[field], f"{case.what}, {field}")


def of_rows(name, rows, width, dtype=np.float32, activation="relu"):
    """An example of an op over rows, by the shape; its statistics are no batch's but near one's."""
    rng = np.random.default_rng(rows + width)

    def draw(*shape):
        return rng.standard_normal(shape).astype(dtype)

    x, dy, add, gamma, beta = draw(rows, width) * 2 + 30, draw(rows, width), draw(rows, width), draw(width), draw(width)
    statistics = np.stack([np.full(width, 9.0), np.full(width, 30.1), np.full(width, 4.2)])
    W, z = draw(width, 21), np.tanh(draw(rows, 21))
    out = REGISTRY["normalize"].reference(x, statistics, gamma, beta, add, activation=activation)
    activated = REGISTRY["activation"].reference(add, kind=activation)
    g, samples, step = {"activation": activation}, rng.integers(0, 10**6, rows), np.asarray([5])
    order = rng.permutation(rows)
    return {
        "moments": Example("", (x,)),
        "normalize": Example("", (x, statistics, gamma, beta, add), g),
        "batch_norm": Example("", (x, gamma, beta, add), g),
        "normalize_backward": Example("", (dy, x, out, statistics, gamma, beta, add), g),
        "activation": Example("", (dy,), {"kind": activation}),
        "activation_backward": Example("", (dy, add, activated), {"kind": activation}),
        "total": Example("", (x, dy)),
        "affine": Example("", (dy, W, draw(21)), {"activation": "tanh"}),
        "affine_backward": Example("", (draw(rows, 21), dy, W, z), {"activation": "tanh"}),
        "dropout": Example("", (x, step, samples), {"seed": 2**40 + 3, "layer": 2, "rate": 0.4}),
        "dropout_backward": Example("", (dy, draw(rows, width) > 0), {"rate": 0.4}),
        "gather": Example("", (x, z, draw(rows), samples, draw(4), order, np.asarray([1, 3])), {"rows": rows - 1}),
    }[name]


@pytest.mark.parametrize("storage", [FLOAT, DOUBLE], ids=lambda s: s.name)
@pytest.mark.parametrize("name", NAMES)
def test_every_example_is_within_the_bound_of_the_op_and_of_its_reference(name, storage):
    for example in examples(name, storage):
        assert_right(name, example, storage)


@pytest.mark.parametrize("storage", [FLOAT, DOUBLE], ids=lambda s: s.name)
@pytest.mark.parametrize("shape", [(2, 1), (16, 3), (33, 17), (100, 37), (300, 131), (MANY, 1), (MANY, 21)], ids=str)
@pytest.mark.parametrize("name", OF_ROWS)
def test_odd_widths_few_rows_and_many_are_within_the_bound(name, shape, storage):
    assert_exact(name, of_rows(name, *shape, storage.dtype), storage)


@pytest.mark.parametrize("activation", ["identity", "leaky_relu", "sigmoid", "tanh", "gelu"])
@pytest.mark.parametrize("name", ["normalize", "batch_norm", "normalize_backward"])
def test_every_activation_follows_rows_that_are_cut(name, activation):
    assert_exact(name, of_rows(name, MANY, 19, activation=activation), FLOAT)


@pytest.mark.parametrize("rows", [33, MANY])
def test_statistics_may_be_constants_and_gamma_and_beta_absent(rows):
    example = of_rows("normalize_backward", rows, 21)
    dy, x, y, statistics, gamma, beta, add = example.args
    for batch_statistics in (True, False):
        options = {**example.options, "batch_statistics": batch_statistics}
        for given in ((gamma, beta, add), (None, beta, None), (gamma, None, None), (None, None, None)):
            assert_exact("normalize_backward", Example("", (dy, x, y, statistics, *given), options), FLOAT)


@pytest.mark.parametrize("storage", [FLOAT, DOUBLE], ids=lambda s: s.name)
@pytest.mark.parametrize("rows", [333, MANY])
def test_moments_neither_cancel_nor_vanish_nor_overflow(rows, storage, rng):
    x = rng.standard_normal((rows, 9))
    x[:, 0] += 1e6
    x[0, 1] = 1e6
    x[:, 2] = 0.1
    x[:, 3] *= 1e-30
    x[:, 4] *= 1e20
    x[:, 5] = np.where(np.arange(rows) < 20, x[:, 5], 0)
    x[:, 6] = 0
    x[:, 7] *= 1e-39
    example = Example("hard", (x.astype(storage.dtype),))
    got = assert_exact("moments", example, storage)["batch"]
    assert (got[1, 2], got[2, 2]) == (example.args[0][0, 2], 0)  # a constant has its own value as mean


@pytest.mark.parametrize("rows", [50, MANY])
def test_what_is_not_a_number_stays_in_its_column(rows):
    example = of_rows("batch_norm", rows, 21)
    plain = run("batch_norm", example)
    for value in (np.nan, np.inf, -np.inf):
        x = example.args[0].copy()
        x[7, 4] = value
        got = run("batch_norm", example._replace(args=(x, *example.args[1:])))
        assert np.isnan(got["y"][:, 4]).all()
        assert np.isnan(got["batch"][1:, 4]).all()
        for field in ("y", "batch"):
            assert np.delete(got[field], 4, -1).tobytes() == np.delete(plain[field], 4, -1).tobytes()


@pytest.mark.parametrize("name", ["activation", "activation_backward", "normalize", "normalize_backward"])
@pytest.mark.parametrize("kind", ["identity", "relu", "leaky_relu", "sigmoid", "tanh", "gelu"])
def test_nan_and_infinity_are_those_of_the_reference(name, kind, rng):
    example = of_rows(name, 40, 21, activation=kind)
    args = []
    for a in example.args:
        if a.shape == (40, 21):
            a = a.copy()
            a[rng.random(a.shape) < 0.2] = np.nan
            a[rng.random(a.shape) < 0.2] = np.inf
            a[rng.random(a.shape) < 0.2] = -np.inf
            a[rng.random(a.shape) < 0.2] = -0.0
        args.append(a)
    options = {**example.options, **({"batch_statistics": False} if name == "normalize_backward" else {})}
    given = Example("not finite", tuple(args), options)
    got = run(name, given)
    with np.errstate(all="ignore"):
        reference = fields(REGISTRY[name], REGISTRY[name].reference(*args, **options))
    for field, expected in reference.items():
        np.testing.assert_array_equal(np.isnan(got[field]), np.isnan(expected), err_msg=field)
        infinite = np.isinf(expected)
        np.testing.assert_array_equal(got[field][infinite], expected[infinite], err_msg=field)


# -- the same bits however it is run


def several(name):
    """Examples that are cut in several blocks, by columns and by rows, and the op's own."""
    if name in OF_ROWS:
        yield from (of_rows(name, *shape) for shape in ((200, 300), (67, 113), (MANY, 24)))
    yield from large(name)
    yield from examples(name)


@contextmanager
def instruction_set(native, name):
    before = native.isa()
    for chosen in (name, before):
        native.done(native.library().bnengine_choose_isa(chosen.encode()), chosen)
        native.kernel.cache_clear()
        if chosen is name:
            try:
                yield
            except BaseException:
                native.library().bnengine_choose_isa(before.encode())
                native.kernel.cache_clear()
                raise


@pytest.mark.parametrize("name", NAMES)
def test_avx2_gives_the_bits_of_avx_512(name, native):
    require_set("v4")
    for example in several(name):
        with instruction_set(native, "v4"):
            expected = run(name, example)
        with instruction_set(native, "v3"):
            assert_same_bits(run(name, example), expected, name)


@pytest.mark.parametrize("name", NAMES)
def test_no_bit_depends_on_the_number_of_threads(name):
    for example in several(name):
        threads.set(1)
        expected = run(name, example)
        threads.set(3)
        assert_same_bits(run(name, example), expected, name)


@pytest.mark.parametrize("name", NAMES)
def test_no_bit_depends_on_how_columns_and_rows_are_cut_in_blocks(name, monkeypatch):
    for example in several(name):
        expected = run(name, example)
        for blocks in (1, 2, 5, 999):
            with monkeypatch.context() as patched:
                patched.setattr(NativeKernel, "__post_init__", lambda self, n=blocks: self_blocks(self, n))
                assert_same_bits(run(name, example), expected, name)


def self_blocks(kernel, blocks):
    if kernel.width > 1:
        object.__setattr__(kernel, "blocks", blocks)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["batch_norm", "normalize", "normalize_backward"])
def test_what_is_stored_past_the_caches_has_the_same_bits(name, dtype, monkeypatch):
    for width in (16, 64, 24, 21):  # whole lines of the cache, and not
        example = of_rows(name, MANY, width, dtype)
        expected = run(name, example)
        for past in (0, 1 << 60):
            monkeypatch.setattr(importlib.import_module("bnengine.fused.cpu.batch_norm"), "PAST", past)
            arena = Arena()
            got = run(name, example, memory=arena)
            assert_same_bits(got, expected, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_replayed_plan_gives_the_bits_of_its_launches_whatever_scratch_holds(name, native):
    for example in several(name):
        expected, arena = run(name, example), Arena()
        arrays = [a for a in (*example.args, *example.options.values()) if isinstance(a, np.ndarray)]
        with arena.recording(arrays) as plan:
            got = run(name, example, memory=arena)
        assert_same_bits(got, expected, name)
        replay = replayer(plan)
        assert not isinstance(replay, str), replay
        for count in (1, 3):
            threads.set(count)
            native.library().bnengine_fill_scratch(255)
            arena.poison()
            replay()
            assert_same_bits(got, expected, name)


@pytest.mark.parametrize("name", NAMES)
def test_arrays_of_other_layouts_are_brought_into_the_kernel_s(name):
    for example in examples(name):
        expected = run(name, example)
        for moved in (unaligned, strided, turned):
            args = tuple(moved(a) if isinstance(a, np.ndarray) else a for a in example.args)
            assert_same_bits(run(name, example._replace(args=args)), expected, f"{name}, {moved.__name__}")


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
    expected = LAUNCHERS["batch_norm"](Outputs(Fresh(), {}), np.ascontiguousarray(x.T), gamma.astype(np.float32), None)
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
                got = run(name, example, {field: Into(target, adds)})
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
                    run(name, example, {field: Into(wrong)})
                assert wrong.tobytes() == before


@pytest.mark.parametrize("rows", [50, MANY])
def test_a_proposal_is_merged_into_columns_of_a_larger_buffer(rows, rng):
    x = rng.standard_normal((rows, 8)).astype(np.float32)
    own = run("batch_norm", Example("", (x, None, None)))
    before = np.abs(rng.standard_normal((3, 30))) + 1
    for adds in (False, True):
        buffer = before.copy()
        got = run("batch_norm", Example("", (x, None, None)), {"proposal": Into(buffer[:, 8:16], adds)})
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
            run("normalize_backward", Example("", (x, x, x, statistics, None, None)), {field: Into(np.ones(3, "f4"))})


# -- what they take, and how they are cut


def test_other_arrays_are_refused_in_words():
    unsupported = importlib.import_module("bnengine.fused.cpu.batch_norm").unsupported
    assert unsupported(np.zeros(3, np.float32)) is None
    for wrong in ([1.0], np.ma.zeros(3), np.float32(1)):
        assert unsupported(wrong) == "not a NumPy array"
    for dtype in ("f2", "i8", ">f4"):
        assert "is not one of float32, float64" in unsupported(np.zeros(3, dtype))


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
