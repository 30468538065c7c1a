// Dropout, forward and backward. Arrays are (rows, features); a block is a range of columns or of rows.
//
// Whether an element is kept is a Philox random number of (seed, layer, step, the sample's index in the data set,
// feature). It does not depend on the row's position in the batch, so the mask is the same however a batch is cut.
#include "layout.h"
#include "strips.h"

namespace bnengine {
namespace BNENGINE_ISA {
namespace {

constexpr int kFeatures = 4;  // per Philox counter: one for each of its four words
constexpr int kCounters = 16;

struct Key {
  unsigned low, high, step, layer;
};

// Draws the words of kCounters consecutive counters of a sample, starting at `first`, in order.
VECTOR void draw(unsigned first, unsigned sample, const Key& key, unsigned (&random)[kCounters * kFeatures]) {
  unsigned words[kFeatures][kCounters];
  for (int i = 0; i < kCounters; ++i) {
    const Words drawn = philox({{first + unsigned(i), sample, key.step, key.layer}}, key.low, key.high);
    words[0][i] = drawn.word[0], words[1][i] = drawn.word[1], words[2][i] = drawn.word[2], words[3][i] = drawn.word[3];
  }
  for (int i = 0; i < kCounters; ++i)
    for (int k = 0; k < kFeatures; ++k) random[i * kFeatures + k] = words[k][i];
}

// Computes y = x / (1 - rate) where kept, else 0. step is (1,), samples (rows,).
template <class T>
void dropout(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::Dropout<T> a(arguments);
  const index* samples = a.samples;
  const T* x = a.x;
  T* y = a.y;
  bool* keep = a.keep;
  const index features = a.features;
  const Region at(a.rows, features, a.by_columns, begin, end);
  const Key key{unsigned(a.seed_low), unsigned(a.seed_high), unsigned(*a.step), unsigned(a.layer)};
  const index threshold = a.threshold;  // 2^32 drops everything: no word reaches it
  const T share = T(1 - a.rate);
  constexpr index kDrawn = kCounters * kFeatures;
  for (index row = at.row; row < at.row + at.rows; ++row)
    for (index column = at.column; column < at.column + at.columns; column += kDrawn) {
      unsigned random[kDrawn];
      draw(unsigned(column / kFeatures), unsigned(samples[row]), key, random);
      const index first = row * features + column, some = least(kDrawn, at.column + at.columns - column);
      for (index i = 0; i < some; ++i) {
        const bool kept = index(random[i]) >= threshold;
        keep[first + i] = kept;
        y[first + i] = kept ? x[first + i] / share : T(0);
      }
    }
}

// Computes dx = dy / (1 - rate) where kept, else 0; with `adds` this is added to dx. dx may be dy.
template <class T>
void dropout_backward(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::DropoutBackward<T> a(arguments);
  const T* dy = a.dy;
  const bool* keep = a.keep;
  T* dx = a.dx;
  const index features = a.features;
  const Region at(a.rows, features, a.by_columns, begin, end);
  const bool adds = a.adds;
  const T share = T(1 - a.rate);
  const bool whole = at.columns == features;
  const index runs = whole ? 1 : at.rows, length = whole ? at.rows * features : at.columns;
  for (index r = 0; r < runs; ++r) {
    const index from = (at.row + r) * features + at.column;
    for (index i = from; i < from + length; ++i) {
      const T own = keep[i] ? dy[i] / share : T(0);
      dx[i] = adds ? dx[i] + own : own;
    }
  }
}

}  // namespace

const Entry* entries() {
  static const Entry table[] = {
      {"dropout<float>", dropout<float>},
      {"dropout<double>", dropout<double>},
      {"dropout_backward<float>", dropout_backward<float>},
      {"dropout_backward<double>", dropout_backward<double>},
      {nullptr, nullptr},
  };
  return table;
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
