// Losses: the value and the gradient of the network's output in one pass. logits are (rows, classes) in T.
//
// value, divisor and scale, of shape (1,), weights and targets that are no class numbers are in the arithmetic type; any
// of the weights may be null, and so may scale, which multiplies gradients. value may add to what is there. partial has
// room for one double a block.
#include "common.cuh"

namespace bnengine {

// ---- a row is shared by a group of threads: a warp, or for many classes a block

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
    __syncthreads();  // of_warp may still be read from the row before
    if (threadIdx.x == 0) of_warp[threadIdx.y] = x;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < kWarps; ++w) x = x < of_warp[w] ? of_warp[w] : x;
    return x;
  }
};

// What a sum over the grid becomes, in the block that has it.
template <class A>
__device__ __forceinline__ void write_value(double sum, const A* divisor, A* value, bool adds) {
  if (thread_number() == 0) *value = A(sum) / *divisor + (adds ? *value : A(0));
}

// ---- softmax cross-entropy

// The target of class k of a row, smoothed and weighted: from the class's number, or from probabilities.
template <class A>
struct Target {
  A kept, spread, weight;  // 1 - smoothing; smoothing / classes; of the sample
  const A* class_weights;

  __device__ __forceinline__ A operator()(A plain, index k) const {
    const A likely = smoothed(plain, kept, spread);
    return (class_weights ? likely * class_weights[k] : likely) * weight;
  }
};

inline constexpr int kHeldPacks = 4;  // a thread keeps so much of its row in registers; what is beyond is read again

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
    const auto each = [&](auto f) {  // f(logits, class of the first of them)
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

// ---- losses of single outputs

// Rule is BinaryCrossEntropy or SquaredError. A sample's weight counts for all its outputs.
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

// ---- rows classified right

// The place of the largest value, the first of equals; a NaN is larger than any number, as argmax has it.
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

// A warp a row. With one output and targets that are no class numbers, above 0 says 1 and is right above 1/2.
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
