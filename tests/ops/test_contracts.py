"""Every registered op keeps its contract: bounds, dtypes, what may be added into, inputs that stay as they are."""

from typing import Any

import numpy as np
import pytest

from bnengine.arrays.backend import Backend, get_backend
from bnengine.arrays.dtypes import LEAST, UNITS, arithmetic_name, is_narrow, unit_stored
from bnengine.arrays.namespaces import dtype_name, namespace
from bnengine.errors import InputError
from bnengine.ops import REGISTRY, Out, using
from bnengine.ops.update import RULES
from tests.ops.oracles import ORACLES, long
from tests.support import require

FULL = ("float32", "float64")
DTYPES = (*FULL, "float16", "bfloat16")
UNIT = {"float16": 2.0**-24, "bfloat16": 2.0**-24, "float32": 2.0**-24, "float64": 2.0**-53}  # of the arithmetic
NAMES = sorted(ORACLES)
ACCUMULATES = {
    "activation_backward": {"out"},
    "affine_backward": {"dx", "dW", "db"},
    "batch_norm": {"pending"},
    "binary_cross_entropy": {"value"},
    "dropout_backward": {"out"},
    "correct": {"out"},
    "mean_squared_error": {"value"},
    "moments": {"pending"},
    "normalize_backward": {"dx", "dgamma", "dbeta"},
    "softmax_cross_entropy": {"value"},
    "total": {"out"},
}
STATISTICS = {"batch", "pending"}  # the outputs that are (count, mean, biased variance)
# Outputs whose dtype is not that of the op's first argument.
OTHER_DTYPES = {
    ("batch_norm", "batch"): "float64",
    ("batch_norm", "pending"): "float64",
    ("moments", "batch"): "float64",
    ("moments", "pending"): "float64",
    ("check_step", "ok"): "bool",
    ("check_step", "norm"): "float64",
    ("affine_backward", "dW"): "arithmetic",
    ("affine_backward", "db"): "arithmetic",
    ("normalize_backward", "dgamma"): "arithmetic",
    ("normalize_backward", "dbeta"): "arithmetic",
    ("softmax_cross_entropy", "value"): "arithmetic",
    ("binary_cross_entropy", "value"): "arithmetic",
    ("mean_squared_error", "value"): "arithmetic",
    **{(name, "copy16"): "storage" for name in RULES},
    ("dropout", "keep"): "bool",
    ("gather", "target"): "of the target",
    ("gather", "weights"): "arithmetic",
    ("gather", "samples"): "int64",
    ("gather", "divisor"): "arithmetic",
    ("gather_raw", "x"): "arithmetic",
    ("gather_raw", "target"): "of the target",
    ("gather_raw", "weights"): "arithmetic",
    ("gather_raw", "samples"): "int64",
    ("gather_raw", "divisor"): "arithmetic",
    ("correct", "out"): "float64",
}


def examples(name: str, dtype: str) -> list[Any]:
    if dtype == "bfloat16":
        require("ml_dtypes")
    return list(REGISTRY[name].contract.examples(np.random.default_rng(0), dtype))


def fields(op: Any, result: Any) -> dict[str, Any]:
    return dict(result._asdict()) if hasattr(result, "_asdict") else {op.fields[0]: result}


def allowed(op: Any, dtype: str, example: Any) -> dict[str, Any]:
    """The bound of each output that is there; what is stored in 16 bits may be off by that rounding too."""
    args, options = [wide(a) for a in example.args], {key: wide(value) for key, value in example.options.items()}
    bound = op.contract.bound(UNIT[dtype], *args, **options)
    found = fields(op, bound) if hasattr(bound, "_asdict") else dict.fromkeys(op.fields, bound)
    for field, got in fields(op, op.reference(*example.args, **example.options)).items():
        if got is not None and (unit := unit_stored(got.dtype)):
            size = np.abs(wide(got)) + found[field]
            found[field] = found[field] + np.where(np.isfinite(size), unit * size, 0) + LEAST[got.dtype.name]
    return found


def wide(value: Any) -> Any:
    """Arrays of 32 and 16 bits in float64, which the bounds and the exact formulas are computed in."""
    if not isinstance(value, np.ndarray) or not dtype_name(value.dtype).startswith(("float", "bfloat")):
        return value
    return value.astype(np.float32).astype(np.float64) if is_narrow(value.dtype) else value.astype(np.float64)


def assert_within(got: Any, expected: Any, bound: Any, what: str) -> None:
    got, expected = (np.asarray(a).astype(np.longdouble) for a in (got, expected))
    assert got.shape == expected.shape, what
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0, np.abs(got - expected))
    limit = np.broadcast_to(np.where(same, 0, bound), got.shape)
    worst = np.argmax(np.where(error <= limit, -1, error))
    assert np.all(error <= limit), f"{what}: error {error.flat[worst]} above {limit.flat[worst]} at element {worst}"


