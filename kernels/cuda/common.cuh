// What all kernels share: storage types, 16-byte access, the shape of a block, reductions in a fixed order.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../rules.h"
#include "layout.cuh"

extern __shared__ __align__(16) unsigned char dynamic_shared[];

namespace bnengine {

using index = long long;

// Every block is (32 lanes, 8 warps).
constexpr int kLanes = 32, kWarps = 8, kThreads = kLanes * kWarps;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ int thread_number() { return threadIdx.y * kLanes + threadIdx.x; }

// -- storage types, and the arithmetic type of each

template <class T>
struct ArithmeticOf {
  using type = float;
};
template <>
struct ArithmeticOf<double> {
  using type = double;
};
template <class T>
using Arithmetic = typename ArithmeticOf<T>::type;

__device__ __forceinline__ double widened(double x) { return x; }
__device__ __forceinline__ float widened(float x) { return x; }
__device__ __forceinline__ float widened(__half x) { return __half2float(x); }
__device__ __forceinline__ float widened(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T, class A>
__device__ __forceinline__ T stored(A x) {
  return T(x);
}
template <>
__device__ __forceinline__ __half stored<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 stored<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

template <class S, class T>
constexpr bool kSame = false;
template <class T>
constexpr bool kSame<T, T> = true;

// N consecutive elements, read and written 16 bytes at a time, or all at once if they are fewer: their address must be a
// multiple of that.
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
  T element[N];
  __device__ __forceinline__ Arithmetic<T> operator[](int i) const {
    if constexpr (kSame<T, __nv_bfloat16> && N % 2 == 0) {  // told by pairs, two stay in one register
      unsigned pair;
      memcpy(&pair, element + (i & ~1), sizeof pair);
      pair = i & 1 ? pair & 0xffff0000u : pair << 16;
      float x;
      memcpy(&x, &pair, sizeof x);
      return x;
    } else {
      return widened(element[i]);
    }
  }
  __device__ __forceinline__ void set(int i, Arithmetic<T> x) { element[i] = stored<T>(x); }
};

template <int BYTES>
struct WordOf {
  using type = uint4;
};
template <>
struct WordOf<1> {
  using type = unsigned char;
};
template <>
struct WordOf<2> {
  using type = unsigned short;
};
template <>
struct WordOf<4> {
  using type = unsigned;
};
template <>
struct WordOf<8> {
  using type = uint2;
};

// p is in global memory, here and below. Written as plain assignments, the compiler takes these accesses apart again:
// loads into branches that need one element, stores inside loops. LAST: no launch reads it again soon, so that caches may
// give it up before all else.
template <int N, bool LAST = false, class T>
__device__ __forceinline__ Pack<T, N> load(const T* p) {
  using Word = typename WordOf<alignof(Pack<T, N>)>::type;
  constexpr int kWords = sizeof(Pack<T, N>) / sizeof(Word);
  Word words[kWords];
#pragma unroll
  for (int w = 0; w < kWords; ++w) {
    const Word* from = reinterpret_cast<const Word*>(p) + w;
    words[w] = LAST ? __ldcs(from) : __ldca(from);
  }
  Pack<T, N> values;
  memcpy(&values, words, sizeof values);
  return values;
}
template <int N, class T>
__device__ __forceinline__ void store(T* p, const Pack<T, N>& values) {
  using Word = typename WordOf<alignof(Pack<T, N>)>::type;
  constexpr int kWords = sizeof(Pack<T, N>) / sizeof(Word);
  Word words[kWords];
  memcpy(words, &values, sizeof values);
#pragma unroll
  for (int w = 0; w < kWords; ++w) __stwb(reinterpret_cast<Word*>(p) + w, words[w]);
}

// Adds what a destination holds, where it is one that adds, then stores.
template <int N, class T>
__device__ __forceinline__ void store_or_add(T* p, Pack<T, N> values, bool adds) {
  if (adds) {
    const Pack<T, N> old = load<N>(p);
#pragma unroll
    for (int i = 0; i < N; ++i) values.set(i, old[i] + values[i]);
  }
  store<N>(p, values);
}

// a / b for numbers from 0 up; where both have 32 bits, as nearly always, at a fraction of the cost.
__device__ __forceinline__ index quotient(index a, index b) {
  return (a | b) >> 32 ? a / b : index(unsigned(a) / unsigned(b));
}

// -- flat arrays: f(width, i) for the elements from i on, `width` of them; the grid may have any size

template <int N>
struct Width {
  static constexpr int value = N;
};

template <int VEC, class F>
__device__ __forceinline__ void for_each(index n, F f) {
  const index first = index(blockIdx.x) * kThreads + thread_number(), threads = index(gridDim.x) * kThreads;
  for (index i = first; i < n / VEC; i += threads) f(Width<VEC>{}, i * VEC);
  if (VEC > 1 && first < n % VEC) f(Width<1>{}, n - n % VEC + first);
}

// -- reductions: their order depends on the shape of block and grid alone, so results repeat bit for bit

__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  return x;
}

// The sum over the block, in every thread.
__device__ __forceinline__ double block_sum(double x) {
  __shared__ double of_warp[kWarps];
  x = warp_sum(x);
  __syncthreads();  // of_warp may still be read from the call before
  if (threadIdx.x == 0) of_warp[threadIdx.y] = x;
  __syncthreads();
  double sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += of_warp[w];
  return sum;
}

// Whether this block is the last of `blocks` that share the counter to arrive, in every thread; what the others wrote
// before can then be read by __ldcg. The counter must start at zero, and is zero again afterwards.
__device__ __forceinline__ bool last_to_arrive(unsigned* counter, unsigned blocks) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (thread_number() == 0) last = atomicInc(counter, blocks - 1) == blocks - 1;
  __syncthreads();
  if (last) __threadfence();
  return last;
}

// Sums over the grid: `partial` has room for COUNT values a block. True in the block that has the totals.
template <int COUNT>
__device__ __forceinline__ bool grid_sum(double (&x)[COUNT], double* partial, unsigned* arrivals) {
#pragma unroll
  for (int k = 0; k < COUNT; ++k) x[k] = block_sum(x[k]);
  if (gridDim.x == 1) return true;
  if (thread_number() == 0)
    for (int k = 0; k < COUNT; ++k) partial[index(blockIdx.x) * COUNT + k] = x[k];
  if (!last_to_arrive(arrivals, gridDim.x)) return false;
#pragma unroll
  for (int k = 0; k < COUNT; ++k) {
    double sum = 0;
    for (index b = thread_number(); b < gridDim.x; b += kThreads) sum += __ldcg(partial + b * COUNT + k);
    x[k] = block_sum(sum);
  }
  return true;
}

}  // namespace bnengine
