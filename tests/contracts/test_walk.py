"""Every op on every example in every dtype on every library: bounds, dtypes, destinations, layouts, odd values."""

import itertools
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnengine.arrays.dtypes import UNITS
from bnengine.errors import InputError
from bnengine.ops import REGISTRY, Example, Out
from bnengine.ops.activations import ACTIVATIONS
from bnengine.ops.update import RULES
from bnengine.runtime.memory import Arena
from tests.contracts.cases import UNIT, Case, assert_within, cases, fields, sized_cases, special_cases, wide
from tests.contracts.examples import CUT, FROZEN, OF_ROWS, OTHERS, Draw, flat, of_rows, softmax
from tests.contracts.libraries import ALL, FLUSHED, FULL, WIDE, Kernels, Library, assert_same_bits
from tests.contracts.oracles import ORACLES
from tests.support import poison

NAMES = sorted(REGISTRY)
STATISTICS = {"batch", "pending"}  # the outputs that are (count, mean, biased variance)
OTHER = {"float32": "float64", "int64": "int32", "int32": "int16", "bool": "uint8"}
# The argument whose dtype the others take, where it is not the first.
LEADING = {"affine_backward": 1, "check_step": 1, "normalize_backward": 1, "gather_raw": 4}
REFERENCES = {"numpy": ALL, "array_api_strict": FULL, "torch": ALL, "cupy": ALL}
KERNELS = {"native": FULL, "simulated": ALL, "gpu": ALL}
ONLY = os.environ.get("BNENGINE_WALK", "").split(",")  # the libraries of this run; all of them if it is empty
MARKS = {"cupy": pytest.mark.gpu, "gpu": pytest.mark.gpu}


def _has(library: str, dtypes: tuple[str, ...], name: str, dtype: str) -> bool:
    """GPUs read no raw data of the host; on native kernels, 16 bits are those of a copy of the parameters."""
    if ONLY != [""] and library not in ONLY:
        return False
    if name == "gather_raw" and library in ("simulated", "gpu"):
        return False
    copies = name in RULES and library == "native"
    return (dtype in dtypes or copies) and (dtype in FULL or name not in WIDE)


def walk(libraries: dict[str, tuple[str, ...]], only: tuple[str, ...] = ALL, names: Iterable[str] = NAMES) -> Any:
    """Each op in each dtype on each library that has it."""
    found = [
        pytest.param(name, dtype, library, id=f"{name}-{dtype}-{library}", marks=MARKS.get(library, ()))
        for name in names
        for dtype in only
        for library, dtypes in libraries.items()
        if _has(library, dtypes, name, dtype)
    ]
    return pytest.mark.parametrize(("name", "dtype", "library"), found, indirect=["library"])


everywhere, by_kernels = walk(REFERENCES | KERNELS), walk(KERNELS)
only_kernels = pytest.mark.parametrize(
    "library",
    [
        pytest.param(library, marks=MARKS.get(library, ()))
        for library in KERNELS
        if _has(library, ALL, "total", "float32")
    ],
    indirect=True,
)
once_by_kernels = walk(KERNELS, ("float32",))


def contract(name: str, dtype: str) -> list[Example]:
    """The examples of an op's contract."""
    return [case.example for case in cases(name, dtype)]


@everywhere
def test_outputs_are_within_their_bounds(library, name, dtype):
    more = sized_cases(name, dtype) if library.kernels or name in (*RULES, *OTHERS) else []
    for fully, some in ((dtype in FULL, cases(name, dtype)), (False, more)):
        for case in some:
            for what, outputs in library.results(name, case.example, fully=fully):
                case.check(outputs, what, kernels=library.kernels, flushed=library.flushes or what == FLUSHED)


@by_kernels
def test_special_values_are_those_of_the_reference(library, name, dtype):
    for case in special_cases(name, dtype):
        for what, outputs in library.results(name, case.example, fully=False):
            case.check(outputs, what, kernels=library.kernels, flushed=library.flushes)


