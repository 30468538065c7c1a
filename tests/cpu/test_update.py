"""The native end of a step where the ops' examples do not reach: skipped steps, frozen ranges, what is not finite."""

import numpy as np
import pytest

from bnengine.contracts.update import RULE_CONTRACTS
from bnengine.errors import InputError
from bnengine.fused.cpu.update import rounded
from bnengine.ops import REGISTRY, Example, Out
from bnengine.ops.update import RULES
from bnengine.runtime.memory import Arena
from tests.cpu.large import FROZEN, flat
from tests.cpu.launching import assert_exact, assert_same_bits, run
from tests.cuda_on_cpu.storage import BFLOAT, DOUBLE, FLOAT, HALF

pytestmark = pytest.mark.usefixtures("native")
storages = pytest.mark.parametrize("storage", [FLOAT, DOUBLE], ids=lambda s: s.name)
optimizers = pytest.mark.parametrize("name", RULES)
SIZE = 30003  # FROZEN ends there
VARIANTS = {
    name: [
        {k: v for k, v in variant.items() if k not in ("absent", "frozen")} for variant in contract.variants.values()
    ]
    for name, contract in RULE_CONTRACTS.items()
}


def state_of(name, example):
    """{field: array} of what an optimizer changes."""
    fields = REGISTRY[name].fields[:-1]  # the last one is the 16-bit copy
    return dict(zip(fields, (example.args[0], *example.args[2 : 2 + len(RULES[name].slots)]), strict=True))


def in_place(name, example):
    """The state after a step that was written to the arrays it was computed from."""
    args = [a.copy() if isinstance(a, np.ndarray) else a for a in example.args]
    example = example._replace(args=tuple(args))
    into = {field: Out(a) for field, a in state_of(name, example).items() if a is not None}
    return run(name, example, into)


@storages
@optimizers
def test_every_variant_is_within_the_bound_over_many_blocks(name, storage, rng):
    for options in VARIANTS[name]:
        for size in (1, 17, 9001):
            example = flat(rng, name, size, storage.dtype.type, **options)
            assert_same_bits(in_place(name, example), assert_exact(name, example, storage), name)


@storages
@optimizers
def test_a_skipped_step_and_frozen_ranges_leave_every_bit(name, storage, rng):
    kept = np.zeros(SIZE, bool)
    for begin, end in FROZEN:
        kept[begin:end] = True
    for ok in (False, True):
        for frozen in (FROZEN, FROZEN[::-1]):
            example = flat(rng, name, SIZE, storage.dtype.type, ok, frozen=frozen)
            example.args[1][7] = np.inf  # inside a frozen range, as the two below
            for slot in state_of(name, example).values():
                slot[[5, 16000]] = np.nan, -0.0
                before = {field: a.copy() for field, a in state_of(name, example).items()}
            for got in (run(name, example), in_place(name, example)):
                for field, old in before.items():
                    where = kept if ok else np.ones(SIZE, bool)
                    assert got[field][where].tobytes() == old[where].tobytes(), field
                assert not ok or (got["parameters"] != before["parameters"])[~kept].all()


@storages
@optimizers
def test_what_is_not_finite_stays_in_its_element_and_is_the_reference_s(name, storage, rng):
    for options in ({}, {"weight_decay": 0.0}, *VARIANTS[name]):
        example = flat(rng, name, 100, storage.dtype.type, frozen=((90, 95),), **options)
        decay_end = example.options["decay_end"]
        assert decay_end == 51
        for first in (decay_end - 17, decay_end + 5):  # where parameters decay, and where they do not
            for i, array in enumerate(example.args[: 2 + len(RULES[name].slots)]):
                array[3 * i + first : 3 * i + first + 3] = np.nan, np.inf, -0.0
        got = run(name, example)
        with np.errstate(all="ignore"):
            expected = REGISTRY[name].reference(*example.args, **example.options)._asdict()
        for field, value in expected.items():
            if value is not None:
                np.testing.assert_allclose(got[field], value, rtol=1e-4, atol=1e-5, err_msg=f"{options}, {field}")


