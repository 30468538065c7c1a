"""Backends: which one is chosen, why, and what is said about the others."""

import dataclasses
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bnengine.arrays.backend import available_backends, get_backend, namespace
from bnengine.errors import BackendError, InputError


class FakeDevice:
    """Notes what CuPy's device would have received."""

    def __init__(self, index: int) -> None:
        self.id, self.calls = index, []

    def __enter__(self) -> "FakeDevice":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def use(self) -> None:
        self.calls.append("use")

    def synchronize(self) -> None:
        self.calls.append("synchronize")


def fake_cupy(*, gpus: int = 1, scale: float = 1.0, driver: Exception | None = None, launch: Exception | None = None):
    """A module that looks like CuPy as far as the probe goes: its one launch is computed by NumPy, times `scale`."""

    def count() -> int:
        if driver is not None:
            raise driver
        return gpus

    def arange(n: int, dtype: Any) -> Any:
        if launch is not None:
            raise launch
        return np.arange(n, dtype=dtype) * np.float32(scale)

    cupy = ModuleType("cupy")
    runtime = SimpleNamespace(getDeviceCount=count, getDeviceProperties=lambda i: {"name": f"Fake {i}".encode()})
    cupy.__dict__.update(
        __version__="14.2.0",
        cuda=SimpleNamespace(runtime=runtime, Device=FakeDevice),
        arange=arange,
        float32=np.float32,
    )
    return cupy


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv("BNENGINE_BACKEND", raising=False)


@pytest.fixture
def install(monkeypatch):
    """Puts a fake CuPy where `import cupy` finds it, with its namespace; None makes the import fail."""

    def put(cupy: ModuleType | None) -> ModuleType:
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        compat = ModuleType("array_api_compat.cupy")
        monkeypatch.setitem(sys.modules, "array_api_compat.cupy", compat)
        return compat

    return put


def test_auto_takes_cupy_after_a_launch_gave_the_right_answer(install):
    compat = install(fake_cupy())
    chosen = get_backend("auto")
    assert (chosen.name, chosen.xp, chosen.device.id, chosen.version) == ("cupy", compat, 0, "14.2.0")
    assert "Fake 0" in chosen.why
    assert "right answer" in chosen.why
    assert chosen.device.calls == ["use"]
    chosen.synchronize()
    assert chosen.device.calls == ["use", "synchronize"]


