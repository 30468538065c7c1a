"""Products of kernels/cpu: the definition bit for bit, float64 within the bound, NaN, layouts, instruction sets."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.cpu.build import OF_THIS_MACHINE, Kernels, compiled, run

EDGES = Path(__file__).with_name("gemm_edges.cpp")
SCRATCH = 3 << 20
KINDS = ("nn", "nt", "tn")
TYPES = {"float": np.float32, "double": np.float64}
SHAPES = ((64, 100, 64), (128, 10, 512), (7, 1, 1), (1, 300, 784), (33, 100, 257), (50, 48, 600))

each_set = pytest.mark.parametrize("isa", OF_THIS_MACHINE)
each_kind = pytest.mark.parametrize("kind", KINDS)
each_type = pytest.mark.parametrize("name", list(TYPES))


@cache
def kernels(isa: str) -> Kernels:
    return Kernels("gemm.cpp", isa, SCRATCH)


def factors(rng, kind, m, n, k, dtype):
    """A and B as a kernel of this kind takes them."""
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    return np.ascontiguousarray(a.T if kind == "tn" else a), np.ascontiguousarray(b.T if kind == "nt" else b)


def product(isa, kind, a, b, c, bias=None, adds=False, sums=None, adds_sums=False, rows=False, cuts=()):
    """Run a kernel, in blocks that end at `cuts`; the strides are those of the arrays."""
    m, n = c.shape
    k = a.shape[0] if kind == "tn" else a.shape[1]
    strides = [x.strides[0] // x.itemsize for x in (a, b, c)]
    arrays = (b, bias, a, c) if rows else (a, b, bias, c, sums)
    name = f"gemm_{kind}{'_rows' if rows else ''}<{'float' if c.dtype == np.float32 else 'double'}>"
    ends = [*cuts, m if rows else n]
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        kernels(isa)(name, arrays, [m, n, k, *strides, adds, adds_sums], begin, end)
    return c


def exact(kind, a, b):
    """The product and |A| |B| in more precision."""
    more = np.float64 if a.dtype == np.float32 else np.longdouble
    a, b = (x.astype(more) for x in (a.T if kind == "tn" else a, b.T if kind == "nt" else b))
    return a @ b, np.abs(a) @ np.abs(b)


L2_BYTES = ("1048576", "2097152")  # of the second-level cache: what is packed at once fits in it


@each_set
@pytest.mark.parametrize("rounds", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_every_element_is_a_sum_of_chains_of_fused_multiply_adds(isa, rounds, monkeypatch):
    for cache_bytes in L2_BYTES:
        monkeypatch.setenv("BNENGINE_L2_BYTES", cache_bytes)
        run(compiled(EDGES.read_text(encoding="utf-8"), isa), str(rounds))


@pytest.mark.slow
@each_set
def test_the_sanitizers_find_nothing_in_products(isa):
    options = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    run(compiled(EDGES.read_text(encoding="utf-8"), isa, *options), "30")


@each_set
@each_kind
@each_type
@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_within_the_bound_of_affine(rng, isa, kind, name, shape):
    m, n, k = shape
    dtype = TYPES[name]
    a, b = factors(rng, kind, m, n, k, dtype)
    bias, old = rng.standard_normal(n).astype(dtype), rng.standard_normal((m, n)).astype(dtype)
    expected, size = exact(kind, a, b)
    c = product(isa, kind, a, b, old.copy(), bias, adds=True)
    bound = 10 * np.finfo(dtype).eps / 2 * (size + np.abs(bias) + np.abs(old))
    assert (np.abs(c - (expected + bias + old)) <= bound).all()


@each_set
@each_type
@pytest.mark.parametrize("k", [1024, 4097, 131072])
def test_the_error_of_a_sum_of_one_sign_does_not_grow_with_its_length(rng, isa, name, k):
    a, b = (rng.random((k, columns)).astype(TYPES[name]) for columns in (9, 33))
    expected, size = exact("tn", a, b)
    c = product(isa, "tn", a, b, np.zeros((9, 33), a.dtype))
    assert (np.abs(c - expected) <= 10 * np.finfo(a.dtype).eps / 2 * size).all()


@each_kind
@each_type
@pytest.mark.parametrize("shape", [*SHAPES, (97, 289, 1030), (5, 700, 3), (30, 50, 5000)])
def test_avx2_and_avx512_give_the_same_bits(rng, kind, name, shape):
    m, n, k = shape
    a, b = factors(rng, kind, m, n, k, TYPES[name])
    bias, old = rng.standard_normal(n).astype(a.dtype), rng.standard_normal((m, n)).astype(a.dtype)
    narrow, wide = (product(isa, kind, a, b, old.copy(), bias, adds=True).tobytes() for isa in ("v3", "v4"))
    assert narrow == wide


@each_set
@each_kind
@each_type
@pytest.mark.parametrize("rows", [False, True])
def test_blocks_of_any_size_give_the_same_bits(rng, isa, kind, name, rows):
    m, n, k = 107, 131, 530
    a, b = factors(rng, kind, m, n, k, TYPES[name])
    whole = product(isa, kind, a, b, np.zeros((m, n), a.dtype)).tobytes()
    width = m if rows else n
    for cuts in ((), (1,), (16, 32, 96), (width - 1,), tuple(range(7, width, 7))):
        c = product(isa, kind, a, b, np.full((m, n), np.nan, a.dtype), rows=rows, cuts=cuts)
        assert c.tobytes() == whole, cuts


@each_set
@each_kind
@each_type
def test_rows_may_lie_anywhere_and_what_is_between_them_stays(rng, isa, kind, name):
    m, n, k = 37, 53, 261
    dtype = TYPES[name]
    a, b = factors(rng, kind, m, n, k, dtype)
    dense = product(isa, kind, a, b, np.zeros((m, n), dtype))

    def scattered(x, offset, gap):
        """x at an address that is no multiple of a vector, NaN around it."""
        memory = np.full(x.size + x.shape[0] * gap + offset + 64, np.nan, dtype)
        at = -memory.ctypes.data % 64 // memory.itemsize + offset
        view = memory[at : at + x.shape[0] * (x.shape[1] + gap)].reshape(x.shape[0], -1)[:, : x.shape[1]]
        view[:] = x
        return memory, view

    for offset, gap in ((1, 0), (3, 5), (0, 64), (7, 971)):
        (_, far_a), (_, far_b) = scattered(a, offset, gap), scattered(b, offset + 1, gap)
        memory, c = scattered(np.full((m, n), 1, dtype), offset, gap)
        product(isa, kind, far_a, far_b, c)
        assert c.tobytes() == dense.tobytes()
        c[:] = np.nan
        assert np.isnan(memory).all()


@each_set
@each_kind
@each_type
@pytest.mark.parametrize("rows", [False, True])
def test_nan_and_infinity_reach_only_their_elements(rng, isa, kind, name, rows):
    m, n, k = 21, 50, 300
    a, b = factors(rng, kind, m, n, k, TYPES[name])
    clean = product(isa, kind, a, b, np.zeros((m, n), a.dtype), rows=rows)
    (a.T if kind == "tn" else a)[20, 299] = np.nan
    (b.T if kind == "nt" else b)[7, 49] = np.inf
    c = product(isa, kind, a, b, np.zeros((m, n), a.dtype), rows=rows)
    assert np.isnan(c[20]).all()
    left = (a.T if kind == "tn" else a)[:20, 7]
    assert (c[:20, 49] == np.copysign(np.inf, left)).all()
    assert c[:20, :49].tobytes() == clean[:20, :49].tobytes()


@each_set
@each_type
def test_infinity_times_zero_and_opposite_infinities_are_nan(isa, name):
    a = np.array([[np.inf, 0], [np.inf, 1]], TYPES[name])
    b = np.array([[0, 1], [1, -np.inf]], TYPES[name])
    c = product(isa, "nn", a, b, np.zeros((2, 2), TYPES[name]))
    assert np.isnan(c).all()


@each_set
@each_type
def test_no_terms_leave_bias_and_what_was_there(isa, name):
    a, b = np.zeros((3, 0), TYPES[name]), np.zeros((0, 20), TYPES[name])
    bias, old = np.arange(20).astype(a.dtype), np.ones((3, 20), a.dtype)
    assert (product(isa, "nn", a, b, old.copy(), bias, adds=True) == bias + 1).all()
    assert (product(isa, "nn", a, b, old.copy()) == 0).all()


@each_set
@each_type
def test_sums_of_columns_are_chains_in_double_rounded_once(rng, isa, name):
    dtype = TYPES[name]
    a, b = factors(rng, "tn", 20, 77, 1000, dtype)
    chains = np.cumsum(b.astype(np.float64), axis=0)[-1].astype(dtype)
    old = rng.standard_normal(77).astype(dtype)
    for adds in (False, True):
        expected = (old + chains if adds else chains).tobytes()
        for cuts in ((), (5, 40)):
            sums = old.copy()
            product(isa, "tn", a, b, np.zeros((20, 77), dtype), sums=sums, adds_sums=adds, cuts=cuts)
            assert sums.tobytes() == expected
        alone = old.copy()
        for begin, end in ((0, 33), (33, 77)):
            kernels(isa)(f"column_sums<{name}>", (b, alone), [1000, 77, adds], begin, end)
        assert alone.tobytes() == expected


# -- what is done for speed alone, which shows in the scratch


def in_scratch(isa, values):
    """Which of these numbers are in it."""
    return np.isin(values, kernels(isa).scratch.view(values.dtype))


@each_set
@each_type
@pytest.mark.parametrize(("bytes_apart", "columns"), [(4032, 96), (4096, 96), (4096, 8), (2048, 256)])
def test_a_transposed_a_is_copied_if_its_rows_are_a_page_apart_or_read_often(rng, isa, name, bytes_apart, columns):
    dtype = np.dtype(TYPES[name])
    a, b = factors(rng, "tn", bytes_apart // dtype.itemsize, columns, 40, dtype)
    a += 1000  # as no number of b is
    few = a[:, :64]
    product(isa, "tn", few, b, np.zeros((64, columns), dtype))
    copied = in_scratch(isa, few)
    assert copied.all() if columns == 256 or (bytes_apart == 4096 and columns == 96) else not copied.any()


@each_set
@each_type
def test_the_last_piece_of_b_is_packed_once_for_all_rows(rng, isa, name):
    dtype = np.dtype(TYPES[name])
    a, b = factors(rng, "nt", 300, 240, 1000, dtype)
    product(isa, "nt", a, b, np.zeros((300, 240), dtype))
    assert in_scratch(isa, b[:, 750:]).all()


@each_set
@each_type
def test_four_vectors_are_two_tiles_of_two_and_none_of_one(rng, isa, name):
    dtype = np.dtype(TYPES[name])
    lanes = {"v4": 64, "v3": 32, "aarch64": 16}[isa] // dtype.itemsize
    a, b = factors(rng, "nn", 20, 4 * lanes, 200, dtype)
    b = np.ascontiguousarray(np.pad(b, ((0, 0), (0, 400))))[:, : 4 * lanes]  # too far apart to be read in place
    product(isa, "nn", a, b, np.zeros((20, 4 * lanes), dtype))
    first = kernels(isa).scratch.view(dtype)[: 400 * lanes].reshape(200, -1)
    np.testing.assert_array_equal(first, b[:, : 2 * lanes])