def rounded_down(result: dict[str, Any]) -> dict[str, bytes | None]:
    return {field: None if array is None else np.asarray(array).tobytes() for field, array in result.items()}


def test_every_op_has_an_oracle_and_every_oracle_an_op():
    assert sorted(REGISTRY) == NAMES


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_the_reference_is_within_its_bound_of_the_formula_in_extended_precision(name, dtype):
    op, cases = REGISTRY[name], examples(name, dtype)
    assert cases
    for case in cases:
        options = {key: long(value) for key, value in case.options.items()}
        expected = ORACLES[name](*map(long, case.args), **options)
        result, bounds = fields(op, op(*case.args, **case.options)), allowed(op, dtype, case)
        assert result.keys() == expected.keys() == bounds.keys()
        for field, got in result.items():
            what = f"{name}, {case.label}, {field}"
            assert (got is None) == (expected[field] is None), what
            if got is not None:
                assert_within(got, expected[field], bounds[field], what)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_it_is_within_its_bound_of_the_reference_on_widened_inputs(name, dtype):
    op = REGISTRY[name]
    for case in examples(name, dtype):
        result, bounds = fields(op, op(*case.args, **case.options)), allowed(op, dtype, case)
        options = {key: wide(value) for key, value in case.options.items()}
        for field, expected in fields(op, op.reference(*map(wide, case.args), **options)).items():
            if expected is not None:
                assert_within(result[field], expected, bounds[field], f"{name}, {case.label}, {field}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_outputs_have_the_dtype_of_the_input_or_the_one_documented(name, dtype):
    op = REGISTRY[name]
    for case in examples(name, dtype):
        for field, got in fields(op, op(*case.args, **case.options)).items():
            if got is not None:
                expected = OTHER_DTYPES.get((name, field), case.args[0].dtype.name)
                told = {
                    "arithmetic": arithmetic_name(dtype),
                    "storage": dtype,
                    "of the target": case.args[name.startswith("gather")].dtype.name,
                }
                expected = told.get(expected, expected)
                assert got.dtype.name == expected, f"{case.label}, {field}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_never_written_to_and_may_be_read_only(name, dtype):
    op = REGISTRY[name]
    for case in examples(name, dtype):
        given = [a for a in (*case.args, *case.options.values()) if isinstance(a, np.ndarray)]
        before = [a.tobytes() for a in given]
        writable = rounded_down(fields(op, op(*case.args, **case.options)))
        for array in given:
            array.flags.writeable = False
        assert rounded_down(fields(op, op(*case.args, **case.options))) == writable, case.label
        assert [a.tobytes() for a in given] == before, case.label


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_the_bound_is_not_vacuous(name, dtype):
    """In each output something stands that an error of a hundred units of rounding would push beyond its bound."""
    op, caught, seen = REGISTRY[name], set(), set()
    for case in examples(name, dtype):
        bounds = allowed(op, dtype, case)
        for field, got in fields(op, op(*case.args, **case.options)).items():
            if got is None:
                continue
            seen.add(field)
            unit = UNITS.get(got.dtype.name, 0)
            error = 100 * unit * np.abs(wide(got)) if unit else np.ones(got.shape)
            # What has no float32 in it is held to float64, except the statistics: those follow the input's rounding.
            if field in STATISTICS:
                error = 100 * UNIT[dtype] * got
            if np.any((error > bounds[field]) & np.isfinite(error)):
                caught.add(field)
    assert caught == seen


@pytest.mark.parametrize("name", NAMES)
def test_what_may_be_added_into_is_what_the_docs_say(name):
    assert set(REGISTRY[name].accumulates) == ACCUMULATES.get(name, set())


def destination(field: str, like: Any) -> np.ndarray:
    rng = np.random.default_rng(1)
    array = rng.standard_normal(like.shape)
    if field in STATISTICS:
        array[0], array[2] = 5, np.abs(array[2])
    return array.astype(like.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(ACCUMULATES))
def test_a_destination_is_written_or_added_into_and_the_other_outputs_stay(name, dtype):
    op = REGISTRY[name]
    for case in examples(name, dtype):
        plain = fields(op, op(*case.args, **case.options))
        for field in op.fields:
            if plain[field] is None:
                continue
            for adds in (False, True) if field in ACCUMULATES[name] else (False,):
                array = destination(field, plain[field])
                before = array.copy()
                result = fields(op, op(*case.args, into={field: Out(array, adds)}, **case.options))
                assert result[field] is array
                if not adds:
                    expected, bound = plain[field], 0
                elif field == "pending":
                    expected = ORACLES["merge"](long(before), long(plain[field]))["out"]
                    bound = REGISTRY["merge"].contract.bound(UNIT["float64"], before, plain[field])
                else:
                    expected, bound = before + plain[field], 0
                assert_within(array, expected, bound, f"{name}, {case.label}, {field}, adds {adds}")
                for other in set(op.fields) - {field}:
                    assert rounded_down(result)[other] == rounded_down(plain)[other]


@pytest.mark.parametrize("name", NAMES)
def test_an_output_that_does_not_accumulate_cannot_be_added_into(name):
    op, case = REGISTRY[name], examples(name, "float64")[0]
    for field, got in fields(op, op(*case.args, **case.options)).items():
        if got is not None and field not in ACCUMULATES.get(name, set()):
            before = np.ones_like(got)
            with pytest.raises(InputError, match=f"^{name}: '{field}' cannot be added into a destination"):
                op(*case.args, into={field: Out(before, adds=True)}, **case.options)
            np.testing.assert_array_equal(before, 1)


@pytest.mark.parametrize(("name", "field"), [("affine_backward", "dx"), ("normalize_backward", "dgamma")])
def test_a_destination_for_an_output_that_is_not_there_is_an_error(name, field):
    op = REGISTRY[name]
    cases = [c for c in examples(name, "float64") if fields(op, op(*c.args, **c.options))[field] is None]
    array = np.ones(3)
    with pytest.raises(InputError, match=f"^{name}: .*'{field}'"):
        op(*cases[0].args, into={field: Out(array)}, **cases[0].options)
    np.testing.assert_array_equal(array, 1)


@pytest.mark.parametrize("adds", [False, True])
def test_a_destination_of_another_shape_is_an_error_and_not_broadcast(adds):
    array = np.ones((2, 3))
    with pytest.raises(InputError) as error:
        REGISTRY["total"](np.ones(3), np.ones(3), into={"out": Out(array, adds)})
    assert str(error.value) == "total: the destination of 'out' is (2, 3), the output is (3,); they must be alike"
    np.testing.assert_array_equal(array, 1)


# -- the same examples on other libraries -----------------------------------------------------------------------------


@pytest.fixture(params=["array_api_strict", "torch", pytest.param("cupy", marks=pytest.mark.gpu)])
def witness(request: pytest.FixtureRequest, require: Any) -> Backend:
    require(request.param)
    return get_backend(request.param)


def carried(backend: Backend, value: Any) -> Any:
    return backend.asarray(value, copy=True) if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_every_library_agrees_with_numpy(witness, name, dtype):
    if witness.name == "array_api_strict" and is_narrow(dtype):
        pytest.skip("array_api_strict has no 16-bit dtypes")
    op = REGISTRY[name]
    for case in examples(name, dtype):
        args = [carried(witness, a) for a in case.args]
        options = {key: carried(witness, value) for key, value in case.options.items()}
        with np.errstate(all="ignore"), using("reference"):
            expected, result = fields(op, op(*case.args, **case.options)), fields(op, op(*args, **options))
        bounds = allowed(op, dtype, case)
        for field, got in result.items():
            what = f"{name}, {case.label}, {field}"
            assert (got is None) == (expected[field] is None), what
            if got is None:
                continue
            assert namespace(got) is witness.xp, what
            back = witness.to_numpy(got)
            assert back.dtype == expected[field].dtype, what
            both_stored = unit_stored(back.dtype) * np.abs(np.nan_to_num(wide(expected[field]), posinf=0, neginf=0))
            assert_within(back, expected[field], bounds[field] + both_stored, what)


@pytest.mark.parametrize("name", sorted(ACCUMULATES))
def test_every_library_adds_into_its_own_arrays(witness, name):
    op = REGISTRY[name]
    for case in examples(name, "float32"):
        args = [carried(witness, a) for a in case.args]
        options = {key: carried(witness, value) for key, value in case.options.items()}
        with using("reference"):
            plain = fields(op, op(*args, **options))
        for field in ACCUMULATES[name]:
            if plain[field] is None:
                continue
            before = destination(field, witness.to_numpy(plain[field]))
            array = witness.asarray(before, copy=True)
            with using("reference"):
                result = fields(op, op(*args, into={field: Out(array, adds=True)}, **options))
            assert result[field] is array
            rule = REGISTRY["merge"].reference if field == "pending" else np.add
            expected = rule(before, witness.to_numpy(plain[field]))
            np.testing.assert_allclose(witness.to_numpy(array), expected, rtol=1e-6 if field != "pending" else 1e-15)
