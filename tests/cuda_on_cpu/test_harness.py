"""The simulated device finds what a GPU would not survive, and its 16-bit types round as NumPy's."""

from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu.launch import need_compiler, unwritten
from tests.cuda_on_cpu.module import SCHEDULES, CpuModule, LaunchError
from tests.cuda_on_cpu.redzones import sanitized
from tests.cuda_on_cpu.storage import BFLOAT, FLOAT
from tests.fused.simulated_arrays import fresh, on_device
from tests.fused.simulated_kernels import RawKernel

CODE = r"""
#include <cuda_bf16.h>
#include <cuda_fp16.h>

template <class T>
__global__ void reversed(const T* x, T* y, double scale) {
  __shared__ T kept[64];
  kept[threadIdx.x] = x[threadIdx.x] * T(scale);
  __syncthreads();
  y[threadIdx.x] = kept[63 - threadIdx.x];
}
__global__ void no_barrier(const float* x, float* y) {
  __shared__ float kept[32];
  if (threadIdx.y > 0) return;
  kept[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = kept[31 - threadIdx.x];
}
__global__ void unequal_barriers(float* y) {
  if (threadIdx.x < 7) __syncthreads();
  else __syncthreads();
}
__global__ void waiting_for_ever(float* y) {
  if (threadIdx.x < 7) __syncthreads();
  else __shfl_xor_sync(0xffffffffu, 1, 1);
}
__global__ void shuffle_with_the_dead(float* y) {
  if (threadIdx.x == 3) return;
  y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, y[threadIdx.x], 1);
}
extern __shared__ __align__(16) unsigned char dynamic_shared[];
__global__ void past_dynamic(long long n) { dynamic_shared[n] = 1; }
__global__ void past_the_end(const float* x, float* y, long long n) { y[n] = x[0]; }
__global__ void sums(const double* x, double* y) {
  double sum = x[threadIdx.x];
  for (int d = 16; d > 0; d /= 2) sum += __shfl_down_sync(0xffffffffu, sum, d);
  if (threadIdx.x == 0) *y = sum;
}
__global__ void half(const __half* x, float* wide, const float* y, __half* narrow) {
  const int t = threadIdx.x + blockIdx.x * blockDim.x;
  wide[t] = __half2float(x[t]);
  narrow[t] = __float2half_rn(y[t]);
}
__global__ void bfloat16(const __nv_bfloat16* x, float* wide, const float* y, __nv_bfloat16* narrow) {
  const int t = threadIdx.x + blockIdx.x * blockDim.x;
  wide[t] = __bfloat162float(x[t]);
  narrow[t] = __float2bfloat16_rn(y[t]);
}
"""
NAMES = (
    *("reversed<float>", "no_barrier", "unequal_barriers", "waiting_for_ever", "shuffle_with_the_dead", "sums"),
    *("past_dynamic", "past_the_end", "half", "bfloat16"),
)


@pytest.fixture(scope="module")
def device() -> CpuModule:
    need_compiler()
    return CpuModule(CODE, NAMES)


@pytest.fixture
def x() -> np.ndarray:
    return np.arange(64, dtype=np.float32)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_threads_meet_at_a_barrier_in_every_schedule(device, x, schedule):
    y = np.zeros(64, np.float32)
    device.get_function("reversed<float>")((1,), (64,), (x, y, 2.0), schedule=schedule)
    np.testing.assert_array_equal(y, 2 * x[::-1])


def test_lanes_exchange_by_shuffle(device):
    y = np.zeros(1)
    device.get_function("sums")((1,), (32,), (np.arange(32.0), y))
    assert y[0] == 496


def test_shared_memory_is_nan_before_it_is_written(device, x):
    y = np.zeros(32, np.float32)
    for _ in range(2):  # nothing stays from the block before
        device.get_function("no_barrier")((1,), (32,), (x, y))
        assert np.isnan(y[:16]).all()
        assert not np.isnan(y[16:]).any()


def test_a_missing_barrier_shows_between_schedules(device, x):
    y = np.zeros((2, 32), np.float32)
    for out, schedule in zip(y, ("forward", "reverse"), strict=True):
        device.get_function("no_barrier")((1,), (32,), (x, out), schedule=schedule)
    assert y[0].tobytes() != y[1].tobytes()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unequal_barriers", "divergent __syncthreads"),
        ("waiting_for_ever", "deadlock"),
        ("shuffle_with_the_dead", "names a lane that has exited"),
    ],
)
def test_threads_that_wait_in_vain_are_reported_with_their_line(device, x, name, message):
    with pytest.raises(LaunchError, match=rf"^{name}: .*{message}.*\(line \d+, block 0,0,0, thread \d+,0,0\)"):
        device.get_function(name)((1,), (32,), (x,))
    y = np.zeros(1)  # and the device still works
    device.get_function("sums")((1,), (32,), (np.ones(32), y))
    assert y[0] == 32


