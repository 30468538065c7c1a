"""How arrays of every library come into a backend and go out of it."""

import sys
from typing import Any

import numpy as np
import pytest

from bnengine.arrays.backend import get_backend, namespace
from bnengine.errors import InputError


def test_numbers_come_in_and_go_out_unchanged(backend, rng):
    x = rng.normal(size=(3, 4))
    y = backend.asarray(x)
    assert namespace(y) is backend.xp
    assert y.dtype == backend.xp.float64
    assert backend.to_numpy(y).tobytes() == x.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "bool", "uint8"])
def test_dtypes_are_named_by_strings_or_numpy_dtypes(backend, dtype):
    expected = getattr(backend.xp, dtype)
    assert backend.dtype(dtype) == backend.dtype(np.dtype(dtype)) == backend.dtype(expected) == expected
    assert backend.asarray([[0, 1]], dtype).dtype == expected
    assert backend.asarray(backend.asarray([[0, 1]]), dtype).dtype == expected
    assert backend.to_numpy(backend.asarray([[0, 1]], dtype)).dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["float31", "asarray", "pi", "Float32"])
def test_an_unknown_dtype_is_an_error_that_names_it(backend, dtype):
    with pytest.raises(InputError, match=dtype):
        backend.dtype(dtype)
    with pytest.raises(InputError, match=dtype):
        backend.asarray([1.0], dtype)


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
@pytest.mark.parametrize("copy", [False, True])
def test_unusual_arrays_come_in_with_the_same_numbers(backend, rng, kind, copy):
    x = rng.normal(size=(6, 4))
    y = backend.asarray(STRANGE[kind](x), copy=copy)
    assert tuple(y.shape) == (6, 4)
    np.testing.assert_array_equal(backend.to_numpy(y), x)


@pytest.mark.parametrize("kind", ["read-only", "Fortran order", "rows backwards"])
@pytest.mark.parametrize("dtype", [None, "float64"])
def test_a_copy_is_writable_and_leaves_the_users_array_alone(backend, rng, kind, dtype):
    original = rng.normal(size=(6, 4))
    x = STRANGE[kind](original)
    for given in (x, backend.asarray(x)):
        y = backend.asarray(given, dtype, copy=True)
        y[...] = 7.0
        np.testing.assert_array_equal(x, original)
        np.testing.assert_array_equal(backend.to_numpy(given), original)
        assert np.all(backend.to_numpy(y) == 7.0)


def test_numpy_arrays_are_not_copied_without_need():
    x = np.arange(4.0)
    x.flags.writeable = False
    assert np.shares_memory(get_backend("numpy").asarray(x), x)


def test_a_memory_mapped_file_is_not_loaded(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(12.0).reshape(3, 4))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.shares_memory(get_backend("numpy").asarray(x), x)


def test_a_copy_to_numpy_does_not_follow_the_array(backend):
    x = backend.asarray([1.0, 2.0], copy=True)
    kept = backend.to_numpy(x, copy=True)
    x[0] = 5.0
    assert kept.tolist() == [1.0, 2.0]


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


def test_an_array_of_an_unknown_library_comes_in_by_dlpack(backend):
    y = backend.asarray(OnlyDLPack(np.arange(4.0)), "float32")
    assert backend.to_numpy(y).tolist() == [0.0, 1.0, 2.0, 3.0]


class OnAnotherDevice(OnlyDLPack):
    """Its memory is on a device; it copies to the CPU when it is asked to, and only then."""

    def __dlpack_device__(self) -> Any:
        return (10, 0)  # AMD's: neither NumPy nor CuPy takes it

    def __dlpack__(self, *, dl_device: Any = None, **options: Any) -> Any:
        if dl_device != (1, 0):
            raise BufferError("this memory is on a GPU")
        return self.x.copy().__dlpack__(**options)


def test_an_array_on_another_device_is_copied_to_the_host(backend):
    y = backend.asarray(OnAnotherDevice(np.arange(4.0)))
    assert backend.to_numpy(y).tolist() == [0.0, 1.0, 2.0, 3.0]


class Stuck(OnAnotherDevice):
    """Cannot copy to the CPU at all."""

    def __dlpack__(self, **_options: Any) -> Any:
        raise BufferError("no way out of this device")


def test_an_array_that_cannot_be_exchanged_says_why(backend):
    with pytest.raises(InputError, match=r"asarray: .*Stuck cannot be read as an array \(BufferError: no way out"):
        backend.asarray(Stuck(np.arange(4.0)))


def test_a_tensor_with_gradient_history_comes_in_without_it(backend, require):
    torch = require("torch")
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    y = backend.asarray(x * 2)
    assert backend.to_numpy(y).tolist() == [2.0, 2.0, 2.0]
    assert not getattr(y, "requires_grad", False)


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


def test_bfloat16_without_ml_dtypes_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    backend = get_backend("numpy")
    for ask in (lambda: backend.dtype("bfloat16"), lambda: backend.asarray(np.ones(2), "bfloat16")):
        with pytest.raises(
            InputError, match=r"bfloat16 needs the package ml_dtypes, which is not installed\. Run `pip inst"
        ):
            ask()


def test_a_library_without_16_bits_says_so(require):
    require("array_api_strict")
    with pytest.raises(InputError, match="array_api_strict: there is no dtype 'float16'"):
        get_backend("array_api_strict").dtype("float16")


BAD = {
    "strings": (np.array(["a", "b"]), "dtype <U1"),
    "objects": ([1, None], "dtype object"),
    "complex numbers": (np.ones(2, dtype=complex), "dtype complex128"),
    "dates": (np.zeros(2, dtype="datetime64[s]"), "dtype datetime64"),
    "ragged lists": ([[1.0, 2.0], [3.0]], "cannot be read as an array"),
    "a mask": (np.ma.masked_invalid([1.0, float("nan")]), "masked array would lose its mask"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_array_of_numbers_is_an_error(backend, kind):
    value, message = BAD[kind]
    with pytest.raises(InputError, match=f"^asarray: .*{message}"):
        backend.asarray(value)


def test_a_number_that_does_not_fit_the_dtype_is_an_error(backend):
    with pytest.raises(InputError, match="a number in the float64 array does not fit float32"):
        backend.asarray(np.array([1.0, 1e300]), "float32")
    with pytest.raises(InputError, match="does not fit int64"):
        backend.asarray(np.array([1.0, float("nan")]), "int64")


def test_inf_and_nan_come_in_as_they_are(backend):
    y = backend.to_numpy(backend.asarray([float("inf"), float("-inf"), float("nan")], "float32"))
    np.testing.assert_array_equal(y, np.array([np.inf, -np.inf, np.nan], dtype=np.float32))


@pytest.mark.parametrize("shape", [(), (0,), (0, 5), (2, 0, 3), (1, 1, 1, 1)])
def test_every_shape_comes_in(backend, shape):
    y = backend.asarray(np.ones(shape), "float32", copy=True)
    assert tuple(y.shape) == shape
    assert backend.to_numpy(y).shape == shape


def test_waiting_on_a_cpu_changes_nothing(backend):
    x = backend.asarray([1.0])
    backend.synchronize()
    assert backend.to_numpy(x).tolist() == [1.0]