BROKEN = {
    "is not installed": (None, "cupy is not installed"),
    "finds no driver": (
        {"driver": RuntimeError("cudaErrorInsufficientDriver: too old")},
        "finds no driver or no GPU (RuntimeError: cuda",
    ),
    "cannot compile": ({"launch": RuntimeError("libnvrtc not found\nand more")}, "libnvrtc not found"),
    "computes nonsense": ({"scale": 0.5}, "gave 28 instead of 56"),
    "gives not a number": ({"scale": float("nan")}, "gave nan instead of 56"),
    "sees no GPU": ({"gpus": 0}, "CuPy sees 0"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_an_unusable_cupy_is_named_with_reason_and_cure(kind, install):
    options, reason = BROKEN[kind]
    install(None if options is None else fake_cupy(**options))
    chosen = get_backend("auto")
    assert (chosen.name, "\n" in chosen.why) == ("numpy", False)
    assert chosen.why.startswith("auto: NumPy, since CuPy cannot be used here: ")
    with pytest.raises(BackendError, match=r"^get_backend: the backend 'cupy' cannot be used: .*\. .*numpy") as e:
        get_backend("cupy")
    report = {r.name: r for r in available_backends()}["cupy"]
    assert (report.usable, report.device, bool(report.cure)) == (False, None, True)
    assert all(reason in text for text in (chosen.why, str(e.value), report.reason))


def test_a_second_gpu_is_taken_by_number_and_a_third_is_not_there(install):
    install(fake_cupy(gpus=2))
    chosen = get_backend("cupy:1")
    assert (chosen.device.id, chosen.device.calls) == (1, ["use"])
    with pytest.raises(BackendError, match=r"'cupy:2' cannot be used: there is no GPU number 2: CuPy sees 2"):
        get_backend("cupy:2")


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    for name in ("jax", "", "NumPy", "numpy:0", "cupy:", "cupy:-1", "cupy:x", "cupy:²", "torch:0", 3):
        with pytest.raises(
            BackendError, match=r"^get_backend: the backend must be one of auto, numpy, cupy, cupy:1"
        ) as e:
            get_backend(name)
        assert repr(name) in str(e.value)


def test_the_environment_variable_names_the_backend(monkeypatch, install, require):
    require("array_api_strict")
    install(None)
    for value, name, why in (("array_api_strict", "array_api_strict", "BNENGINE_BACKEND"), ("", "numpy", "auto: ")):
        monkeypatch.setenv("BNENGINE_BACKEND", value)
        chosen = get_backend()
        assert (chosen.name, why in chosen.why) == (name, True)
    for value, text in (
        ("jax", "the backend must be one of .*, got 'jax'"),
        ("cupy", "the backend 'cupy' cannot be used"),
    ):
        monkeypatch.setenv("BNENGINE_BACKEND", value)
        with pytest.raises(BackendError, match=rf"^environment variable BNENGINE_BACKEND: {text}"):
            get_backend()
        assert get_backend("numpy").name == "numpy"


@pytest.mark.parametrize("name", ["torch", "array_api_strict"])
def test_a_library_that_is_not_installed_is_named_with_the_cure(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "array_api_compat.torch", raising=False)
    with pytest.raises(BackendError, match=f"'{name}' cannot be used: {name} is not installed. Run pip install"):
        get_backend(name)


@pytest.mark.parametrize("names", [["array_api_strict"], ["array_api_compat.cupy", "cupy"]])
def test_a_library_that_fails_on_import_is_reported(names, monkeypatch, tmp_path):
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / f"{names[-1]}.py").write_text("raise ImportError('libcudart.so.99: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    report = {r.name: r for r in available_backends()}[names[-1]]
    assert (
        report.reason
        == f"{names[-1]} cannot be imported (ImportError: libcudart.so.99: cannot open shared object file)"
    )


def test_a_witness_that_computes_nonsense_is_reported(monkeypatch, require):
    strict = require("array_api_strict")
    monkeypatch.setattr(strict, "sum", lambda _x: strict.asarray(3.0))
    report = {r.name: r for r in available_backends()}["array_api_strict"]
    assert (report.usable, report.reason) == (False, "a small computation gave 3 instead of 56")


def test_a_backend_is_handed_on_as_it_is_and_cannot_be_changed(backend):
    assert get_backend(backend) is backend
    with pytest.raises(dataclasses.FrozenInstanceError):
        backend.name = "other"


def test_every_backend_is_reported_once_in_order():
    reports = available_backends()
    assert [r.name for r in reports] == ["numpy", "cupy", "torch", "array_api_strict"]
    for report in reports:
        assert report.reason
        assert (report.cure is None) == report.usable == (report.device is not None)
    assert reports[0].version == np.__version__


def test_taking_numpy_imports_no_other_array_library():
    code = (
        "import sys; from bnengine.arrays.backend import get_backend; get_backend('numpy').asarray([1.0]);"
        "print([m for m in ('torch', 'cupy', 'array_api_strict') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- namespaces -----------------------------------------------------------------------------------------------------


def test_the_namespace_of_an_array_is_its_backends(backend, require):
    x = backend.asarray([1.0])
    assert namespace(x, None, x) is backend.xp
    for given, text in (
        ((np.ones(2), require("torch").ones(2)), r"numpy\.ndarray, torch\.Tensor.*Backend.asarray"),
        (([1.0, 2.0],), r"builtins\.list"),
    ):
        with pytest.raises(InputError, match=text):
            namespace(*given)
