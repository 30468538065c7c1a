"""The binding against the real libcublasLt and its headers, where they are installed: no GPU is needed for that."""

import ctypes
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from bnengine.errors import BackendError
from bnengine.fused.cuda import cublaslt
from bnengine.fused.cuda import cublaslt_api as api
from bnengine.fused.cuda.cublaslt import Descriptors, Product
from bnengine.fused.cuda.cublaslt_api import Descriptor, Library, Refusal, candidates
from tests.fused.cublaslt_model import Model, multiply, product, read
from tests.support import missing

proof = pytest.mark.cuda_proof
HEADERS = ("cublasLt.h", "cublas_api.h", "library_types.h")
PREFIXES = {  # of the names in the headers
    api.Status: "CUBLAS_STATUS_",
    api.Compute: "CUBLAS_COMPUTE_",
    api.Operation: "CUBLAS_OP_",
    api.Epilogue: "CUBLASLT_EPILOGUE_",
    api.ReductionScheme: "CUBLASLT_REDUCTION_SCHEME_",
    api.MatmulDesc: "CUBLASLT_MATMUL_DESC_",
    api.MatrixLayout: "CUBLASLT_MATRIX_LAYOUT_",
    api.MatmulPreference: "CUBLASLT_MATMUL_PREF_",
    api.AlgoConfig: "CUBLASLT_ALGO_CONFIG_",
}
PRODUCTS = [
    Product(7, 5, 3, dtype, out, ta, tb, accumulate, bias, precision, 9, 11, 6, 8)
    for (dtype, precision), (ta, tb) in itertools.product(cublaslt.COMPUTE, itertools.product((False, True), repeat=2))
    for out in ((dtype,) if dtype in ("float32", "float64") else (dtype, "float32"))
    for bias, accumulate in itertools.product((False, True), repeat=2)
]


@pytest.fixture(scope="module")
def library() -> Library:
    """The library of this machine."""
    found = api.load()
    if isinstance(found, Refusal):
        missing("cublas", "libcublasLt is not installed: the package nvidia-cublas brings it, with its headers")
    return found


@pytest.fixture(scope="module")
def header(library: Library) -> str:
    """The text of the headers that come with the library."""
    folder = Path(library.path).parent.parent / "include"
    texts = [(folder / name).read_text("utf-8") for name in HEADERS if (folder / name).is_file()]
    if not texts:
        missing("cublas", f"there is no header of cublasLt in {folder}")
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", "\n".join(texts), flags=re.DOTALL)


@proof
def test_every_number_is_that_of_the_header(header):
    values: dict[str, int] = {}
    for name, text in re.findall(r"\b((?:CUBLAS|CUDA)\w+)\s*=\s*([^,}]+)", header):
        terms = [term.strip("() \n") for term in text.split("|")]
        if all(term in values or re.fullmatch(r"-?\d+|0x[0-9a-fA-F]+", term) for term in terms):
            numbers = [values[term] if term in values else int(term, 0) for term in terms]
            values[name] = np.bitwise_or.reduce(numbers)
    for kind, prefix in PREFIXES.items():
        for member in kind:
            name = re.sub("^F(32|64)", r"\1F", member.name) if kind is api.Compute else member.name
            number = member.code if isinstance(member, api.Attribute) else int(member)
            assert values[prefix + name] == number, name


@proof
def test_the_data_types_are_those_of_the_header(header):
    if "CUDA_R_16BF" not in header:
        missing("cuda-runtime", "library_types.h is not installed: it comes with nvidia-cuda-runtime")
    for member in api.DataType:
        assert re.search(rf"\bCUDA_{member.name}\s*=\s*{member.value}\b", header), member


@proof
def test_every_function_has_the_arguments_of_the_header(header):
    numbers = {"size_t": "c_ulong", "uint64_t": "c_ulong", "int64_t": "c_long"}
    objects = r"(const )?cublasLt(Handle|MatmulDesc|MatrixLayout|MatmulPreference)_t|cudaStream_t"
    for name, types in api.PROTOTYPES.items():
        found = re.search(rf"cublasStatus_t CUBLASWINAPI {name}\(([^)]*)\)", header)
        assert found, name
        declared = [" ".join(parameter.split()) for parameter in found[1].split(",")]
        assert len(declared) == len(types), name
        for text, type_ in zip(declared, types, strict=True):
            kind, parameter = text.rsplit(" ", 1)
            if kind.endswith("*") or parameter.endswith("[]"):
                assert type_ is ctypes.c_void_p or issubclass(type_, ctypes._Pointer), (name, text)
            elif re.fullmatch(objects, kind):
                assert type_ is ctypes.c_void_p, (name, text)
            else:  # a number or a value of an enum
                assert type_.__name__ == numbers.get(kind, "c_int"), (name, text)


@proof
def test_the_structures_have_the_sizes_of_the_header(header):
    found = re.search(r"uint64_t data\[(\d+)\];\s*\} cublasLtMatmulAlgo_t;", header)
    assert found
    assert ctypes.sizeof(api.Algo) == 8 * int(found[1])
    result = re.search(r"typedef struct \{([^}]*)\} cublasLtMatmulHeuristicResult_t;", header)
    assert result
    fields = re.findall(r"(\w+)\s+(\w+)(?:\[(\d+)\])?;", result[1])
    assert fields == [
        ("cublasLtMatmulAlgo_t", "algo", ""),
        ("size_t", "workspaceSize", ""),
        ("cublasStatus_t", "state", ""),
        ("float", "wavesCount", ""),
        ("int", "reserved", "4"),
    ]
    assert ctypes.sizeof(api.HeuristicResult) == ctypes.sizeof(api.Algo) + 8 + 4 + 4 + 4 * 4
    assert [name for name, *_ in api.HeuristicResult._fields_] == [name for _, name, _ in fields]


