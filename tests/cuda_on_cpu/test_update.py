"""The kernels that end an optimizer step: check_step, update, average, count."""

from typing import Any

import numpy as np
import pytest

from bnengine.ops import REGISTRY, Example
from bnengine.ops.update import RULES
from tests.cuda_on_cpu.cases import Case, assert_within, cases, label
from tests.cuda_on_cpu.instances import kernel
from tests.cuda_on_cpu.launch import Launch, Path, arrivals, simulate, unwritten
from tests.cuda_on_cpu.storage import BFLOAT, DOUBLE, FLOAT, HALF, Storage
from tests.optimizers import settings_of

PATHS = [Path(s, v, splits, offset=int(v == 1)) for s in (FLOAT, DOUBLE) for v in (s.vector, 1) for splits in (1, 3)]
paths = pytest.mark.parametrize("path", PATHS, ids=label)


def check_step(
    path: Path, loss: Any, gradients: Any, pending: Any, scaling: Any = None, *, clip: float | None = None,
    growth: float = 2.0, backoff: float = 0.5, every: int = 2000, in_place: bool = False,
) -> list[Any]:  # fmt: skip
    """(ok, norm, factor, scaling)."""
    a = path.storage.arithmetic
    new = None if scaling is None else scaling if in_place else unwritten(4, a)
    launch = Launch(
        kernel("update.cu", "check_step", *path.which), (path.splits,), (), (loss, gradients, pending, scaling),
        (unwritten(1, bool), unwritten(1, "f8"), unwritten(1, a), new),
        (unwritten((path.splits, 2), "f8"), arrivals()),
        (gradients.size, pending.size, float("inf") if clip is None else clip, growth, backoff, every),
    )  # fmt: skip
    return simulate(launch, path.offset)


def update(
    name: str, path: Path, args: Any, options: dict[str, Any], *, in_place: bool = False,
    copy16: tuple[Storage, np.ndarray] | None = None,
) -> list[Any]:  # fmt: skip
    """The new parameters, slots and 16-bit copy, None for what is not there."""
    p, g, slots, table, counters, ok, factor, _ = RULES[name].call(*args)
    frozen = np.asarray(options.get("frozen", ()), np.int64).reshape(-1, 2)
    reads = (p, g, *slots)
    writes = (p, *slots) if in_place else tuple(None if a is None else unwritten(a.shape, a.dtype) for a in (p, *slots))
    which, narrow = ((), None) if copy16 is None else ((copy16[0].name,), copy16[1])
    launch = Launch(
        kernel("update.cu", name, *path.which, *which), (path.splits,), (table, counters, ok, factor, frozen), reads,
        (*writes, narrow), (), (p.size, *table.shape, len(frozen), options["decay_end"], *scalars(name, options)),
    )  # fmt: skip
    return simulate(launch, path.offset)


def scalars(name: str, options: dict[str, Any]) -> tuple[Any, ...]:
    """An optimizer's options with their defaults, in the kernel's order."""
    rule = RULES[name]
    flags = *rule.flags(options), options.get("decoupled", False)
    return (options.get("weight_decay", 0.0), *rule.numbers(options), *flags)


@paths
@pytest.mark.parametrize("name", RULES)
def test_an_optimizer_is_within_the_bound_of_the_op_in_place_and_not(name, path):
    for case in cases(name, path):
        got, in_place = (update(name, path, case.given, case.options, in_place=b) for b in (False, True))
        for field, new, same in zip(case.expected, got, in_place, strict=True):
            assert (new is None) == (case.expected[field] is None)
            if new is not None:
                case.check(field, new)
                assert new.tobytes() == same.tobytes()


@paths
@pytest.mark.parametrize("name", RULES)
def test_a_skipped_step_and_a_frozen_range_leave_every_bit(name, path, rng):
    dtype, n = path.storage.arithmetic, 1003
    flat = [rng.standard_normal(n).astype(dtype) for _ in range(2)]
    slots = [np.abs(rng.standard_normal(n)).astype(dtype) for _ in RULES[name].slots]
    flat[1][7], slots[0][9] = np.nan, np.nan
    table = np.full((2, RULES[name].columns), 0.5, dtype)
    frozen = ((0, 1), (4, 9), (500, 700), (1002, 1003))
    kept = np.zeros(n, bool)
    for a, b in frozen:
        kept[a:b] = True
    for ok in (False, True):
        args = (*flat, *slots, table, np.zeros(5, np.int64), np.asarray([ok]), np.ones(1, dtype))
        got = update(
            name, path, args, {"decay_end": n, "frozen": frozen, "weight_decay": 0.1, **settings_of(RULES[name])}
        )
        for new, old in zip(got[:-1], (flat[0], *slots), strict=True):
            where = kept if ok else np.ones(n, bool)
            assert new[where].tobytes() == old[where].tobytes()
        assert not ok or np.all((got[0] != flat[0])[~kept][50:])


