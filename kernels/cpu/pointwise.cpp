// Element by element: activations and sums over (rows, columns), cut by columns or by rows; arrays brought into order.
#include <string.h>

#include "strips.h"

namespace bnengine {
namespace BNENGINE_ISA {
namespace {

// f(i, n): n consecutive elements from the i-th on, for every run of them that the block has.
template <class F>
VECTOR void each_run(Given& given, index begin, index end, F f) {
  const index rows = given.integer(), columns = given.integer();
  const Region at(rows, columns, given.flag(), begin, end);
  if (at.columns == columns) return f(at.row * columns, at.rows * columns);
  for (index r = 0; r < at.rows; ++r) f(r * columns + at.column, at.columns);
}

// Arrays: x, y. Integers: rows, columns, by columns?. Reals: slope.
template <class T, Activation G>
void activation(const Arguments& arguments, index begin, index end, Worker&) {
  Given given(arguments);
  const T* x = given.array<T>();
  T* y = given.array<T>();
  const T slope = T(given.real());
  each_run(given, begin, end, [&](index from, index n) {
    for (index i = from; i < from + n; ++i) y[i] = activate<G>(x[i], slope);
  });
}

// dx = dy g'(x). Arrays: dy; x and y, of which one that the derivative does not read may be null; dx, which may be dy.
// Integers: rows, columns, by columns?, is dx added to? Reals: slope.
template <class T, Activation G>
void activation_backward(const Arguments& arguments, index begin, index end, Worker&) {
  Given given(arguments);
  const T *dy = given.array<T>(), *x = given.array<T>(), *y = given.array<T>();
  T* dx = given.array<T>();
  const T slope = T(given.real());
  const bool adds = arguments.integers[3] != 0;
  const auto gradient = [&](index i) { return derivative<G>(dy[i], kNeedsY<G> ? y[i] : T(0), kNeedsZ<G> ? x[i] : T(0), slope); };
  each_run(given, begin, end, [&](index from, index n) {
    if (adds)
      for (index i = from; i < from + n; ++i) dx[i] = dx[i] + gradient(i);
    else
      for (index i = from; i < from + n; ++i) dx[i] = gradient(i);
  });
}

// out = a + b, which may be one of them. Arrays: a, b, out. Integers: rows, columns, by columns?, is out added to?
template <class T>
void total(const Arguments& arguments, index begin, index end, Worker&) {
  Given given(arguments);
  const T *a = given.array<T>(), *b = given.array<T>();
  T* out = given.array<T>();
  const bool adds = arguments.integers[3] != 0;
  each_run(given, begin, end, [&](index from, index n) {
    if (adds)
      for (index i = from; i < from + n; ++i) out[i] = out[i] + (a[i] + b[i]);
    else
      for (index i = from; i < from + n; ++i) out[i] = a[i] + b[i];
  });
}

// out = x as T, contiguous, from any strides and any address. Rows [begin, end) of the first axis, or all where the launch is
// one block. Arrays: x, out. Integers: four sizes, four strides in bytes.
template <class S, class T>
void rearranged(const Arguments& arguments, index begin, index end, Worker&) {
  const char* x = static_cast<const char*>(arguments.arrays[0]);
  const index *size = arguments.integers, *stride = size + 4;
  T* out = static_cast<T*>(arguments.arrays[1]) + begin * size[1] * size[2] * size[3];
  for (index i = begin; i < end; ++i)
    for (index j = 0; j < size[1]; ++j)
      for (index k = 0; k < size[2]; ++k) {
        const char* from = x + i * stride[0] + j * stride[1] + k * stride[2];
        for (index l = 0; l < size[3]; ++l, from += stride[3]) {
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