@once_by_kernels
def test_one_value_that_is_not_finite_spreads_alike(library, name, dtype):
    """NaN and infinities in each argument of each example; of statistics, only whether they are finite is the same."""
    op, values = REGISTRY[name], itertools.cycle((np.nan, np.inf, -np.inf))
    for example in contract(name, dtype):
        next(values)
        for i, a in enumerate(example.args):
            value = next(values)
            if a is None or a.dtype.kind != "f" or not a.size or not np.isfinite(a).all():
                continue
            spoiled = a.copy()
            spoiled.flat[a.size // 2] = value
            given = example._replace(args=(*example.args[:i], spoiled, *example.args[i + 1 :]))
            with np.errstate(all="ignore"):
                expected = fields(op, op.reference(*given.args, **given.options))
            for field, got in library.outputs(name, given).items():
                if got is not None:
                    assert_alike(got, expected[field], f"{name}, {example.label}, argument {i}, {field}", field)


def assert_alike(got: Any, expected: Any, what: str, field: str) -> None:
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(expected), err_msg=what)
    if field not in STATISTICS:
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected), err_msg=what)
        infinite = np.isinf(expected)
        np.testing.assert_array_equal(got[infinite], expected[infinite], err_msg=what)


@only_kernels
@pytest.mark.parametrize("name", RULES)
def test_kernels_take_frozen_ranges_in_any_order_and_on_top_of_each_other(library, name):
    example = flat(Draw("float32"), name, 5003, frozen=(*FROZEN[::-1], (6, 12), (2500, 2600)))
    Case(name, example, "float32").check(library.outputs(name, example))


# -- where results go


def destination(field: str, like: np.ndarray) -> np.ndarray:
    array = np.random.default_rng(1).standard_normal(like.shape)
    if field in STATISTICS:
        array[0], array[2] = 5, np.abs(array[2])
    return array.astype(like.dtype)


@everywhere
def test_a_destination_is_written_or_added_to(library, name, dtype):
    op = REGISTRY[name]
    for example in contract(name, dtype)[:: 1 if library.kernels and dtype == "float32" else 4]:
        plain = library.outputs(name, example)
        for field, value in plain.items():
            if value is None:
                continue
            for adds in (False, True) if field in op.accumulates else (False,):
                before = destination(field, value)
                target = library.put(before)
                got = library.outputs(name, example, {field: Out(target, adds)})
                what, written = f"{name}, {example.label}, {field}, adds {adds}", library.get(target)
                assert got[field].tobytes() == written.tobytes(), what
                if not adds:
                    assert written.tobytes() == value.tobytes(), what
                else:
                    assert_sum(library, written, op.accumulates[field], before, value, what)
                for other in plain.keys() - {field}:
                    assert_same_bits({other: got[other]}, {other: plain[other]}, what)


def assert_sum(library: Library, got: Any, rule: Any, before: Any, new: Any, what: str) -> None:
    with np.errstate(all="ignore"):
        expected = rule(before, new)
    unit = np.finfo(got.dtype).eps if got.dtype.kind == "f" else 2.0**-7
    size = np.abs(before.astype("f8")) + np.abs(new.astype("f8"))
    assert_within(got, expected, (2 if library.kernels else 0.5) * unit * size, what)


@walk({"numpy": FULL} | KERNELS, ("float32",))
def test_a_destination_that_cannot_be_is_refused(library, name, dtype):
    for case in cases(name, dtype):
        for field, stored in case.dtypes.items():
            shape, refusal = np.shape(case.expected[field]), f"the destination of '{field}' is "
            if stored is None:
                assert_refused(library, case, field, np.ones(3, np.float32), f"no output '{field}'")
                continue
            assert_refused(library, case, field, np.ones((2, *shape), stored), refusal)
            if library.kernels:
                narrow = np.float16 if stored.kind == "f" else np.int16
                assert_refused(library, case, field, np.ones(shape, narrow), refusal)
            if field not in case.op.accumulates:
                given, text = np.ones(shape, stored), f"^{name}: '{field}' cannot be added into a destination"
                assert_refused(library, case, field, given, text, adds=True)


def assert_refused(library: Library, case: Case, field: str, given: Any, text: str, adds: bool = False) -> None:
    target = library.put(given)
    with pytest.raises(InputError, match=text):
        library.outputs(case.op.name, case.example, {field: Out(target, adds)})
    assert library.get(target).tobytes() == given.tobytes()


# The argument that an output replaces in training.
IN_PLACE = {
    **{name: {"parameters": 0, **{slot: 2 + i for i, slot in enumerate(rule.slots)}} for name, rule in RULES.items()},
    **{name: {"out": 0} for name in ("average", "commit", "merge", "add_epoch_sums")},
    "count_step": {"counters": 0, "cursor": 2},
    "check_step": {"scaling": 3},
}


