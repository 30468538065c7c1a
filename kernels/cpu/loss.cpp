// Losses, value and gradient in one pass, and the rows classified right. Logits are (rows, classes).
//
// The losses of rows, or of chunks of outputs, go into an ordinary array in double, and another launch sums it up: rows and
// chunks follow from the shape alone. Rows are read again from the first-level cache: for their largest logit, for the sum
// of exponentials, for the gradient.
#include "abreast.h"

namespace bnengine {
namespace BNENGINE_ISA {
namespace {

// -- softmax cross-entropy

template <class T>
VECTOR T largest_of(const T (&lane)[kAbreast]) {
  T rest[kAbreast];
  for (int l = 0; l < kAbreast; ++l) rest[l] = lane[l];
  for (int half = kAbreast / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) rest[l] = rest[l] < rest[l + half] ? rest[l + half] : rest[l];
  return rest[0];
}

constexpr double kInfinity = __builtin_inf();

// The largest of a row without NaN.
template <class T>
VECTOR T largest_of_row(const T* x, index classes) {
  T lane[kAbreast];
  for (int l = 0; l < kAbreast; ++l) lane[l] = -T(kInfinity);
  each_tile(x, classes, -T(kInfinity), [&](const T* tile, index, int) {
    for (int l = 0; l < kAbreast; ++l) lane[l] = lane[l] < tile[l] ? tile[l] : lane[l];
  });
  return largest_of(lane);
}

// A row's exponentials, e^(x - largest), into y; their sum.
template <class T>
VECTOR double exponentials(const T* x, index classes, T largest, T* y) {
  Sums sums;
  map_tiles(x, y, classes, -T(kInfinity), [&](const T* tile, T* made, index, int count) {
#pragma GCC ivdep
    for (int l = 0; l < kAbreast; ++l) {
      const T e = l < count ? exponential(tile[l] - largest) : T(0);
      made[l] = e;
      sums.lane[l] += double(e);
    }
  });
  return sums.total();
}

// The targets of a row of all classes, smoothed and weighted.
template <class T>
struct Targets {
  index number;            // of the class, where there are no probabilities
  const T *probabilities;  // or null
  const T *class_weights;  // or null
  T kept, spread, weight;  // 1 - smoothing; smoothing / classes; of the sample

