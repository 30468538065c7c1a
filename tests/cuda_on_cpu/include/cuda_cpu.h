// CUDA C++ on a CPU, for tests: force-included in front of an unmodified .cu file that g++ compiles.
//
// Modeled: thread blocks, shared memory, barriers, warp shuffles and votes, atomics, vector types, 16-bit floating
// types, -ftz=true. Not modeled: weak memory, blocks that run at the same time, inline PTX, tensor cores, asynchronous
// copies.
#pragma once
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define CUDA_ON_CPU 1
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ thread_local  // a local variable that is thread_local is static too
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct __align__(8) uint2 {
  unsigned x, y;
};
struct __align__(16) uint4 {
  unsigned x, y, z, w;
};

struct __align__(16) double2 {
  double x, y;
};
inline double2 make_double2(double x, double y) { return {x, y}; }

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "fibers.h"

static constexpr int warpSize = 32;

inline int cudacpu_width() { return 32; }
inline int cudacpu_width(int width) { return width; }
#define CUDACPU_SHUFFLE(mask, v, source, ...) \
  cudacpu::shuffle(mask, v, cudacpu::within(source, cudacpu_width(__VA_ARGS__)), __LINE__)
#define __shfl_sync(mask, v, lane, ...)                                                                           \
  cudacpu::shuffle(mask, v, (cudacpu::lane() & ~(cudacpu_width(__VA_ARGS__) - 1)) |                               \
                                ((lane) & (cudacpu_width(__VA_ARGS__) - 1)), __LINE__)
#define __shfl_xor_sync(mask, v, x, ...) CUDACPU_SHUFFLE(mask, v, cudacpu::lane() ^ (x), __VA_ARGS__)
#define __shfl_down_sync(mask, v, x, ...) CUDACPU_SHUFFLE(mask, v, cudacpu::lane() + (x), __VA_ARGS__)
#define __shfl_up_sync(mask, v, x, ...) CUDACPU_SHUFFLE(mask, v, cudacpu::lane() - (x), __VA_ARGS__)
#define __syncthreads() cudacpu::barrier(false, __LINE__)
#define __syncthreads_or(p) (cudacpu::barrier(p, __LINE__), cudacpu::B->some_result)
#define __syncthreads_count(p) (cudacpu::barrier(p, __LINE__), cudacpu::B->count_result)
#define __syncthreads_and(p) (cudacpu::barrier(!(p), __LINE__), !cudacpu::B->some_result)
#define __syncwarp() ((void)cudacpu::vote(0xffffffffu, false, __LINE__))
#define __ballot_sync(mask, p) unsigned(cudacpu::vote(mask, p, __LINE__))
#define __any_sync(mask, p) int(cudacpu::vote(mask, p, __LINE__) != 0)
#define __all_sync(mask, p) int((cudacpu::vote(mask, p, __LINE__) & (mask)) == (mask))

inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline unsigned atomicAdd(unsigned* p, unsigned v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
inline unsigned atomicInc(unsigned* p, unsigned last) {
  const unsigned old = *p;
  *p = old >= last ? 0 : old + 1;
  return old;
}

// What the accesses that name their cache came to in a launch.
struct Traffic {
  unsigned long long loads, loaded, stores, stored;  // accesses, and bytes
};
inline Traffic traffic;
extern "C" __attribute__((visibility("default"))) void cudacpu_traffic(Traffic* out) {
  *out = traffic;
  traffic = {};
}

template <class T>
inline T __ldg(const T* p) {
  return *p;
}
template <class T>
inline void __stwb(T* p, T v) {
  ++traffic.stores, traffic.stored += sizeof v;
  *p = v;
}
template <class T>
inline T __ldca(const T* p) {
  ++traffic.loads, traffic.loaded += sizeof *p;
  return *p;
}
template <class T>
inline T __ldcs(const T* p) {
  ++traffic.loads, traffic.loaded += sizeof *p;
  return *p;
}
template <class T>
inline T __ldcg(const T* p) {
  return *p;
}