@proof
def test_the_real_library_holds_what_the_model_holds(library):
    for p in PRODUCTS:
        assert read(Descriptors(library, p)) == read(Descriptors(Library(Model(), "model"), p)), p


@proof
def test_what_the_real_library_holds_multiplies_as_asked(library, rng):
    for p in PRODUCTS:
        if p.dtype != "float64":
            continue
        a = rng.standard_normal((p.k if p.transpose_a else p.m, p.lda))
        b = rng.standard_normal((p.n if p.transpose_b else p.k, p.ldb))
        c, vector = rng.standard_normal((p.m, p.ldc)), rng.standard_normal(p.n)
        op_a = a[:, : p.m].T if p.transpose_a else a[:, : p.k]
        op_b = b[:, : p.k].T if p.transpose_b else b[:, : p.n]
        expected = op_a @ op_b + (c[:, : p.n] if p.accumulate else 0)
        expected += vector if p.bias else 0
        before, built = c[:, p.n :].copy(), Descriptors(library, p)
        if p.bias:
            built.matmul.set(api.MatmulDesc.BIAS_POINTER, vector.ctypes.data)
        multiply(read(built), 1.0, b.ctypes.data, a.ctypes.data, float(p.accumulate), c.ctypes.data, c.ctypes.data)
        assert np.allclose(c[:, : p.n], expected, rtol=0, atol=1e-13), p
        assert np.array_equal(c[:, p.n :], before)


@proof
def test_the_real_library_refuses_an_attribute_of_another_size(library):
    class Wrong(api.Attribute):
        EPILOGUE = 7, ctypes.c_uint64

    descriptor = Descriptor(library, api.MatmulDesc, api.Compute.F32, api.DataType.R_32F)
    with pytest.raises(
        BackendError, match=r"cublasLtMatmulDescSetAttribute returned CUBLAS_STATUS_INVALID_VALUE for EPI"
    ):
        descriptor.set(Wrong.EPILOGUE, 4)


@proof
def test_the_real_library_calls_its_statuses_by_the_same_names(library):
    library.functions.cublasLtGetStatusName.restype = ctypes.c_char_p
    for status in api.Status:
        assert library.functions.cublasLtGetStatusName(int(status)) == f"CUBLAS_STATUS_{status.name}".encode()


@proof
def test_without_a_driver_the_reason_is_reported(library):
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has an NVIDIA driver")
    assert library.status("cublasLtCreate", ctypes.byref(ctypes.c_void_p())) == api.Status.NOT_INITIALIZED
    refused = cublaslt.plan_of(product(2, 3, 4), 0)
    assert isinstance(refused, Refusal)
    assert refused.reason == (
        f"cublasLt {library.version}: cublasLtCreate returned CUBLAS_STATUS_NOT_INITIALIZED; "
        "there is no NVIDIA driver, or one too old for this library, or no GPU: see nvidia-smi"
    )


@proof
def test_an_algorithm_is_described_by_the_real_library(library):
    # An algorithm of zeros cannot run, but its settings can be read.
    assert cublaslt.reduction_of(library, api.HeuristicResult()) == 0


def test_the_library_is_searched_in_wheels_loader_cuda_path(tmp_path):
    wheels, home = tmp_path / "site-packages" / "nvidia", tmp_path / "cuda"
    files = [wheels / "cu13/lib/libcublasLt.so.13", wheels / "cublas/lib/libcublasLt.so.12"]
    files += [home / "lib64/libcublasLt.so.13"]
    for file in files:
        file.parent.mkdir(parents=True)
        file.touch()
    empty = tmp_path / "elsewhere" / "nvidia"
    environment = {"CUDA_PATH": str(home), "CUDA_HOME": ""}
    assert list(candidates([str(empty), str(wheels)], (13, 12), environment)) == [
        *(str(files[0]), "libcublasLt.so.13", str(files[2])),
        *(str(files[1]), "libcublasLt.so.12"),
    ]
    assert list(candidates([], (12,), {})) == ["libcublasLt.so.12"]


def test_wheels_are_searched_in_every_nvidia_folder(monkeypatch, tmp_path):
    folder = tmp_path / "nvidia"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert str(folder) in api._wheel_folders()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert api._wheel_folders() == []


def test_the_version_that_goes_with_cupy_is_looked_for_first(monkeypatch):
    assert api._installed("numpy")
    assert not api._installed("a-name-that-no-package-has")
    installed = {"cupy-cuda12x"}
    monkeypatch.setattr(api, "_installed", installed.__contains__)
    assert api._majors() == [12, 13]
    installed.clear()
    assert api._majors() == [13, 12]


def test_a_missing_library_is_a_reason_with_a_cure(monkeypatch, tmp_path):
    broken = tmp_path / "libcublasLt.so.13"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(api, "candidates", lambda *_: iter([str(broken), "libc.so.6"]))
    refused = api.load.__wrapped__()
    assert isinstance(refused, Refusal)
    assert refused.reason.startswith(f"cublasLt cannot be loaded: tried {broken} (")
    assert "libc.so.6 (" in refused.reason
    assert "cublasLtGetVersion" in refused.reason
    assert refused.reason.endswith("install nvidia-cublas (CUDA 13) or nvidia-cublas-cu12 (CUDA 12); "
                                   "bnengine[cuda13] and bnengine[cuda12] bring it")  # fmt: skip
    monkeypatch.setattr("sys.platform", "win32")
    assert api.load.__wrapped__() == Refusal("cublasLt is looked for on Linux only, and this is win32")
