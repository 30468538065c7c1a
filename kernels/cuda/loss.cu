// Losses: each kernel computes the value and the gradient with respect to the network's output. logits are (rows,
// classes) in T.
//
// value, divisor and scale are scalars in device memory, of shape (1,). These, the weights, and targets other than
// class numbers have the arithmetic type. Weights and scale may be null; scale multiplies the gradients. With `adds`
// the value is added to the stored one. partial has one double per block, and the last block to arrive writes the
// value.
#include "common.cuh"

namespace bnengine {

// ---- groups: the threads that share a row, a warp or (if a row has many classes) a block

template <int GROUP>
struct Group {
  static constexpr int kPerBlock = kThreads / GROUP;
  __device__ __forceinline__ static int rank() { return GROUP == kLanes ? int(threadIdx.x) : thread_number(); }
  __device__ __forceinline__ static index first_row() {
    return index(blockIdx.x) * kPerBlock + (GROUP == kLanes ? int(threadIdx.y) : 0);
  }
  __device__ __forceinline__ static double sum(double x) { return GROUP == kLanes ? warp_sum(x) : block_sum(x); }

  template <class A>
  __device__ __forceinline__ static A max(A x) {
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2) {
      const A other = __shfl_xor_sync(kAllLanes, x, distance);
      x = x < other ? other : x;
    }
    if (GROUP == kLanes) return x;
    __shared__ A of_warp[kWarps];
    __syncthreads();  // threads may still read of_warp for the previous row
    if (threadIdx.x == 0) of_warp[threadIdx.y] = x;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < kWarps; ++w) x = x < of_warp[w] ? of_warp[w] : x;
    return x;
  }
};

// Writes the loss, sum / divisor; runs in the block that has the sum over the grid.
template <class A>
__device__ __forceinline__ void write_value(double sum, const A* divisor, A* value, bool adds) {
  if (thread_number() == 0) *value = A(sum) / *divisor + (adds ? *value : A(0));
}

// ---- softmax cross-entropy

// The target of class k of a row, smoothed and weighted. `plain` is a probability, or 1 for the row's class and else 0.
template <class A>
struct Target {
  A kept, spread, weight;  // 1 - smoothing; smoothing / classes; the sample's weight
  const A* class_weights;

  __device__ __forceinline__ A operator()(A plain, index k) const {
    const A likely = smoothed(plain, kept, spread);
    return (class_weights ? likely * class_weights[k] : likely) * weight;
  }
};

inline constexpr int kHeldPacks = 4;  // packs of its row that a thread keeps in registers; it reads the rest again

// softmax_cross_entropy: value = sum over the rows of -t log softmax(logits), over the divisor; dlogits is its
// gradient.
//
// Flat grid, block (32, 8). A warp takes a row (GROUP = 32), or a block does (GROUP = 256) if a warp's registers cannot
// hold the classes. Three passes over the row: maximum, sum of exponentials, loss and gradient. A thread keeps its
// first kHeldPacks packs in registers between passes, so logits are read once unless a row is longer than that. target
// is a class number per row (Y = index) or a row of probabilities. Sums across threads are in double and in a fixed
// order.
template <class T, int VEC, int GROUP, class Y>
__global__ void __launch_bounds__(kThreads, VEC == 8 || sizeof(T) == 8 ? 1 : 2)
    softmax_cross_entropy(PARAMETERS_softmax_cross_entropy) {
  using A = Arithmetic<T>;
  using G = Group<GROUP>;
  constexpr bool kNumbers = kSame<Y, index>;  // targets are class numbers
  constexpr index kStep = GROUP * VEC, kHeldEnd = kHeldPacks * kStep;
  const A count = *divisor, factor = scale ? *scale : A(1);
  double loss[1] = {0};
  for (index row = G::first_row(); row < rows; row += index(gridDim.x) * G::kPerBlock) {
    const T* x = logits + row * classes;
    const index begin = G::rank() * VEC;
    const Target<A> target_of = {A(1 - label_smoothing), A(label_smoothing / classes),
                                 sample_weights ? sample_weights[row] : A(1), class_weights};
    Pack<T, VEC> held[kHeldPacks];
#pragma unroll
    for (int h = 0; h < kHeldPacks; ++h)
      if (begin + h * kStep < classes) held[h] = load<VEC>(x + begin + h * kStep);
    const auto each = [&](auto f) {  // f(logits, the first one's class)
#pragma unroll
      for (int h = 0; h < kHeldPacks; ++h)
        if (begin + h * kStep < classes) f(held[h], begin + h * kStep);
      for (index k = begin + kHeldEnd; k < classes; k += kStep) f(load<VEC>(x + k), k);
    };
    const auto targets = [&](index k, A(&t)[VEC]) {
      if constexpr (kNumbers) {
#pragma unroll
        for (int v = 0; v < VEC; ++v) t[v] = target_of(A(target[row] == k + v), k + v);
      } else {
        const Pack<Y, VEC> given = load<VEC>(target + row * classes + k);
#pragma unroll
        for (int v = 0; v < VEC; ++v) t[v] = target_of(given[v], k + v);
      }
    };

    A largest = widened(x[0]);
    each([&](const Pack<T, VEC>& l, index) {
#pragma unroll
      for (int v = 0; v < VEC; ++v) largest = largest < l[v] ? l[v] : largest;
    });
    largest = G::max(largest);

    double total = 0, weight = 0;
    each([&](const Pack<T, VEC>& l, index k) {
      A t[VEC], e = 0, w = 0;
      targets(k, t);
#pragma unroll
      for (int v = 0; v < VEC; ++v) e += exponential(l[v] - largest), w += t[v];
      total += e, weight += w;
    });
    const A sum = A(G::sum(total)), target_sum = A(G::sum(weight)), log_sum = logarithm(sum);

    each([&](const Pack<T, VEC>& l, index k) {
      A t[VEC], surprise = 0;
      targets(k, t);
      Pack<T, VEC> gradient;
#pragma unroll
      for (int v = 0; v < VEC; ++v) {
        const A s = l[v] - largest;
        if (t[v] != 0) surprise += t[v] * (log_sum - s);  // 0 log 0 is 0
        gradient.set(v, (exponential(s) / sum * target_sum - t[v]) / count * factor);
      }
      loss[0] += surprise;
      store<VEC>(dlogits + row * classes + k, gradient);
    });
  }
  if (grid_sum(loss, partial, arrivals)) write_value(loss[0], divisor, value, adds);
}

