// Shared by all kernels: storage types, 16-byte access, block shape, reductions in a fixed order.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../rules.h"
#include "layout.cuh"

extern __shared__ __align__(16) unsigned char dynamic_shared[];

namespace bnengine {

using index = long long;

// Every block is (32 lanes, 8 warps): threadIdx.x is the lane, threadIdx.y the warp.
constexpr int kLanes = 32, kWarps = 8, kThreads = kLanes * kWarps;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ int thread_number() { return threadIdx.y * kLanes + threadIdx.x; }

// -- storage types and their arithmetic types: double for double, float for float, half and bfloat16

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

// N consecutive elements, read and written 16 bytes at a time, or in one access if they are smaller. Their address must
// be a multiple of that access.
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
  T element[N];
  __device__ __forceinline__ Arithmetic<T> operator[](int i) const {
    if constexpr (kSame<T, __nv_bfloat16> && N % 2 == 0) {  // extracting from pairs keeps two in one register
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

// Load and store N elements of global memory. The intrinsics keep each access 16 bytes wide: the compiler splits plain
// assignments where a branch needs one element, or in loops. LAST marks data that no launch reads again soon, which the
// caches may evict first.
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

// Stores the values, or with `adds` adds them to the stored ones.
template <int N, class T>
__device__ __forceinline__ void store_or_add(T* p, Pack<T, N> values, bool adds) {
  if (adds) {
    const Pack<T, N> old = load<N>(p);
#pragma unroll
    for (int i = 0; i < N; ++i) values.set(i, old[i] + values[i]);
  }
  store<N>(p, values);
}

// a / b for a >= 0 and b > 0. If both fit in 32 bits, as nearly always, it uses the much cheaper 32-bit division.
__device__ __forceinline__ index quotient(index a, index b) {
  return (a | b) >> 32 ? a / b : index(unsigned(a) / unsigned(b));
}

// -- flat arrays
//
// for_each calls f(width, i) for the elements [i, i + width): VEC of them, then single ones at the end. It is a
// grid-stride loop, so that a "flat grid" is one-dimensional and may have any size.

// The width as a type, so that f can use it as a template argument.
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

// -- reductions: their order depends only on the shapes of block and grid, so results repeat bit for bit

// Returns the sum over the warp, in every lane.
__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  return x;
}

// Returns the sum over the block, in every thread.
__device__ __forceinline__ double block_sum(double x) {
  __shared__ double of_warp[kWarps];
  x = warp_sum(x);
  __syncthreads();  // threads may still read of_warp for the previous call
  if (threadIdx.x == 0) of_warp[threadIdx.y] = x;
  __syncthreads();
  double sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += of_warp[w];
  return sum;
}

// Returns, in every thread, whether this block is the last of the `blocks` that share the counter to arrive. The last
// block may read with __ldcg what the others wrote before (past L1, which is not coherent). The counter must start at
// zero and is zero again afterward, so no launch has to reset it.
__device__ __forceinline__ bool last_to_arrive(unsigned* counter, unsigned blocks) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (thread_number() == 0) last = atomicInc(counter, blocks - 1) == blocks - 1;
  __syncthreads();
  if (last) __threadfence();
  return last;
}

// Sums COUNT values over a one-dimensional grid. `partial` has room for COUNT values per block. Returns true only in
// the last block to arrive, whose x then holds the totals.
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