@pytest.mark.parametrize(("row", "used"), [(0, 0), (2, 2), (3, 2), (2**40, 2)])
def test_the_table_s_row_is_that_of_the_counter_and_the_last_one_stays(row, used):
    table = np.asarray([[1.0], [10.0], [100.0], [np.nan]], np.float32)[:3]
    p, g = np.zeros(8, np.float32), np.ones(8, np.float32)
    args = (p, g, None, table, np.asarray([5, row, 0, 0, 0]), np.asarray([True]), np.ones(1, np.float32))
    np.testing.assert_array_equal(
        run("sgd", Example("", args, {"decay_end": 0}))["parameters"], np.full(8, -table[used, 0])
    )


@pytest.mark.parametrize("decay_end", [0, 1, 6, 4095, 4096, 9000])
def test_weight_decay_ends_at_the_border(decay_end):
    p, g = np.ones(9000, np.float32), np.zeros(9000, np.float32)
    args = (p, g, None, np.ones((1, 1), np.float32), np.zeros(5, np.int64), np.asarray([True]), np.ones(1, np.float32))
    new = run("sgd", Example("", args, {"decay_end": decay_end, "weight_decay": 0.5, "frozen": ((3, 5),)}))[
        "parameters"
    ]
    position = np.arange(9000)
    frozen = (position >= 3) & (position < 5)
    np.testing.assert_array_equal(new, np.where((position < decay_end) & ~frozen, 0.5, 1.0))


@pytest.mark.parametrize("storage", [HALF, BFLOAT], ids=lambda s: s.name)
@optimizers
def test_the_shadow_is_the_new_parameters_rounded_where_the_step_is_good(name, storage, rng):
    dtype = np.float16 if storage is HALF else pytest.importorskip("ml_dtypes").bfloat16
    for ok in (True, False):
        example = flat(rng, name, 1003, ok=ok, frozen=((0, 4), (500, 700)))
        example.args[0][:4] = (
            1e5,
            3e-8,
            -0.0,
            1 + 2.0**-9 + 2.0**-20,
        )  # beyond float16, below its least, a tie of bfloat16
        plain, old = run(name, example), np.full(1003, 7.0).astype(dtype)
        with_shadow = example._replace(args=(*example.args, old))
        got, target = run(name, with_shadow), old.copy()
        run(name, with_shadow, {"copy16": Out(target)})
        assert_same_bits(
            {f: got[f] for f in plain if f != "copy16"}, {f: a for f, a in plain.items() if f != "copy16"}, name
        )
        expected = storage.of(plain["parameters"]).view(np.uint16) if ok else old.view(np.uint16)
        np.testing.assert_array_equal(got["copy16"].view(np.uint16), expected)
        np.testing.assert_array_equal(target.view(np.uint16), expected)


def test_the_shadow_is_a_launch_of_its_own_so_that_it_is_made_again(rng):
    example, arena = flat(rng, "adam", 40), Arena()
    copy16 = example.args[0].astype(np.float16)
    arrays = [*(a for a in example.args if a is not None), copy16]
    with arena.recording(arrays) as plan:
        run("adam", example._replace(args=(*example.args, copy16)), memory=arena)
    assert [launch.kernel for launch in plan.launches][-1] is rounded


@optimizers
def test_a_destination_of_a_slot_that_a_variant_lacks_is_refused(name, rng):
    rule, example = RULES[name], flat(rng, name, 20)
    last = len(rule.slots)
    lacking = dict(list(enumerate(rule.slots, start=2))[last - rule.optional :])
    without = example._replace(args=tuple(None if i in lacking else a for i, a in enumerate(example.args)))
    for absent in (*lacking.values(), "copy16"):
        with pytest.raises(InputError, match=f"no output '{absent}'"):
            run(name, without, {absent: Out(np.ones(20, np.float32))})


@optimizers
def test_a_slot_that_every_variant_has_cannot_be_left_out_nor_a_setting_be_made_up(name, rng):
    rule, example = RULES[name], flat(rng, name, 20)
    for i, (slot, row) in enumerate(rule.slots.items(), start=2):
        if row.on is None:
            without = example._replace(args=tuple(None if j == i else a for j, a in enumerate(example.args)))
            with pytest.raises(TypeError, match=f"^{name}: the slot '{slot}' is None"):
                run(name, without)
    with pytest.raises(TypeError, match=f"^{name}: no option 'unheard'"):
        run(name, example._replace(options={**example.options, "unheard": 1.0}))


# -- check_step


