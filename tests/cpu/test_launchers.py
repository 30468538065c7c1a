"""Every launcher of native kernels: within its op's bound, and the same bits however it is run."""

import importlib
from contextlib import contextmanager

import numpy as np
import pytest

from bnengine import threads
from bnengine.fused.cpu.native import NativeKernel, replayer
from bnengine.ops import REGISTRY, Example
from bnengine.ops.activations import ACTIVATIONS
from bnengine.runtime.memory import Arena
from tests.cpu.build import require_set
from tests.cpu.launching import (
    MANY,
    NAMES,
    OF_ROWS,
    assert_exact,
    assert_right,
    assert_same_bits,
    examples,
    of_rows,
    run,
    several,
)
from tests.cuda_on_cpu.cases import fields
from tests.cuda_on_cpu.storage import DOUBLE, FLOAT

pytestmark = pytest.mark.usefixtures("native")


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


@pytest.mark.parametrize("activation", ACTIVATIONS)
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
@pytest.mark.parametrize("kind", ACTIVATIONS)
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
