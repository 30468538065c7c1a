// Losses, with value and gradient in one pass, and which rows are classified correctly. Logits are (rows, classes) in
// T.
//
// A block is a range of rows, or of chunks of single outputs. Each row or chunk writes its loss to an array in double,
// and a second launch (`loss_value`) adds them up. Rows and chunks follow from the shape and sums have the fixed order
// of abreast.h, so the value has the same bits on any number of threads. Softmax keeps the exponentials of a row in the
// worker's scratch.
#include "abreast.h"
#include "layout.h"

namespace bnengine {
namespace BNENGINE_ISA {
namespace {

// -- softmax cross-entropy

constexpr double kInfinity = __builtin_inf();

template <class T>
struct CrossEntropy {
  index classes;
  const index* number;     // class of each row, or null
  const T *probabilities;  // of each class, or null
  const T *logits, *class_weights, *sample_weights;  // weights may be null
  T* gradient;
  double* losses;
  T kept, spread, step;  // 1 - smoothing; smoothing / classes; scale / divisor

  VECTOR T weight(index row) const { return sample_weights ? sample_weights[row] : T(1); }
};

// Returns the largest element of a row and ignores NaN. Written with vectors because GCC does not vectorize such a
// loop.
template <class T>
VECTOR T largest_of_row(const T* x, index classes) {
  constexpr int kVectors = kAbreast / kLanes<T>;
  Vector<T> most[kVectors];
  for (int v = 0; v < kVectors; ++v) most[v] = broadcast(-T(kInfinity));
  each_tile(x, classes, -T(kInfinity), [&](const T* tile, index, int) {
    for (int v = 0; v < kVectors; ++v) {
      const Vector<T> here = load(tile + v * kLanes<T>);
      most[v] = most[v] < here ? here : most[v];
    }
  });
  T lane[kAbreast];
  for (int v = 0; v < kVectors; ++v) store(lane + v * kLanes<T>, most[v]);
  return joined(lane, [](T a, T b) { return a < b ? b : a; });
}

// Writes e^(x - largest) for four tiles of a row and adds them to `sums`.
template <class T>
VECTOR void exponentials_of_four(const T* x, T largest, T* e, Sums& sums) {
  constexpr int kNext = kAbreast;
  T sum[kAbreast];
  for (int at = 0; at < kAbreast; at += kLanes<T>) {
    const T* p = x + at;
    const Four<T> four(load(p), load(p + kNext), load(p + 2 * kNext), load(p + 3 * kNext));
    const Four<T> power = functions::exponential_of_negative<T>(four - Four<T>(largest));
    T* to = e + at;
    store(to, power.a), store(to + kNext, power.b), store(to + 2 * kNext, power.c), store(to + 3 * kNext, power.d);
    store(sum + at, (power.a + power.b) + (power.c + power.d));
  }
  for (int l = 0; l < kAbreast; ++l) sums.lane[l] += double(sum[l]);
}

// Writes e^(x - largest) for a row, padded to a multiple of 16, and returns their sum. Meanwhile it prefetches the next
// row, and `y`, where the gradient of this one goes.
template <class T>
VECTOR double exponentials(const T* x, index classes, T largest, T* e, const T* y) {
  Sums sums;
  index first = 0;
  for (; first + 4 * kAbreast <= classes; first += 4 * kAbreast) {
    for (index at = first; at < first + 4 * kAbreast; at += 64 / index(sizeof(T))) {
      __builtin_prefetch(x + classes + at, 0, 3);
      __builtin_prefetch(y + at, 1, 3);
    }
    exponentials_of_four(x + first, largest, e + first, sums);
  }
  each_tile(x + first, classes - first, largest, [&](const T* tile, index at, int count) {
#pragma GCC ivdep
    for (int l = 0; l < kAbreast; ++l) {
      const T power = functions::exponential_of_negative<T>(tile[l] - largest);
      e[first + at + l] = power;
      sums.lane[l] += l < count ? double(power) : 0.0;
    }
  });
  return sums.total();
}

// Writes the gradient of a row whose target is one class of weight `hit`, and returns its loss.
template <class T>
VECTOR double one_class(const CrossEntropy<T>& of, index row, T hit, T largest, T sum, const T* e) {
  const index number = of.number[row];
  const bool there = uint64_t(number) < uint64_t(of.classes);
  const T share = (there ? hit : T(0)) / sum, step = of.step;
  T* y = of.gradient + row * of.classes;
#pragma GCC ivdep
  for (index k = 0; k < of.classes; ++k) y[k] = e[k] * share * step;
  if (!there || hit == 0) return 0;
  y[number] = (e[number] * share - hit) * step;
  return double(hit * (logarithm(sum) - (of.logits[row * of.classes + number] - largest)));
}

// Computes the smoothed and weighted targets of a tile of a row.
template <class T>
VECTOR void targets_of(const CrossEntropy<T>& of, index row, index at, int count, T weight, T (&t)[kAbreast]) {
  T of_class[kAbreast];
  for (int l = 0; l < kAbreast; ++l) of_class[l] = T(1);
  if (of.class_weights) load_tile(of.class_weights + at, count, T(0), of_class);
  if (of.number)
    for (int l = 0; l < kAbreast; ++l) t[l] = at + l == of.number[row] ? T(1) : T(0);
  else
    load_tile(of.probabilities + row * of.classes + at, count, T(0), t);
  for (int l = 0; l < kAbreast; ++l)
    t[l] = l < count ? smoothed(t[l], of.kept, of.spread) * of_class[l] * weight : T(0);
}

// Does the same as one_class for any targets.
template <class T>
VECTOR double all_classes(const CrossEntropy<T>& of, index row, T weight, T largest, T sum, const T* e) {
  Sums targets, surprises;
  T t[kAbreast], y[kAbreast];
  for (index at = 0; at < of.classes; at += kAbreast) {
    targets_of(of, row, at, int(of.classes - at < kAbreast ? of.classes - at : kAbreast), weight, t);
    for (int l = 0; l < kAbreast; ++l) targets.lane[l] += double(t[l]);
  }
  const T share = T(targets.total()) / sum, log_sum = logarithm(sum), step = of.step;
  each_tile(of.logits + row * of.classes, of.classes, T(0), [&](const T* tile, index at, int count) {
    targets_of(of, row, at, count, weight, t);
    for (int l = 0; l < kAbreast; ++l) {
      surprises.lane[l] += t[l] != 0 ? double(t[l] * (log_sum - (tile[l] - largest))) : 0.0;  // 0 log 0 is 0
      y[l] = (e[at + l] * share - t[l]) * step;
    }
    store_tile(y, count, of.gradient + row * of.classes + at);
  });
  return surprises.total();
}

// Computes rows [begin, end) of the gradient, and their losses (rows). Targets are class numbers or probabilities;
// weights and scale may be null. Scratch: a row of T, padded to a multiple of 16.
template <class T>
void softmax_cross_entropy(const Arguments& arguments, index begin, index end, Worker& worker) {
  const layout::SoftmaxCrossEntropy<T> a(arguments);
  CrossEntropy<T> of;
  of.classes = a.classes;
  of.number = a.numbers ? static_cast<const index*>(a.target) : nullptr;
  of.probabilities = a.numbers ? nullptr : static_cast<const T*>(a.target);
  of.logits = a.logits;
  of.class_weights = a.class_weights;
  of.sample_weights = a.sample_weights;
  of.losses = a.losses;
  of.gradient = a.gradient;
  of.kept = T(1 - a.smoothing);
  of.spread = T(a.smoothing / double(of.classes));
  of.step = (a.scale ? *a.scale : T(1)) / *a.divisor;
  T* e = static_cast<T*>(worker.scratch);
  for (index row = begin; row < end; ++row) {
    const T* x = of.logits + row * of.classes;
    const T weight = of.weight(row), largest = largest_of_row(x, of.classes);
    const T sum = T(exponentials(x, of.classes, largest, e, of.gradient + row * of.classes));
    const bool one = of.number && !of.class_weights && of.spread == 0 && weight * 0 == 0;
    of.losses[row] = one ? one_class(of, row, weight, largest, sum, e) : all_classes(of, row, weight, largest, sum, e);
  }
}

// -- losses of single outputs

constexpr index kSome = 256;  // outputs whose weights are expanded at a time

// Computes the losses of chunks [begin, end) and the gradient of their outputs. Scale and sample weights may be null; a
// sample's weight applies to all its outputs.
template <class T, template <class> class Rule>
void elementwise(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::ElementwiseLoss<T> a(arguments);
  const T *p = a.prediction, *t = a.target, *sample_weights = a.sample_weights;
  double* losses = a.losses;
  T* gradient = a.gradient;
  const index outputs = a.outputs, size = a.rows * outputs, chunk = a.chunk;
  const T step = (a.scale ? *a.scale : T(1)) / *a.divisor;
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

// Computes value = sum of losses / divisor, where a null divisor means 1; with `adds` the old value is added.
template <class T>
void loss_value(const Arguments& arguments, index, index, Worker&) {
  const layout::LossValue<T> a(arguments);
  const double* losses = a.losses;
  const T sum = T(sum_abreast(0, a.terms, [losses](index i) { return losses[i]; }));
  *a.value = sum / (a.divisor ? *a.divisor : T(1)) + (a.adds ? *a.value : T(0));
}

// -- correct rows

// Returns whether a row contains NaN.
template <class T>
VECTOR bool has_nan(const T* x, index classes) {
  return sum_abreast(0, classes, [x](index k) { return x[k] == x[k] ? 0.0 : 1.0; }) != 0;
}

// Returns the index of the largest element, the first of equal ones; like argmax, NaN counts as larger than any number.
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

// Returns whether `place` is the index of the largest element, the first of equal ones. False if the row contains NaN
// or `place` is out of range.
template <class T>
bool is_largest(const T* x, index classes, index place) {
  if (uint64_t(place) >= uint64_t(classes)) return false;
  const T largest = x[place];
  int others = 0;
  for (index k = 0; k < place; ++k) others |= !(x[k] < largest);
  for (index k = place; k < classes; ++k) others |= !(x[k] <= largest);
  return !others;
}

// Sets right[row] to 1 or 0 for rows [begin, end). With one output and targets that are not class numbers, an output
// above 0 predicts class 1, and a target above 1/2 is class 1.
template <class T>
void correct(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::Correct<T> a(arguments);
  double* right = a.right;
  const index classes = a.classes;
  for (index row = begin; row < end; ++row) {
    const T* x = a.output + row * classes;
    bool hit;
    if (a.numbers) {
      hit = is_largest(x, classes, static_cast<const index*>(a.target)[row]);
    } else {
      const T* t = static_cast<const T*>(a.target) + row * classes;
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
      {"correct<float>", correct<float>},
      {"correct<double>", correct<double>},
      {nullptr, nullptr},
  };
  return table;
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