@storages
@pytest.mark.parametrize("size", [1, 4096, 4097, 30001])
def test_a_judgement_over_chunks_is_within_the_bound(size, storage, rng):
    loss, gradients = np.ones(1, storage.dtype), rng.standard_normal(size).astype(storage.dtype)
    for pending in (np.zeros((1, 3, 0)), rng.random((2, 3, 501))):
        for scaling in (None, np.asarray([1024.0, 4.0, 1.0, 2.0], storage.dtype)):
            args = (loss, gradients, pending, *(() if scaling is None else (scaling,)))
            assert_exact("check_step", Example("large", args, {"clip": 1.0, "every": 5}), storage)


@storages
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_judge_finds_what_is_not_finite_wherever_it_is(bad, storage, rng):
    size = 3 * 4096 + 7
    for place in ("loss", 0, 15, 4095, 4096, size - 8, size - 1, "first pending", "last pending", "nowhere"):
        loss, gradients = np.ones(1, storage.dtype), rng.standard_normal(size).astype(storage.dtype)
        pending = rng.random((2, 3, 101))
        if place == "loss":
            loss[0] = bad
        elif place == "first pending":
            pending[0, 0, 0] = bad
        elif place == "last pending":
            pending[-1, -1, -1] = bad
        elif place != "nowhere":
            gradients[place] = bad
        got = run("check_step", Example("", (loss, gradients, pending), {"clip": 1.0}))
        assert got["ok"] == (place == "nowhere")
        assert np.isfinite(got["norm"]) == (not isinstance(place, int))


@pytest.mark.parametrize(("clip", "ok"), [(None, False), (1e30, False), (1.0, True)])
def test_judge_refuses_a_norm_whose_square_the_optimizer_cannot_hold(clip, ok):
    args = np.ones(1, np.float32), np.full(4, 1e19, np.float32), np.zeros((1, 3, 0))
    got, expected = (
        run("check_step", Example("", args, {"clip": clip})),
        REGISTRY["check_step"].reference(*args, clip=clip),
    )
    assert got["ok"] == expected.ok == ok
    np.testing.assert_allclose(got["norm"], expected.norm, rtol=1e-15)
    np.testing.assert_allclose(got["factor"], expected.factor, rtol=1e-7)


def test_a_scale_may_be_written_where_it_was_read(rng):
    for example in REGISTRY["check_step"].contract.examples(rng, "float32"):
        if len(example.args) == 4:
            scaling = example.args[3].copy()
            expected = run("check_step", example)["scaling"]
            args = (*example.args[:3], scaling)
            run("check_step", example._replace(args=args), {"scaling": Out(scaling)})
            assert scaling.tobytes() == expected.tobytes()


# -- averages and counts


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_average_of_statistics_is_taken_in_place_and_left_alone_where_the_step_was_skipped(dtype, rng):
    averaged, values = (rng.standard_normal((3, 5001)).astype(dtype) for _ in range(2))
    averaged[1, 7] = np.nan
    for ok in (True, False):
        target, flag = averaged.copy(), np.asarray([ok])
        got = run("average", Example("", (target, values, flag), {"decay": 0.99}), {"out": Out(target)})["out"]
        expected = REGISTRY["average"].reference(averaged, values, flag, decay=0.99)
        assert got is target
        if ok:
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
        else:
            assert got.tobytes() == averaged.tobytes()


@pytest.mark.parametrize("counters", [[7, 3, 2, 1, 1], [0, 0, 0, 0, 0], [2**40, 5, 9, 3, 8]])
@pytest.mark.parametrize("ok", [True, False])
def test_steps_are_counted_and_tallied_in_place(counters, ok, rng):
    before, flag, cursor = np.asarray(counters), np.asarray([ok]), np.asarray([2**33, 4])
    expected = REGISTRY["count_step"].reference(before, flag, cursor, rows=64)
    into = {"counters": Out(before), "cursor": Out(cursor)}
    run("count_step", Example("", (before, flag, cursor), {"rows": 64}), into)
    np.testing.assert_array_equal(before, expected.counters)
    np.testing.assert_array_equal(cursor, expected.cursor)
    sums, numbers = rng.random(4), [np.asarray([x], np.float32) for x in (0.5, 64.0)]
    args = (sums, *numbers, np.asarray([40.0]), flag)
    expected = REGISTRY["add_epoch_sums"].reference(*args, rows=64)
    run("add_epoch_sums", Example("", args, {"rows": 64}), {"out": Out(sums)})
    np.testing.assert_array_equal(sums, expected)
