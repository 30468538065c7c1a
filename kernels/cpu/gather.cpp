// The rows of a micro-batch, out of a data set in memory: rows of bytes, whatever their type, or raw ones of x that are cast
// and scaled on their way.
#include <string.h>

#include "layout.h"
#include "vector.h"

namespace bnengine {
namespace BNENGINE_ISA {
namespace {

constexpr index kAhead = 4;      // rows asked for before their turn, for they lie anywhere
constexpr index kAsked = 1024;   // bytes of a row that are asked for: the processor itself fetches the rest

// Row i of each output is row p = order[cursor[0] + offset + i] of its input, for i in [begin, end); the divisor is
// divisors[cursor[1]]. Row row_of(p) of x goes out by put(i, row), the others as their bytes; weights may be null. `bytes_`
// are those of a row, and `bytes_between` lie from one row of x to the next.
template <class Layout, class RowOf, class Put>
VECTOR void rows_of(const Layout& a, index begin, index end, RowOf row_of, Put put) {
  const char *x = a.x, *target = a.target, *weights = a.weights;
  const index* samples = a.samples;
  char *to_target = a.to_target, *to_weights = a.to_weights;
  index* to_samples = a.to_samples;
  const index bytes = a.bytes_x, targets = a.bytes_target, weighed = a.bytes_weights, between = a.bytes_between;
  const index* chosen = a.order + a.cursor[0] + a.offset;
  for (index i = begin; i < end; ++i) {
    if (i + kAhead < end) {
      const char* next = x + row_of(chosen[i + kAhead]) * between;
      for (index byte = 0; byte < bytes && byte < kAsked; byte += 64) __builtin_prefetch(next + byte);
    }
    const index row = chosen[i];
    put(i, x + row_of(row) * between);
    memcpy(to_target + i * targets, target + row * targets, size_t(targets));
    if (weights) memcpy(to_weights + i * weighed, weights + row * weighed, size_t(weighed));
    to_samples[i] = samples[row];
  }
  const index divisor = a.bytes_divisor;
  if (begin == 0) memcpy(a.to_divisor, a.divisors + a.cursor[1] * divisor, size_t(divisor));
}

void gather(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::Gather a(arguments);
  char* to = a.to_x;
  const index bytes = a.bytes_x;
  rows_of(a, begin, end, [](index p) { return p; },
          [=](index i, const char* row) { memcpy(to + i * bytes, row, size_t(bytes)); });
}

// IEEE's 16 bits, as they lie in memory.
struct Half {
  uint16_t bits;
};

template <class W, class S>
VECTOR W widened(S value) {
  return W(value);
}
// Exact: the bits as those of a float 2^112 times too small, subnormal ones among them; infinity and NaN keep their mantissa.
template <class W>
VECTOR W widened(Half value) {
  const uint32_t magnitude = uint32_t(value.bits & 0x7fff) << 13;
  float small, scaled;
  memcpy(&small, &magnitude, sizeof small);
  scaled = small * 0x1p112f;
  uint32_t bits;
  memcpy(&bits, &scaled, sizeof bits);
  bits = (value.bits & 0x7c00) == 0x7c00 ? magnitude | 0x7f800000u : bits;
  bits |= uint32_t(value.bits & 0x8000) << 16;
  memcpy(&scaled, &bits, sizeof bits);
  return W(scaled);
}

// gather with rows samples[p] of x, of S, as rows of T: (x - mean) inv_scale in double and rounded once, or cast alone where
// mean is null.
template <class S, class T>
void gather_raw(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::GatherRaw a(arguments);
  char* to = a.to_x;
  const double *mean = a.mean, *inv_scale = a.inv_scale;
  const index features = a.bytes_x / index(sizeof(S));
  const index* samples = a.samples;
  rows_of(a, begin, end, [=](index p) { return samples[p]; }, [=](index i, const char* row) {
    const S* __restrict__ x = reinterpret_cast<const S*>(row);
    T* __restrict__ out = reinterpret_cast<T*>(to) + i * features;
    if (mean) {
      for (index j = 0; j < features; ++j) out[j] = T((widened<double>(x[j]) - mean[j]) * inv_scale[j]);
    } else {
      for (index j = 0; j < features; ++j) out[j] = widened<T>(x[j]);
    }
  });
}

}  // namespace

#define RAW(name, S) {"gather_raw<" name ", float>", gather_raw<S, float>}, {"gather_raw<" name ", double>", gather_raw<S, double>}

const Entry* entries() {
  static const Entry table[] = {
      {"gather", gather},
      RAW("u1", uint8_t), RAW("u2", uint16_t), RAW("u4", uint32_t),
      RAW("i1", int8_t), RAW("i2", int16_t), RAW("i4", int32_t), RAW("i8", int64_t),
      RAW("f2", Half), RAW("f4", float), RAW("f8", double),
      {nullptr, nullptr},
  };
  return table;
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
