"""How arrays of every library come into a backend and go out of it."""

import sys
from typing import Any

import numpy as np
import pytest

from bnengine.arrays.backend import get_backend, namespace
from bnengine.arrays.dtypes import LEAST, NORMAL, UNITS
from bnengine.errors import InputError


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_dtypes_are_named_by_strings_or_numpy_dtypes(backend, dtype):
    expected = getattr(backend.xp, dtype)
    assert backend.dtype(dtype) == backend.dtype(np.dtype(dtype)) == backend.dtype(expected) == expected
    assert backend.asarray([[0, 1]], dtype).dtype == expected
    assert backend.asarray(backend.asarray([[0, 1]]), dtype).dtype == expected
    assert backend.to_numpy(backend.asarray([[0, 1]], dtype)).dtype == np.dtype(dtype)


STRANGE = {
    "read-only": lambda x: np.frombuffer(x.tobytes()).reshape(x.shape),
    "Fortran order": np.asfortranarray,
    "every second row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "rows backwards": lambda x: x[::-1].copy()[::-1],
    "transposed": lambda x: x.T.copy().T,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "matrix": lambda x: np.asmatrix(x),
    "nested lists": lambda x: x.tolist(),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("kind", STRANGE)
def test_unusual_arrays_come_in_with_the_same_numbers(backend, rng, kind):
    x = rng.normal(size=(6, 4))
    x[0, :3] = np.nan, np.inf, -np.inf
    for copy in (False, True):
        y = backend.asarray(STRANGE[kind](x), copy=copy)
        assert (namespace(y), y.dtype, tuple(y.shape)) == (backend.xp, backend.xp.float64, (6, 4))
        np.testing.assert_array_equal(backend.to_numpy(y), x)
    for shape in ((), (0,), (2, 0, 3), (1, 1, 1, 1)):
        assert backend.to_numpy(backend.asarray(np.ones(shape), "float32", copy=True)).shape == shape


@pytest.mark.parametrize("dtype", [None, "float64"])
def test_a_copy_is_writable_and_leaves_the_users_array_alone(backend, rng, dtype):
    original = rng.normal(size=(6, 4))
    for given in (*(STRANGE[kind](original) for kind in ("read-only", "Fortran order")), backend.asarray(original)):
        y = backend.asarray(given, dtype, copy=True)
        y[...] = 7.0
        np.testing.assert_array_equal(backend.asarray(given), original)
        assert np.all(backend.to_numpy(y) == 7.0)
        kept = backend.to_numpy(y, copy=True)
        y[...] = 5.0
        assert np.all(kept == 7.0)


def test_numpy_arrays_and_mapped_files_are_not_copied_without_need(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(12.0).reshape(3, 4))
    read_only = np.arange(4.0)
    read_only.flags.writeable = False
    for x in (read_only, np.load(tmp_path / "x.npy", mmap_mode="r")):
        assert np.shares_memory(get_backend("numpy").asarray(x), x)


@pytest.mark.parametrize("source", ["numpy", "array_api_strict", "torch"])
def test_arrays_of_another_library_come_in(backend, source, require, rng):
    require(source)
    x = rng.normal(size=(3, 4)).astype(np.float32)
    theirs = get_backend(source).asarray(x, copy=True)
    for dtype, expected in ((None, x), ("float64", x.astype(np.float64))):
        y = backend.asarray(theirs, dtype, copy=True)
        assert namespace(y) is backend.xp
        assert backend.to_numpy(y).dtype == expected.dtype
        np.testing.assert_array_equal(backend.to_numpy(y), expected)
        y[...] = 0
    np.testing.assert_array_equal(get_backend(source).to_numpy(theirs), x)


class OnlyDLPack:
    """An array of a library that bnengine has never heard of."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def __dlpack__(self, **options: Any) -> Any:
        return self.x.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.x.__dlpack_device__()


class OnAnotherDevice(OnlyDLPack):
    """Its memory is on a device; it copies to the CPU when it is asked to, and only then."""

    def __dlpack_device__(self) -> Any:
        return (10, 0)  # AMD's: neither NumPy nor CuPy takes it

    def __dlpack__(self, *, dl_device: Any = None, **options: Any) -> Any:
        if dl_device != (1, 0):
            raise BufferError("this memory is on a GPU")
        return self.x.copy().__dlpack__(**options)


def test_arrays_of_unknown_libraries_come_in_by_dlpack(backend):
    for array in (OnlyDLPack(np.arange(4.0)), OnAnotherDevice(np.arange(4.0))):
        assert backend.to_numpy(backend.asarray(array, "float32")).tolist() == [0.0, 1.0, 2.0, 3.0]


class Stuck(OnAnotherDevice):
    """Cannot copy to the CPU at all."""

    def __dlpack__(self, **_options: Any) -> Any:
        raise BufferError("no way out of this device")


def test_a_tensor_with_gradient_history_comes_in_without_it(backend, require):
    torch = require("torch")
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    y = backend.asarray(x * 2)
    assert backend.to_numpy(y).tolist() == [2.0, 2.0, 2.0]
    assert not getattr(y, "requires_grad", False)


def test_units_of_rounding_are_those_of_the_dtypes():
    for dtype in ("float16", "float32", "float64"):
        found = np.finfo(dtype)
        expected = found.eps / 2, found.smallest_normal, found.smallest_subnormal
        assert (UNITS[dtype], NORMAL[dtype], LEAST[dtype]) == expected
    # Seven bits stored and one implied: after 1 comes 1 + 2^-7. The exponents are float32's.
    assert (UNITS["bfloat16"], NORMAL["bfloat16"], LEAST["bfloat16"]) == (2.0**-8, 2.0**-126, 2.0**-133)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_travel_between_numpy_and_torch_and_round_alike(require, dtype, rng):
    torch, _ = require("torch"), require("ml_dtypes")
    x = rng.standard_normal((5, 3)) * 100
    own, other = get_backend("numpy").asarray(x, dtype), get_backend("torch").asarray(x, dtype)
    assert (own.dtype.name, other.dtype) == (dtype, getattr(torch, dtype))
    back = get_backend("numpy").asarray(other)
    assert back.dtype == own.dtype
    assert back.tobytes() == own.tobytes()
    np.testing.assert_array_equal(own.astype(np.float32), other.to(torch.float32).numpy())
    assert get_backend("torch").asarray(own).dtype == other.dtype


def test_a_library_without_16_bits_says_so(monkeypatch, require):
    require("array_api_strict")
    with pytest.raises(InputError, match=r"array_api_strict: the dtype must be .*got 'float16'"):
        get_backend("array_api_strict").dtype("float16")
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    text = r"bfloat16 needs the package ml_dtypes, which is not installed\. Run `pip inst"
    for ask in (get_backend("numpy").dtype, lambda dtype: get_backend("numpy").asarray(np.ones(2), dtype)):
        with pytest.raises(InputError, match=text):
            ask("bfloat16")


BAD = {
    "strings": (np.array(["a", "b"]), None, "asarray: .*must have .*got <U1"),
    "objects": ([1, None], None, "asarray: .*must have .*got object"),
    "complex numbers": (np.ones(2, dtype=complex), None, "asarray: .*must have .*got complex128"),
    "dates": (np.zeros(2, dtype="datetime64[s]"), None, "asarray: .*must have .*got datetime64"),
    "ragged lists": ([[1.0, 2.0], [3.0]], None, "asarray: .*cannot be read as an array"),
    "a mask": (np.ma.masked_invalid([1.0, float("nan")]), None, "asarray: .*masked array would lose its mask"),
    "stuck": (Stuck(np.arange(4.0)), None, r"asarray: .*Stuck cannot be read as an array \(BufferError: no way out"),
    "too large": (np.array([1.0, 1e300]), "float32", ".*a number in the float64 array does not fit float32"),
    "nan": (np.array([1.0, float("nan")]), "int64", ".*does not fit int64"),
    **{f"dtype {dtype}": ([1.0], dtype, f".*{dtype}") for dtype in ("float31", "asarray", "pi", "Float32")},
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_array_of_numbers_is_an_error(backend, kind):
    value, dtype, message = BAD[kind]
    with pytest.raises(InputError, match=f"^{message}"):
        backend.asarray(value, dtype)
