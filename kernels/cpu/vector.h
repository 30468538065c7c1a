// Vectors of the width of the instruction set, with one source for AVX2, AVX-512 and NEON.
//
// GCC's vector types have + - * / and comparisons; this file adds the operations that they lack. Each lane is computed
// like a scalar, so results do not depend on the width.
#pragma once
#include <stddef.h>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#include "kernel.h"

namespace bnengine {
namespace BNENGINE_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kVectorRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32, kVectorRegisters = 16;
#else
constexpr int kVectorBytes = 16, kVectorRegisters = 32;
#endif

template <class T>
constexpr int kLanes = kVectorBytes / int(sizeof(T));

template <class T>
struct VectorOf {
  typedef T Type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vector = typename VectorOf<T>::Type;

#define VECTOR inline __attribute__((always_inline))

template <class T>
VECTOR Vector<T> load(const T* p) {
  Vector<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
VECTOR void store(T* p, Vector<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// Returns a b + c, rounded once.
VECTOR Vector<float> fused(Vector<float> a, Vector<float> b, Vector<float> c);
VECTOR Vector<double> fused(Vector<double> a, Vector<double> b, Vector<double> c);
// Returns a vector with x in every lane.
VECTOR Vector<float> broadcast(float x);
VECTOR Vector<double> broadcast(double x);
// Load and store only the first `count` lanes and access no memory after them. load_part sets the other lanes to 0.
VECTOR Vector<float> load_part(const float* p, int count);
VECTOR Vector<double> load_part(const double* p, int count);
VECTOR void store_part(float* p, Vector<float> v, int count);
VECTOR void store_part(double* p, Vector<double> v, int count);

#if defined(__AVX512F__)

VECTOR Vector<float> fused(Vector<float> a, Vector<float> b, Vector<float> c) { return _mm512_fmadd_ps(a, b, c); }
VECTOR Vector<double> fused(Vector<double> a, Vector<double> b, Vector<double> c) { return _mm512_fmadd_pd(a, b, c); }
VECTOR Vector<float> broadcast(float x) { return _mm512_set1_ps(x); }
VECTOR Vector<double> broadcast(double x) { return _mm512_set1_pd(x); }
VECTOR Vector<float> load_part(const float* p, int count) {
  return _mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), p);
}
VECTOR Vector<double> load_part(const double* p, int count) {
  return _mm512_maskz_loadu_pd(__mmask8((1u << count) - 1), p);
}
VECTOR void store_part(float* p, Vector<float> v, int count) {
  _mm512_mask_storeu_ps(p, __mmask16((1u << count) - 1), v);
}
VECTOR void store_part(double* p, Vector<double> v, int count) {
  _mm512_mask_storeu_pd(p, __mmask8((1u << count) - 1), v);
}

#elif defined(__AVX2__)

VECTOR Vector<float> fused(Vector<float> a, Vector<float> b, Vector<float> c) { return _mm256_fmadd_ps(a, b, c); }
VECTOR Vector<double> fused(Vector<double> a, Vector<double> b, Vector<double> c) { return _mm256_fmadd_pd(a, b, c); }
VECTOR Vector<float> broadcast(float x) { return _mm256_set1_ps(x); }
VECTOR Vector<double> broadcast(double x) { return _mm256_set1_pd(x); }
VECTOR __m256i first_lanes(float, int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
VECTOR __m256i first_lanes(double, int count) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
VECTOR Vector<float> load_part(const float* p, int count) { return _mm256_maskload_ps(p, first_lanes(0.0f, count)); }
VECTOR Vector<double> load_part(const double* p, int count) { return _mm256_maskload_pd(p, first_lanes(0.0, count)); }
VECTOR void store_part(float* p, Vector<float> v, int count) { _mm256_maskstore_ps(p, first_lanes(0.0f, count), v); }
VECTOR void store_part(double* p, Vector<double> v, int count) { _mm256_maskstore_pd(p, first_lanes(0.0, count), v); }

#else

template <class T>
VECTOR Vector<T> any_load_part(const T* p, int count) {
  Vector<T> v = {};
  for (int i = 0; i < kLanes<T>; ++i)
    if (i < count) v[i] = p[i];
  return v;
}
template <class T>
VECTOR void any_store_part(T* p, Vector<T> v, int count) {
  for (int i = 0; i < kLanes<T>; ++i)
    if (i < count) p[i] = v[i];
}
VECTOR Vector<float> load_part(const float* p, int count) { return any_load_part(p, count); }
VECTOR Vector<double> load_part(const double* p, int count) { return any_load_part(p, count); }
VECTOR void store_part(float* p, Vector<float> v, int count) { any_store_part(p, v, count); }
VECTOR void store_part(double* p, Vector<double> v, int count) { any_store_part(p, v, count); }
#if defined(__ARM_NEON)
VECTOR Vector<float> fused(Vector<float> a, Vector<float> b, Vector<float> c) { return vfmaq_f32(c, a, b); }
VECTOR Vector<double> fused(Vector<double> a, Vector<double> b, Vector<double> c) { return vfmaq_f64(c, a, b); }
VECTOR Vector<float> broadcast(float x) { return vdupq_n_f32(x); }
VECTOR Vector<double> broadcast(double x) { return vdupq_n_f64(x); }
#else
#error "kernels/cpu: an instruction set without a fused multiply-add of vectors; add it to vector.h"
#endif

#endif

}  // namespace BNENGINE_ISA
}  // namespace bnengine