@walk(KERNELS, ("float32",), IN_PLACE)
def test_an_output_may_overwrite_its_argument(library, name, dtype):
    for example in contract(name, dtype):
        expected = library.outputs(name, example)
        args = [library.put(a) for a in example.args]
        fields = {f: i for f, i in IN_PLACE[name].items() if expected[f] is not None}
        got = library.run(name, args, example.options, {f: Out(args[i]) for f, i in fields.items()})
        assert_same_bits(got, expected, f"{name}, {example.label}")
        for field, i in fields.items():
            assert_same_bits({field: library.get(args[i])}, {field: expected[field]}, f"{name}, {example.label}")


@pytest.mark.parametrize("rows", [50, CUT])
@only_kernels
def test_statistics_may_be_columns_of_a_larger_buffer(library, rows):
    (x,) = next(of_rows("moments", "float32", rows, 8)).args
    before = np.abs(np.random.default_rng(1).standard_normal((3, 30))) + 1
    for name, args in (("moments", (x,)), ("batch_norm", (x, None, None))):
        plain = library.outputs(name, Example("", args))
        for adds in (False, True):
            buffer = library.put(before)
            got = library.outputs(name, Example("", args), {"pending": Out(buffer[:, 8:16], adds)})
            assert_same_bits({"batch": got["batch"]}, {"batch": plain["batch"]}, name)
            expected = REGISTRY["merge"].reference(before[:, 8:16], plain["batch"]) if adds else plain["batch"]
            written = library.get(buffer)
            np.testing.assert_allclose(written[:, 8:16], expected, rtol=1e-14)
            np.testing.assert_array_equal(np.delete(written, range(8, 16), 1), np.delete(before, range(8, 16), 1))
    statistics = library.put(before)[:, 8:16]
    got = library.run("normalize", [library.put(x), statistics, None, None], {})
    alone = Example("", (x, np.ascontiguousarray(before[:, 8:16]), None, None))
    assert_same_bits(got, library.outputs("normalize", alone), "normalize")


@pytest.mark.parametrize("name", RULES)
@only_kernels
def test_a_rule_names_a_missing_slot_and_a_wrong_setting(library, name):
    rule, example = RULES[name], flat(Draw("float32"), name, 20)
    for i, (slot, row) in enumerate(rule.slots.items(), start=2):
        if row.on is None:
            without = example._replace(args=tuple(None if j == i else a for j, a in enumerate(example.args)))
            with pytest.raises(TypeError, match=f"^{name}: the slot '{slot}' is None"):
                library.outputs(name, without)
    with pytest.raises(TypeError, match=f"^{name}: no option 'unheard'"):
        library.outputs(name, example._replace(options={**example.options, "unheard": 1.0}))


@once_by_kernels
def test_an_arena_gives_the_same_memory_again(library, name, dtype):
    memory = Arena("fused")
    for example in contract(name, dtype):
        first = library.outputs(name, example, memory=memory)
        held = memory.nbytes
        memory.begin()
        poison(memory)
        assert_same_bits(library.outputs(name, example, memory=memory), first, f"{name}, {example.label}")
        assert memory.nbytes == held
        memory.begin()


# -- how arrays lie in memory


def gaps(library: Kernels, a: np.ndarray) -> Any:
    """Every second element of a larger array."""
    memory = library.put(np.repeat(np.ascontiguousarray(a), 2, axis=-1))
    memory[..., 1::2] = library.put(np.zeros_like(a))
    return memory[..., ::2]


def fortran(library: Kernels, a: np.ndarray) -> Any:
    return library.put(np.ascontiguousarray(a.T)).T


def converted(library: Kernels, a: np.ndarray) -> Any:
    """In a dtype that the kernel does not take, where that changes no value."""
    other = OTHER.get(a.dtype.name)
    exact = other is not None and np.array_equal(a.astype(other), a, equal_nan=a.dtype.kind == "f")
    return library.put(a.astype(other)) if exact else None


