// Element by element: activations, sums of two arrays, and copies of strided arrays.
//
// Arrays are (rows, columns), and a block is a range of columns or of rows, whichever matches the other launches of its
// group, so that it finds its data in the cache. No kernel needs scratch, and each element is computed independently.
#include <string.h>

#include "layout.h"
#include "strips.h"

namespace bnengine {
namespace BNENGINE_ISA {
namespace {

// Calls f(i, n) for each contiguous run of n elements, starting at the i-th, of a block.
template <class Layout, class F>
VECTOR void each_run(const Layout& a, index begin, index end, F f) {
  const index columns = a.columns;
  const Region at(a.rows, columns, a.by_columns, begin, end);
  if (at.columns == columns) return f(at.row * columns, at.rows * columns);
  for (index r = 0; r < at.rows; ++r) f(r * columns + at.column, at.columns);
}

template <class T, Activation G>
void activation(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::Activation<T> a(arguments);
  const T* x = a.x;
  T* y = a.y;
  const T slope = T(a.slope);
  each_run(a, begin, end, [&](index from, index n) {
    for (index i = from; i < from + n; ++i) y[i] = activate<G>(x[i], slope);
  });
}

// Computes dx = dy g'(x); with `adds` this is added to dx. x and y may be null if the derivative does not read them; dx
// may be dy.
template <class T, Activation G>
void activation_backward(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::ActivationBackward<T> a(arguments);
  const T *dy = a.dy, *x = a.x, *y = a.y;
  T* dx = a.dx;
  const T slope = T(a.slope);
  const bool adds = a.adds;
  const auto gradient = [&](index i) {
    return derivative<G>(dy[i], kNeedsY<G> ? y[i] : T(0), kNeedsZ<G> ? x[i] : T(0), slope);
  };
  each_run(a, begin, end, [&](index from, index n) {
    if (adds)
      for (index i = from; i < from + n; ++i) dx[i] = dx[i] + gradient(i);
    else
      for (index i = from; i < from + n; ++i) dx[i] = gradient(i);
  });
}

// Computes out = a + b, with `out` possibly one of them; with `adds` this is added to out.
template <class T>
void total(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::Total<T> given(arguments);
  const T *a = given.a, *b = given.b;
  T* out = given.out;
  const bool adds = given.adds;
  each_run(given, begin, end, [&](index from, index n) {
    if (adds)
      for (index i = from; i < from + n; ++i) out[i] = out[i] + (a[i] + b[i]);
    else
      for (index i = from; i < from + n; ++i) out[i] = a[i] + b[i];
  });
}

// Copies x to a contiguous `out` of type T, from four axes with any strides in bytes and any alignment. A block is a
// range of the first axis.
template <class S, class T>
void rearranged(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::Rearranged<T> a(arguments);
  T* out = a.out + begin * a.size_j * a.size_k * a.size_l;
  for (index i = begin; i < end; ++i)
    for (index j = 0; j < a.size_j; ++j)
      for (index k = 0; k < a.size_k; ++k) {
        const char* from = a.x + i * a.stride_i + j * a.stride_j + k * a.stride_k;
        for (index l = 0; l < a.size_l; ++l, from += a.stride_l) {
          S value;
          memcpy(&value, from, sizeof value);
          *out++ = T(value);
        }
      }
}

}  // namespace

#define ENTRIES(T, G)                                           \
  {"activation<" #T ", " #G ">", activation<T, Activation::G>}, \
      {"activation_backward<" #T ", " #G ">", activation_backward<T, Activation::G>},
#define ENTRIES_OF(G, ...) ENTRIES(float, G) ENTRIES(double, G)

const Entry* entries() {
  static const Entry table[] = {
      ACTIVATIONS(ENTRIES_OF)
      {"total<float>", total<float>},
      {"total<double>", total<double>},
      {"rearranged<f4, f4>", rearranged<float, float>},
      {"rearranged<f4, f8>", rearranged<float, double>},
      {"rearranged<f8, f4>", rearranged<double, float>},
      {"rearranged<f8, f8>", rearranged<double, double>},
      {"rearranged<i8, i8>", rearranged<int64_t, int64_t>},
      {"rearranged<i4, i8>", rearranged<int32_t, int64_t>},
      {"rearranged<u1, i8>", rearranged<uint8_t, int64_t>},
      {"rearranged<b1, b1>", rearranged<uint8_t, uint8_t>},
      {nullptr, nullptr},
  };
  return table;
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