@pytest.mark.parametrize("storage", [HALF, BFLOAT], ids=lambda s: s.name)
@pytest.mark.parametrize("vector", [4, 1])
@pytest.mark.parametrize("name", RULES)
def test_the_shadow_is_the_new_parameters_rounded_where_the_step_is_good(name, vector, storage, rng):
    n = 1003
    p, g = (rng.standard_normal(n).astype(np.float32) for _ in range(2))
    p[:4] = 1e5, 3e-8, -0.0, 1 + 2.0**-9 + 2.0**-20  # beyond float16, below its least, a sign, above a tie of bfloat16
    slots = [np.abs(rng.standard_normal(n)).astype(np.float32) + 4 for _ in RULES[name].slots]
    table = np.full((2, RULES[name].columns), 0.5, np.float32)
    options = {"decay_end": n, "frozen": ((0, 4), (500, 700))}
    for ok in (True, False):
        args = (p, g, *slots, table, np.zeros(5, np.int64), np.asarray([ok]), np.ones(1, np.float32))
        old = storage.of(np.full(n, 7.0))
        plain = update(name, Path(FLOAT, vector, 3, offset=int(vector == 1)), args, options)
        *news, copy16 = update(
            name, Path(FLOAT, vector, 3, offset=int(vector == 1)), args, options, copy16=(storage, old)
        )
        for new, same in zip(news, plain, strict=False):
            assert new.tobytes() == same.tobytes()
        assert copy16.tobytes() == (storage.of(news[0]) if ok else old).tobytes()


@pytest.mark.parametrize(("row", "used"), [(0, 0), (2, 2), (3, 2), (2**40, 2)])
def test_the_table_s_row_is_that_of_the_counter_and_the_last_one_stays(row, used):
    table = np.asarray([[1.0], [10.0], [100.0]], np.float32)
    p, g = np.zeros(8, np.float32), np.ones(8, np.float32)
    args = (p, g, None, table, np.asarray([5, row, 0, 0, 0]), np.asarray([True]), np.ones(1, np.float32))
    new = update("sgd", Path(FLOAT, 4), args, {"decay_end": 0})[0]
    np.testing.assert_array_equal(new, np.full(8, -table[used, 0]))


@pytest.mark.parametrize("decay_end", [0, 1, 6, 8])
def test_weight_decay_ends_at_the_border(decay_end):
    p, g = np.ones(8, np.float32), np.zeros(8, np.float32)
    args = (p, g, None, np.ones((1, 1), np.float32), np.zeros(5, np.int64), np.asarray([True]), np.ones(1, np.float32))
    new = update("sgd", Path(FLOAT, 4), args, {"decay_end": decay_end, "weight_decay": 0.5})[0]
    np.testing.assert_array_equal(new, np.where(np.arange(8) < decay_end, 0.5, 1.0))


@paths
def test_judge_is_within_the_bound_of_the_op(path):
    for case in cases("check_step", path):
        found, in_place = (check_step(path, *case.given, **case.options, in_place=b) for b in (False, True))
        for field, got, same in zip(("ok", "norm", "factor", "scaling"), found, in_place, strict=True):
            assert (got is None) == (case.expected[field] is None)
            if got is not None:
                case.check(field, got)
                assert got.tobytes() == same.tobytes()


