// gather and gather_raw: copy the rows of a micro-batch from a data set in memory.
//
// gather copies bytes, whatever their type; gather_raw also casts rows of x and scales them. A block is a range of the
// micro-batch's rows. The cursor that selects the rows is in memory, so a recorded step reads new rows at each run.
#include <string.h>

#include "layout.h"
#include "vector.h"

namespace bnengine {
namespace BNENGINE_ISA {
namespace {

constexpr index kAhead = 4;      // rows to prefetch ahead, since they are at random addresses
constexpr index kAsked = 1024;   // bytes of a row to prefetch; the hardware prefetches the rest

// For i in [begin, end), row i of each output is row p = order[cursor[0] + offset + i] of its input; to_divisor is
// divisors[cursor[1]]. put(i, row) writes row row_of(p) of x; rows of the other arrays are copied as bytes. `weights`
// may be null. `bytes_x`, `bytes_target` and `bytes_weights` are the sizes of a row; `bytes_between` is the stride of
// the rows of x.
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

// An IEEE binary16 number.
struct Half {
  uint16_t bits;
};

template <class W, class S>
VECTOR W widened(S value) {
  return W(value);
}
// Converts exactly. Shifted by 13, the exponent and mantissa are those of a float that is 2^112 times too small, also
// for subnormal numbers. Infinity and NaN keep their mantissa.
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

// Does the same as gather, but row i of x is samples[p], of type S, and is written in type T: as (x - mean) inv_scale,
// computed in double and rounded once, or only cast if mean is null.
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

#define RAW(name, S)                                     \
  {"gather_raw<" name ", float>", gather_raw<S, float>}, \
      {"gather_raw<" name ", double>", gather_raw<S, double>}

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