  VECTOR void tile(index at, int count, T (&t)[kAbreast]) const {
    if (probabilities)
      load_tile(probabilities + at, count, T(0), t);
    else
      for (int l = 0; l < kAbreast; ++l) t[l] = at + l == number ? T(1) : T(0);
    for (int l = 0; l < kAbreast; ++l) t[l] = smoothed(t[l], kept, spread);
    if (class_weights) {
      T of_class[kAbreast];
      load_tile(class_weights + at, count, T(0), of_class);
      for (int l = 0; l < kAbreast; ++l) t[l] *= of_class[l];
    }
    for (int l = 0; l < kAbreast; ++l) t[l] = l < count ? t[l] * weight : T(0);
  }
};

// A row whose target is one class of weight `hit`: the gradient for e^(x - largest), which is in y; the loss.
template <class T>
VECTOR double one_class(const T* x, index classes, index number, T hit, T largest, T sum, T step, T* y) {
  const bool there = uint64_t(number) < uint64_t(classes);
  const T target_sum = there ? hit : T(0), share = target_sum / sum, e = there ? y[number] : T(0);
#pragma GCC ivdep
  for (index k = 0; k < classes; ++k) y[k] = y[k] * share * step;
  if (!there || hit == 0) return 0;
  y[number] = (e * share - hit) * step;
  return double(hit * (logarithm(sum) - (x[number] - largest)));
}

// The same for any targets.
template <class T>
VECTOR double all_classes(const T* x, index classes, const Targets<T>& targets, T largest, T sum, T step, T* y) {
  Sums weights, surprises;
  T t[kAbreast];
  for (index at = 0; at < classes; at += kAbreast) {
    targets.tile(at, int(classes - at < kAbreast ? classes - at : kAbreast), t);
    for (int l = 0; l < kAbreast; ++l) weights.lane[l] += double(t[l]);
  }
  const T share = T(weights.total()) / sum, log_sum = logarithm(sum);
  each_tile(x, classes, T(0), [&](const T* tile, index at, int count) {
    T g[kAbreast], of_class[kAbreast];
    targets.tile(at, count, of_class);
    load_tile(y + at, count, T(0), g);
    for (int l = 0; l < kAbreast; ++l) {
      const T target = of_class[l];
      surprises.lane[l] += target != 0 ? double(target * (log_sum - (tile[l] - largest))) : 0.0;  // 0 log 0 is 0
      g[l] = (g[l] * share - target) * step;
    }
    store_tile(g, count, y + at);
  });
  return surprises.total();
}

// Rows [begin, end) of the gradient, and their losses. Arrays: class weights or null, normaliser, scale or null; logits,
// target, sample weights or null; losses (rows), gradient. Integers: classes, whether targets are class numbers, else
// probabilities. Reals: label smoothing.
template <class T>
void softmax_cross_entropy(const Arguments& a, index begin, index end, Worker&) {
  const T *class_weights = static_cast<const T*>(a.arrays[0]), *scale = static_cast<const T*>(a.arrays[2]);
  const T *logits = static_cast<const T*>(a.arrays[3]), *sample_weights = static_cast<const T*>(a.arrays[5]);
  const bool numbers = a.integers[1] != 0;
  const index classes = a.integers[0], *number = numbers ? static_cast<const index*>(a.arrays[4]) : nullptr;
  const T* probabilities = numbers ? nullptr : static_cast<const T*>(a.arrays[4]);
  double* losses = static_cast<double*>(a.arrays[6]);
  T* gradient = static_cast<T*>(a.arrays[7]);
  const T step = (scale ? *scale : T(1)) / *static_cast<const T*>(a.arrays[1]);
  const T kept = T(1 - a.reals[0]), spread = T(a.reals[0] / double(classes));
  for (index row = begin; row < end; ++row) {
    const T* x = logits + row * classes;
    T* y = gradient + row * classes;
    const T weight = sample_weights ? sample_weights[row] : T(1);
    const T largest = largest_of_row(x, classes), sum = T(exponentials(x, classes, largest, y));
    const bool one = numbers && !class_weights && spread == 0 && weight * 0 == 0;
    losses[row] =
        one ? one_class(x, classes, number[row], weight, largest, sum, step, y)
            : all_classes(x, classes,
                          {numbers ? number[row] : 0, numbers ? nullptr : probabilities + row * classes, class_weights, kept,
                           spread, weight},
                          largest, sum, step, y);
  }
}

// -- losses of single outputs

constexpr index kSome = 256;  // outputs whose weights are laid out at once

// Losses of chunks [begin, end), and the gradient of their outputs. Arrays: normaliser, scale or null; prediction, target,
// sample weights or null; losses (chunks), gradient. Integers: rows, outputs of a row, outputs of a chunk. A sample's weight
// counts for all its outputs.
template <class T, template <class> class Rule>
void elementwise(const Arguments& a, index begin, index end, Worker&) {
  const T *scale = static_cast<const T*>(a.arrays[1]), *p = static_cast<const T*>(a.arrays[2]);
  const T *t = static_cast<const T*>(a.arrays[3]), *sample_weights = static_cast<const T*>(a.arrays[4]);
  double* losses = static_cast<double*>(a.arrays[5]);
  T* gradient = static_cast<T*>(a.arrays[6]);
  const index outputs = a.integers[1], size = a.integers[0] * outputs, chunk = a.integers[2];
  const T step = (scale ? *scale : T(1)) / *static_cast<const T*>(a.arrays[0]);
  const Rule<T> rule;
  for (index c = begin; c < end; ++c) {
    const index last = (c + 1) * chunk < size ? (c + 1) * chunk : size;
    double sum = 0;
    for (index first = c * chunk; first < last; first += kSome) {
      const index count = last - first < kSome ? last - first : kSome;
      T weights[kSome];
      if (!sample_weights)
        for (index i = 0; i < kSome; ++i) weights[i] = T(1);
      else if (outputs == 1)
        for (index i = 0; i < count; ++i) weights[i] = sample_weights[first + i];
      else
        for (index i = 0; i < count; ++i) weights[i] = sample_weights[(first + i) / outputs];
#pragma GCC ivdep
      for (index i = first; i < first + count; ++i) gradient[i] = rule.slope(p[i], t[i]) * weights[i - first] * step;
      sum += sum_abreast(first, first + count,
                         [&](index i) { return double(rule.value(p[i], t[i]) * weights[i - first]); });
    }
    losses[c] = sum;
  }
}

// value = the sum of the losses / normaliser, to which the old value may be added. Arrays: normaliser or null for 1, losses,
// value. Integers: losses, whether the old value is added.
template <class T>
void loss_value(const Arguments& a, index, index, Worker&) {
  const T* normaliser = static_cast<const T*>(a.arrays[0]);
  const double* losses = static_cast<const double*>(a.arrays[1]);
  T* value = static_cast<T*>(a.arrays[2]);
  const T sum = T(sum_abreast(0, a.integers[0], [losses](index i) { return losses[i]; }));
  *value = sum / (normaliser ? *normaliser : T(1)) + (a.integers[1] ? *value : T(0));
}

// -- rows classified right

// Whether a row has a NaN.
template <class T>
VECTOR bool has_nan(const T* x, index classes) {
  return sum_abreast(0, classes, [x](index k) { return x[k] == x[k] ? 0.0 : 1.0; }) != 0;
}

// The place of the largest of a row, the first of equals; a NaN is larger than any number, as argmax has it.
template <class T>
index place_of_largest(const T* x, index classes) {
  index k = 0;
  if (has_nan(x, classes)) {
    while (x[k] == x[k]) ++k;
    return k;
  }
  const T largest = largest_of_row(x, classes);
  while (x[k] != largest) ++k;
  return k;
}

// Whether `place` is that of the largest of a row, of equals the first; no place is where there is a NaN.
template <class T>
bool is_largest(const T* x, index classes, index place) {
  if (uint64_t(place) >= uint64_t(classes) || x[place] != largest_of_row(x, classes) || has_nan(x, classes)) return false;
  const T largest = x[place];
  return sum_abreast(0, place, [=](index k) { return x[k] == largest ? 1.0 : 0.0; }) == 0;
}

// right[row] = 1 or 0, for rows [begin, end). Arrays: output, target, right (rows). Integers: classes, whether targets are
// class numbers. With one output and targets that are none, above 0 says 1 and is right above 1/2.
template <class T>
void hits(const Arguments& a, index begin, index end, Worker&) {
  const T* output = static_cast<const T*>(a.arrays[0]);
  double* right = static_cast<double*>(a.arrays[2]);
  const index classes = a.integers[0];
  for (index row = begin; row < end; ++row) {
    const T* x = output + row * classes;
    bool hit;
    if (a.integers[1]) {
      hit = is_largest(x, classes, static_cast<const index*>(a.arrays[1])[row]);
    } else {
      const T* t = static_cast<const T*>(a.arrays[1]) + row * classes;
      hit = classes == 1 ? (*x > 0) == (*t > T(0.5)) && *x == *x : is_largest(x, classes, place_of_largest(t, classes));
    }
    right[row] = hit;
  }
}

}  // namespace

const Entry* entries() {
  static const Entry table[] = {
      {"softmax_cross_entropy<float>", softmax_cross_entropy<float>},
      {"softmax_cross_entropy<double>", softmax_cross_entropy<double>},
      {"elementwise_loss<float, BinaryCrossEntropy>", elementwise<float, BinaryCrossEntropy>},
      {"elementwise_loss<double, BinaryCrossEntropy>", elementwise<double, BinaryCrossEntropy>},
      {"elementwise_loss<float, SquaredError>", elementwise<float, SquaredError>},
      {"elementwise_loss<double, SquaredError>", elementwise<double, SquaredError>},
      {"loss_value<float>", loss_value<float>},
      {"loss_value<double>", loss_value<double>},
      {"hits<float>", hits<float>},
      {"hits<double>", hits<double>},
      {nullptr, nullptr},
  };
  return table;
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