// ---- elementwise losses

// elementwise_loss: value = sum of rule.value(prediction, target) over the divisor; gradient is its gradient.
//
// Rule is BinaryCrossEntropy or SquaredError (kernels/rules.h). Flat grid, block (32, 8); reads prediction and target
// once as flat arrays (rows * outputs) and writes gradient. A sample's weight applies to all its outputs.
template <class T, int VEC, template <class> class Rule>
__global__ void __launch_bounds__(kThreads, 2) elementwise_loss(PARAMETERS_elementwise_loss) {
  using A = Arithmetic<T>;
  const Rule<A> rule;
  const A count = *divisor, factor = scale ? *scale : A(1);
  double loss[1] = {0};
  for_each<VEC>(rows * outputs, [&](auto width, index i) {
    constexpr int N = decltype(width)::value;
    const Pack<T, N> p = load<N>(prediction + i);
    const Pack<A, N> t = load<N>(target + i);
    Pack<T, N> slope;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const A weight = sample_weights ? sample_weights[quotient(i + k, outputs)] : A(1);
      loss[0] += rule.value(p[k], t[k]) * weight;
      slope.set(k, rule.slope(p[k], t[k]) * weight / count * factor);
    }
    store<N>(gradient + i, slope);
  });
  if (grid_sum(loss, partial, arrivals)) write_value(loss[0], divisor, value, adds);
}

// ---- correctly classified rows

// Tracks the largest value and its index as NumPy's argmax does: the first of equal values, and NaN above any number.
template <class A>
struct Place {
  A value;
  index at;
  __device__ __forceinline__ void take(A other, index there) {
    const bool better = other != other ? value == value : other > value;
    const bool equal = other == value || (other != other && value != value);
    if (better || (equal && there < at)) value = other, at = there;
  }
};

// Returns the largest value of a row and its index, in every lane of the warp.
template <class T>
__device__ __forceinline__ Place<Arithmetic<T>> largest_of(const T* row, index classes) {
  Place<Arithmetic<T>> best = {widened(row[0]), 0};
  for (index k = threadIdx.x; k < classes; k += kLanes) best.take(widened(row[k]), k);
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    const Arithmetic<T> value = __shfl_xor_sync(kAllLanes, best.value, distance);
    best.take(value, __shfl_xor_sync(kAllLanes, best.at, distance));
  }
  return best;
}

// correct: *out = number of rows whose prediction is correct; a row with a NaN as its maximum never is.
//
// Flat grid, block (32, 8), one warp per row. The prediction is the largest output. With one output per row and targets
// other than class numbers it is binary: an output above 0 predicts 1, and a target above 1/2 means 1.
template <class T, class Y>
__global__ void __launch_bounds__(kThreads, 2) correct(PARAMETERS_correct) {
  using A = Arithmetic<T>;
  constexpr bool kNumbers = kSame<Y, index>;
  double right[1] = {0};
  for (index row = Group<kLanes>::first_row(); row < rows; row += index(gridDim.x) * kWarps) {
    const Place<A> best = largest_of(output + row * classes, classes);
    bool hit;
    if constexpr (kNumbers) {
      hit = best.at == target[row];
    } else if (classes == 1) {
      hit = (best.value > 0) == (widened(target[row]) > A(0.5));
    } else {
      hit = best.at == largest_of(target + row * classes, classes).at;
    }
    if (threadIdx.x == 0) right[0] += hit && best.value == best.value;
  }
  if (grid_sum(right, partial, arrivals) && thread_number() == 0) *out = right[0] + (adds ? *out : 0.0);
}

}  // namespace bnengine
