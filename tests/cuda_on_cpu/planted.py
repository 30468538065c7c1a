"""Kernels with a mistake planted in their source, each run once: python -m tests.cuda_on_cpu.planted NAME."""

import ctypes
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tests.cuda_on_cpu.launch import BLOCK, Guarded, arrivals, instance
from tests.cuda_on_cpu.module import CpuModule
from tests.cuda_on_cpu.source import kernel_source

ROWS, CLASSES = 9, 6
HITS = instance("correct", "float", "long long")
TOTAL = instance("total", "float", 4)


class Bug(NamedTuple):
    """A line of a file of kernels, what replaces it, and what the sanitizers say of `kernel` then."""

    file: str
    kernel: str
    line: str
    planted: str
    named: str  # a regular expression
    run: Callable[[Any], None]


def run_hits(kernel: Any) -> None:
    rng = np.random.default_rng(0)
    output = rng.standard_normal((ROWS, CLASSES)).astype(np.float32)
    given = (output, rng.integers(0, CLASSES, ROWS), np.zeros(1), np.zeros(2), arrivals())
    arrays = [Guarded(a, 0) for a in given]
    kernel((2,), BLOCK, [*(a.array for a in arrays), ROWS, CLASSES, False])
    expected = np.sum(np.argmax(given[0], axis=1) == given[1])
    assert arrays[2].array[0] == expected, (arrays[2].array, expected)


def run_total(kernel: Any) -> None:
    a, b, out = (Guarded(np.ones(40, np.float32), 0) for _ in range(3))
    kernel((1,), BLOCK, [a.array, b.array, out.array, 40, False])
    assert np.all(out.array == 2)


def run_freed(kernel: Any) -> None:
    """A launch that holds an address of memory that went back."""
    a, b, out = (Guarded(np.ones(40, np.float32), 0) for _ in range(3))
    stale = np.ctypeslib.as_array((ctypes.c_float * 40).from_address(a.array.ctypes.data))
    del a
    kernel((1,), BLOCK, [stale, b.array, out.array, 40, False])


ROW = "largest_of(output + row * classes, classes);"
LOAD = "other = load<N>(b + i);"
PARTIAL = "partial[index(blockIdx.x) * COUNT + k] = x[k];"
SHARED = "if (threadIdx.x == 0) of_warp[threadIdx.y] = x;\n  __syncthreads();\n  double sum"
READS = r"AddressSanitizer: use-after-poison .*\nREAD of size 4 (.*\n)+.*bnengine::correct.*loss.cu:\d+"
WRITES = r"AddressSanitizer: use-after-poison .*\nWRITE of size 8 (.*\n)+.*bnengine::grid_sum.*common.cuh:\d+"
BEYOND = r"index 8 out of bounds for type 'double ?\[8\]'(.*\n)+.*bnengine::block_sum.*common.cuh:\d+"
ASKEW = r"misaligned address 0x\w+ for type 'const struct uint4', which requires 16 byte alignment"
FREED = r"AddressSanitizer: heap-use-after-free .*\nREAD of size 4 (.*\n)+.*bnengine::load.*common.cuh:\d+"
BUGS = {
    "reads_one_beyond": Bug("loss.cu", HITS, ROW, ROW.replace("classes);", "classes + 1);"), READS, run_hits),
    "reads_one_before": Bug("loss.cu", HITS, ROW, ROW.replace("classes,", "classes - 1,"), READS, run_hits),
    "writes_one_beyond": Bug("loss.cu", HITS, PARTIAL, PARTIAL.replace("+ k]", "+ k + 1]"), WRITES, run_hits),
    "shares_one_beyond": Bug("loss.cu", HITS, SHARED, SHARED.replace(".y]", ".y + 1]"), BEYOND, run_hits),
    "loads_askew": Bug("pointwise.cu", TOTAL, LOAD, LOAD.replace("i)", "i + 1)"), ASKEW, run_total),
    "reads_freed_memory": Bug("pointwise.cu", TOTAL, "", "", FREED, run_freed),
}


def source(bug: Bug) -> str:
    """A copy of the file with the mistake in it."""
    text = kernel_source(bug.file)
    if not bug.line:
        return text
    if text.count(bug.line) != 1:
        raise SystemExit(f"{bug.file} has {text.count(bug.line)} lines {bug.line!r}; the mistake goes into one")
    return text.replace(bug.line, bug.planted)


if __name__ == "__main__":
    planted = BUGS[sys.argv[1]]
    right = sys.argv[2:] == ["--without"]
    code = kernel_source(planted.file) if right else source(planted)
    planted.run(CpuModule(code, (planted.kernel,)).get_function(planted.kernel))
    print("nothing was found")