@pytest.mark.skipif(sanitized(), reason="the sanitizer ends the process, which test_sanitized.py sees")
@pytest.mark.parametrize(("place", "where"), [(8, "after"), (-1, "before")])
def test_a_write_outside_of_an_array_is_found(device, x, place, where):
    given = on_device(x), fresh((8,), "f4"), np.int64(place)
    with pytest.raises(AssertionError, match=f"past_the_end: wrote {where} an array of 32 bytes"):
        RawKernel(device.get_function("past_the_end"))((1,), (32, 8), given)


def test_a_write_past_dynamic_shared_memory_is_found(device):
    kernel = device.get_function("past_dynamic")
    kernel((1,), (1,), (15,), shared_mem=16)
    with pytest.raises(LaunchError, match=r"write past dynamic shared memory \(byte 20 of 16\)"):
        kernel((1,), (1,), (20,), shared_mem=16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda x: (x, x), "2 arguments for 3 parameters"),
        (lambda x: (x, x, 2), "parameter 2 is float64; the argument is int64"),
        (lambda x: (x, x, np.float32(2)), "parameter 2 is float64; the argument is float32"),
        (
            lambda x: (x, x.astype("f8"), 2.0),
            "parameter 1 is a pointer to float32; the argument is a pointer to float64",
        ),
        (lambda x: (x, 1.0, 2.0), "parameter 1 is a pointer to float32; the argument is float64"),
        (lambda x: (x, x, None), "parameter 2 is float64; the argument is a pointer"),
        (lambda x: (x[::2], x, 2.0), "argument 0 has gaps between its elements"),
    ],
)
def test_an_argument_of_another_count_kind_or_width_is_refused(device, x, arguments, message):
    with pytest.raises(TypeError, match=message):
        device.get_function("reversed<float>")((1,), (64,), arguments(x))


@pytest.mark.parametrize(("grid", "block"), [((0,), (32,)), ((1,), (2048,)), ((1, 70000), (32,)), ((1,), (1, 1, 65))])
def test_a_launch_that_no_gpu_would_start_is_refused(device, x, grid, block):
    with pytest.raises(LaunchError, match="invalid launch configuration"):
        device.get_function("reversed<float>")(grid, block, (x, x.copy(), 1.0))


def floats(rng: np.random.Generator) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        anything = rng.integers(0, 2**32, 2**15, dtype=np.uint64).astype(np.uint32).view(np.float32)
    middling = rng.standard_normal(2**15) * 10.0 ** rng.uniform(-9, 5, 2**15)
    return np.concatenate([anything, middling.astype(np.float32)])


def test_float16_is_widened_and_rounded_as_numpy_does(device, rng):
    every, given = np.arange(2**16, dtype=np.uint16).view(np.float16), floats(rng)
    wide, narrow = np.zeros(2**16, np.float32), np.zeros(2**16, np.float16)
    device.get_function("half")((64,), (1024,), (every, wide, given, narrow))
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(wide, every.astype(np.float32))
        np.testing.assert_array_equal(narrow, given.astype(np.float16))


def test_bfloat16_is_the_upper_half_of_float32_rounded_to_even(device, rng):
    every, given = np.arange(2**16, dtype=np.uint16).view("V2"), floats(rng)
    wide, narrow = np.zeros(2**16, np.float32), unwritten(2**16, "V2")
    device.get_function("bfloat16")((64,), (1024,), (every, wide, given, narrow))
    np.testing.assert_array_equal(FLOAT.wide(wide), BFLOAT.wide(every))
    upper = given.view(np.uint32) & 0xFFFF0000
    got, below, above = BFLOAT.wide(narrow), *(FLOAT.wide(u.view(np.float32)) for u in (upper, upper + 0x10000))
    inside = np.isfinite(given) & np.isfinite(got)
    assert np.all(np.abs(got[inside] - given[inside]) <= np.abs(above[inside] - below[inside]) / 2)
    assert np.all(np.isnan(got) == np.isnan(given))
    ties: Any = np.asarray([0x3F808000, 0x3F818000, 0xBF808000], np.uint32).view(np.float32)
    assert BFLOAT.of(ties).view(np.uint16).tolist() == [0x3F80, 0x3F82, 0xBF80]
    np.testing.assert_array_equal(narrow.view(np.uint16), BFLOAT.of(given).view(np.uint16))