@paths
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_judge_finds_what_is_not_finite_wherever_it_is(path, bad, rng):
    dtype = path.storage.arithmetic
    for place in ("loss", "first", "last", "pending", "nowhere"):
        loss, gradients, pending = np.ones(1, dtype), rng.standard_normal(2051).astype(dtype), rng.random((2, 3, 101))
        if place == "loss":
            loss[0] = bad
        elif place == "pending":
            pending[1, 2, 100] = bad
        elif place != "nowhere":
            gradients[0 if place == "first" else -1] = bad
        (ok,), (norm,), _, _ = check_step(path, loss, gradients, pending, clip=1.0)
        assert ok == (place == "nowhere")
        assert np.isfinite(norm) == (place not in ("first", "last"))


@pytest.mark.parametrize(("clip", "ok"), [(None, False), (1e30, False), (1.0, True)])
def test_judge_refuses_a_norm_whose_square_the_optimizer_cannot_hold(clip, ok):
    gradients = np.full(4, 1e19, np.float32)
    got = check_step(Path(FLOAT, 4), np.ones(1, np.float32), gradients, np.zeros((1, 3, 0)), clip=clip)
    expected = REGISTRY["check_step"].reference(np.ones(1, np.float32), gradients, np.zeros((1, 3, 0)), clip=clip)
    assert got[0][0] == expected.ok[0] == ok
    np.testing.assert_allclose(got[1], expected.norm, rtol=1e-15)
    np.testing.assert_allclose(got[2], expected.factor, rtol=1e-7)


@paths
@pytest.mark.parametrize("in_place", [False, True])
def test_average_is_within_the_bound_of_the_op(path, in_place):
    for case in cases("average", path):
        averaged, values, ok = case.given
        out = averaged if in_place else unwritten(averaged.shape, averaged.dtype)
        launch = Launch(
            kernel("update.cu", "average", *path.which), (path.splits,), (ok,), (averaged, values), (out,), (),
            (averaged.size, case.options["decay"]),
        )  # fmt: skip
        (got,) = simulate(launch, path.offset)
        case.check("out", got)
        assert ok[0] or got.tobytes() == averaged.tobytes()


@pytest.mark.parametrize("counters", [[7, 3, 2, 1, 1], [0, 0, 0, 0, 0], [2**40, 5, 9, 3, 8]])
@pytest.mark.parametrize("ok", [True, False])
def test_advance_counts_as_the_op_does(counters, ok):
    before, flag, cursor = np.asarray(counters), np.asarray([ok]), np.asarray([2**33, 4])
    expected = REGISTRY["count_step"].reference(before, flag, cursor, rows=64)
    for out, moved in ((unwritten(5, "i8"), unwritten(2, "i8")), (before, cursor)):
        launch = Launch(kernel("update.cu", "count_step"), (1,), (flag,), (before, cursor), (out, moved), (), (64,))
        for got, wanted in zip(simulate(launch), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)
    launch = Launch(
        kernel("update.cu", "count_step"), (1,), (flag,), (before, None), (unwritten(5, "i8"), None), (), (0,)
    )
    np.testing.assert_array_equal(simulate(launch)[0], expected.counters)


@pytest.mark.parametrize("storage", [FLOAT, DOUBLE], ids=lambda s: s.name)
def test_tally_is_within_the_bound_of_the_op(storage):
    for case in cases("add_epoch_sums", Path(storage, 1)):
        sums, value, divisor, correct, ok = case.given
        for out in (unwritten(4, "f8"), sums):
            reads = (value, divisor, correct)
            launch = Launch(
                kernel("update.cu", "add_epoch_sums", storage.name), (1,), (), (*reads, ok, sums), (out,), (), (7,)
            )
            case.check("out", simulate(launch)[0])


def test_a_large_buffer_is_updated_to_its_last_element(rng):
    p, g = (rng.standard_normal(70001).astype(np.float32) for _ in range(2))
    m, v = np.zeros_like(p), np.zeros_like(p)
    table = np.asarray([[0.1, 0.1, 0.001]], np.float32)
    args = (p, g, m, v, None, table, np.zeros(5, np.int64), np.asarray([True]), np.ones(1, np.float32))
    case = Case("adam", Path(FLOAT, 4, 7), Example("large", args, {"decay_end": 0}))
    for path in (Path(FLOAT, 4, 7), Path(FLOAT, 1, 300)):
        new = update("adam", path, args, {"decay_end": 0})[0]
        reference = REGISTRY["adam"].reference(*case.wide, decay_end=0).parameters
        assert_within(new, reference, 20 * FLOAT.unit * (np.abs(p) + 0.1), "parameters")