def unaligned(library: Kernels, a: np.ndarray) -> Any:
    """One byte off its alignment, which only a CPU allows."""
    if library.library != "numpy":
        return None
    memory = np.zeros(a.nbytes + 1, np.uint8)
    memory[1:] = np.frombuffer(np.ascontiguousarray(a).tobytes(), np.uint8)
    return memory[1:].view(a.dtype).reshape(a.shape)


@once_by_kernels
def test_an_array_s_layout_and_dtype_change_no_bit(library, name, dtype):
    for example in contract(name, dtype):
        plain = library.outputs(name, example)
        for layout in (gaps, fortran, converted, unaligned):
            args = [library.put(a) for a in example.args]
            for i, a in enumerate(example.args):
                if a is None or not a.ndim or (layout is converted and i == LEADING.get(name, 0)):
                    continue
                if (moved := layout(library, a)) is not None:
                    args[i] = moved
            got = library.run(name, args, {k: library.put(v) for k, v in example.options.items()})
            assert_same_bits(got, plain, f"{name}, {example.label}, {layout.__name__}")


@only_kernels
@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(OF_ROWS), dtype=st.sampled_from(FULL), rows=st.integers(1, 90), width=st.integers(1, 150),
    kind=st.sampled_from(tuple(ACTIVATIONS)), layouts=st.lists(st.sampled_from((None, gaps, fortran, unaligned)),
    min_size=8, max_size=8),
)  # fmt: skip
def test_drawn_shapes_layouts_and_options_stay_within_their_bounds(library, name, dtype, rows, width, kind, layouts):
    if name not in library.names or (name == "gather_raw" and library.library != "numpy"):
        return
    for example in of_rows(name, dtype, rows, width, kind):
        args = [library.put(a) for a in example.args]
        for i, (a, layout) in enumerate(zip(example.args, layouts, strict=False)):
            if layout and a is not None and a.ndim and (moved := layout(library, a)) is not None:
                args[i] = moved
        got = library.run(name, args, {k: library.put(v) for k, v in example.options.items()})
        Case(name, example, dtype).check(got, f"{layouts}", kernels=True, flushed=library.flushes)


@once_by_kernels
def test_a_destination_off_16_bytes_is_written_within_bounds(library, name, dtype):
    for case in cases(name, dtype):
        for field, stored in case.dtypes.items():
            if stored is not None:
                target = library.put(np.ones(np.shape(case.expected[field]), stored), shift=1)
                got = library.outputs(name, case.example, {field: Out(target)})
                assert library.get(target).tobytes() == got[field].tobytes()
                case.check(got, f"{field} off", kernels=True, flushed=library.flushes)


@pytest.mark.parametrize("kind", ["u1", "i2", "i4"])
@only_kernels
def test_class_numbers_may_have_any_integer_type(library, kind):
    example = softmax(Draw("float32"), 40, 12)
    other = example._replace(args=(example.args[0], example.args[1].astype(kind)))
    name = "softmax_cross_entropy"
    assert_same_bits(library.outputs(name, other), library.outputs(name, example), kind)


@only_kernels
def test_a_mean_over_many_rows_is_summed_in_double(library):
    x, t = Draw("float32").wide(2, 30001, 1)
    got = library.outputs("mean_squared_error", Example("", (x, t), {"divisor": 30001.0}))["value"]
    expected = REGISTRY["mean_squared_error"].reference(x.astype("f8"), t.astype("f8"), divisor=30001.0).value
    assert_within(got, expected, 4 * UNIT["float32"] * expected, "value")


# -- the contracts themselves


def test_oracles_and_examples_are_of_every_op():
    assert sorted(ORACLES) == NAMES


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("name", NAMES)
def test_a_bound_is_not_vacuous(name, dtype):
    """In each output something is that an error of a hundred units of rounding would push beyond its bound."""
    caught, seen = set(), set()
    for case in cases(name, dtype):
        for field, exact in case.expected.items():
            if exact is None:
                continue
            seen.add(field)
            got = np.asarray(exact, np.float64)
            unit = UNITS.get(case.dtypes[field].name, 0)
            error = 100 * unit * np.abs(wide(got)) if unit else np.ones(got.shape)
            # Outputs without float32 are bounded in float64, except the statistics: those follow the input's rounding.
            if field in STATISTICS:
                error = 100 * UNIT[dtype] * got
            if np.any((error > case.bound[field]) & np.isfinite(error)):
                caught.add(field)
    assert caught == seen
