// Dropout: the mask is Philox of (seed, layer, step, sample's index in the data set, feature), never of a position. Arrays
// are (rows, features), cut by columns or by rows.
#include "strips.h"

namespace bnengine {
namespace BNENGINE_ISA {
namespace {

constexpr int kFeatures = 4;  // of a counter: its four words
constexpr int kCounters = 16;

struct Key {
  unsigned low, high, step, layer;
};

// The words of kCounters counters of a sample, from `first` on, as they follow each other.
VECTOR void draw(unsigned first, unsigned sample, const Key& key, unsigned (&random)[kCounters * kFeatures]) {
  unsigned words[kFeatures][kCounters];
  for (int i = 0; i < kCounters; ++i) {
    const Words drawn = philox({{first + unsigned(i), sample, key.step, key.layer}}, key.low, key.high);
    words[0][i] = drawn.word[0], words[1][i] = drawn.word[1], words[2][i] = drawn.word[2], words[3][i] = drawn.word[3];
  }
  for (int i = 0; i < kCounters; ++i)
    for (int k = 0; k < kFeatures; ++k) random[i * kFeatures + k] = words[k][i];
}

// y = x / (1 - rate) where kept, else 0. Arrays: step (1), samples (rows), x, y, keep. Integers: rows, features, by columns?,
// the seed's low and high word, layer, threshold. Reals: rate.
template <class T>
void dropout(const Arguments& arguments, index begin, index end, Worker&) {
  Given given(arguments);
  const index *step = given.array<index>(), *samples = given.array<index>();
  const T* x = given.array<T>();
  T* y = given.array<T>();
  bool* keep = given.array<bool>();
  const index rows = given.integer(), features = given.integer();
  const Region at(rows, features, given.flag(), begin, end);
  Key key;
  key.low = unsigned(given.integer()), key.high = unsigned(given.integer());
  key.step = unsigned(*step), key.layer = unsigned(given.integer());
  const index threshold = given.integer();  // at most 2^32, which no word reaches
  const T share = T(1 - given.real());
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

// dx = dy / (1 - rate) where kept, else 0. Arrays: dy, keep, dx, which may be dy. Integers: rows, features, by columns?, is
// dx added to? Reals: rate.
template <class T>
void dropout_backward(const Arguments& arguments, index begin, index end, Worker&) {
  Given given(arguments);
  const T* dy = given.array<T>();
  const bool* keep = given.array<bool>();
  T* dx = given.array<T>();
  const index rows = given.integer(), features = given.integer();
  const Region at(rows, features, given.flag(), begin, end);
  const bool adds = given.flag();
  const T share = T(1 - given.real());
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
