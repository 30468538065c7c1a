"""Compares our products with the OpenBLAS of NumPy's wheel, one thread, at the shapes of the step workloads.

python -m tests.benchmarks.gemm_rates [--isa v4] [--dtype float32] [--workload W2] [--columns N] [--json FILE]

Each row times both in turns, in rounds of some milliseconds of the thread's processor time. The ratio is the median of
OpenBLAS's time over ours. One loop in C calls both. --isa v3 limits OpenBLAS to AVX2 too. Needs g++.
"""

import argparse
import ctypes
import itertools
import json
import os
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # a user's machine does not set them
    os.environ.pop(variable, None)
os.environ["OPENBLAS_NUM_THREADS"] = "1"
if "v3" in sys.argv:
    os.environ["OPENBLAS_CORETYPE"] = "Haswell"

import numpy as np  # noqa: E402

from tests.cpu.build import SETS, compiled  # noqa: E402

WORKLOADS = {
    "W1": ((64, 100, 100, 10), 64),
    "W2": ((784, 512, 512, 10), 256),
    "W3": ((1024, 2048, 2048, 2048, 100), 1024),
    "W4": ((784, 128, 128, 10), 128),
}
SCRATCH = 3 << 20
WORK = 4e8  # floating-point operations of a round
LOOPS = """
#include <string.h>
#include <time.h>

#include "gemm.cpp"

#define EXPORT extern "C" __attribute__((visibility("default")))
using i64 = int64_t;

static double now() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

EXPORT double ours(const char* name, void* const* arrays, const i64* integers, i64 width, void* scratch, i64 rounds) {
  const bnengine::Entry* e = bnengine::BNENGINE_ISA::entries();
  while (strcmp(e->name, name)) ++e;
  bnengine::Worker worker{scratch, 3 << 20};
  const double from = now();
  for (i64 r = 0; r < rounds; ++r)
    for (i64 j = 0, end; j < integers[1]; j = end) {
      end = j + width < integers[1] ? j + width : integers[1];
      e->kernel(bnengine::Arguments{arrays, integers, nullptr}, j, end, worker);
    }
  return (now() - from) / double(rounds);
}

template <class T>
using Blas = void (*)(int, int, int, i64, i64, i64, T, const void*, i64, const void*, i64, T, void*, i64);

template <class T>
static double theirs(void* f, int ta, int tb, void* const* arrays, const i64* s, i64 rounds) {
  const double from = now();
  for (i64 r = 0; r < rounds; ++r)
    reinterpret_cast<Blas<T>>(f)(101, 111 + ta, 111 + tb, s[0], s[1], s[2], 1, arrays[0], s[3], arrays[1], s[4], 0,
                                 arrays[3], s[5]);
  return (now() - from) / double(rounds);
}
EXPORT double theirs_float32(void* f, int ta, int tb, void* const* arrays, const i64* s, i64 rounds) {
  return theirs<float>(f, ta, tb, arrays, s, rounds);
}
EXPORT double theirs_float64(void* f, int ta, int tb, void* const* arrays, const i64* s, i64 rounds) {
  return theirs<double>(f, ta, tb, arrays, s, rounds);
}
"""


class Row(NamedTuple):
    """A product of a workload."""

    workload: str
    kind: str
    m: int
    n: int
    k: int


def rows() -> Iterator[Row]:
    """Each product of each workload, once: forward, gradient of the weights, gradient of the input."""
    for name, (widths, batch) in WORKLOADS.items():
        found = dict[Row, None]()
        for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            found[Row(name, "nn", batch, outputs, inputs)] = None
            found[Row(name, "tn", inputs, outputs, batch)] = None
            if i:
                found[Row(name, "nt", batch, inputs, outputs)] = None
        yield from found


def openblas() -> Any:
    """The library of NumPy's wheel."""
    folder = Path(np.__file__).parent.parent / "numpy.libs"
    found = sorted(folder.glob("libscipy_openblas64_*.so*"))
    if not found:
        raise SystemExit(f"gemm_rates: {folder} has no OpenBLAS; install NumPy from its wheel")
    return ctypes.CDLL(str(found[0]))


def measured(loops: Any, blas: Any, row: Row, dtype: str, columns: int) -> dict[str, Any]:
    """Rates in GFLOP/s and the median ratio."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((row.k, row.m) if row.kind == "tn" else (row.m, row.k)).astype(dtype)
    b = rng.standard_normal((row.n, row.k) if row.kind == "nt" else (row.k, row.n)).astype(dtype)
    c, memory = np.zeros((row.m, row.n), dtype), np.zeros(SCRATCH + 64, np.uint8)
    arrays = (ctypes.c_void_p * 5)(a.ctypes.data, b.ctypes.data, None, c.ctypes.data, None)
    sizes = (ctypes.c_int64 * 8)(row.m, row.n, row.k, a.shape[1], b.shape[1], row.n, 0, 0)
    operations = 2 * row.m * row.n * row.k
    repeats = ctypes.c_int64(max(1, round(WORK / operations)))
    scratch = ctypes.c_void_p(memory.ctypes.data + -memory.ctypes.data % 64)
    name = f"gemm_{row.kind}<{'float' if dtype == 'float32' else 'double'}>".encode()
    function = ctypes.cast(blas[f"scipy_cblas_{'s' if dtype == 'float32' else 'd'}gemm64_"], ctypes.c_void_p)
    run_theirs = getattr(loops, f"theirs_{dtype}")
    loops.ours.restype = run_theirs.restype = ctypes.c_double
    times: dict[str, list[float]] = {"ours": [], "openblas": []}
    for number in range(16):
        for who in ("ours", "openblas") if number % 2 else ("openblas", "ours"):
            if who == "ours":
                spent = loops.ours(name, arrays, sizes, ctypes.c_int64(columns or row.n), scratch, repeats)
            else:
                spent = run_theirs(function, row.kind == "tn", row.kind == "nt", arrays, sizes, repeats)
            if number:  # the first round warms up
                times[who].append(spent)
    ratios = [theirs / ours for ours, theirs in zip(times["ours"], times["openblas"], strict=True)]
    rates = {who: round(operations / statistics.median(spent) / 1e9, 1) for who, spent in times.items()}
    return {**row._asdict(), "dtype": dtype, **rates, "ratio": round(statistics.median(ratios), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", choices=list(SETS), default="v4")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--workload", choices=list(WORKLOADS))
    parser.add_argument("--columns", type=int, default=0, help="columns of a block; all columns at once without it")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    loops, blas = ctypes.CDLL(str(compiled(LOOPS, given.isa, "-shared", "-fPIC"))), openblas()
    blas.scipy_openblas_get_config64_.restype = ctypes.c_char_p
    print(f"{given.isa} and {blas.scipy_openblas_get_config64_().decode().strip()}; GFLOP/s, one thread")
    results = []
    for row in rows():
        if given.workload in (None, row.workload):
            results.append(measured(loops, blas, row, given.dtype, given.columns))
            r = results[-1]
            print(f"{r['workload']} {r['kind']} {row.m:5} x {row.n:4} x {row.k:4}  ours {r['ours']:6.1f}  "
                  f"OpenBLAS {r['openblas']:6.1f}  ratio {r['ratio']:.3f}", flush=True)  # fmt: skip
    if given.json:
        about = {"isa": given.isa, "numpy": np.__version__, "columns": given.columns, "rows": results}
        given.json.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
