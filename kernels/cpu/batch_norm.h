// What the forward and backward passes of batch normalization share: the moments of a range of rows, and the constants
// that normalize a channel.
//
// All functions process strips of columns; arrays of constants and sums are in the worker's scratch. The order of sums
// is fixed: kHeld rows at a time are summed in T about their own mean, and these moments are merged in double, from the
// first row to the last. A large mean does not cancel, and an outlier costs no precision elsewhere.
#pragma once
#include "strips.h"

namespace bnengine {
namespace BNENGINE_ISA {

constexpr int kHeld = 16;  // rows that are summed about their own mean
constexpr double kFloatLeast = 1e-29, kFloatMost = 1e30;  // outside, float squares may under- or overflow

// -- statistics

// The moments of the rows so far, for some columns: the number of rows, their mean minus `pivot`, and the sum of
// squared differences from that mean.
struct Seen {
  double *pivot, *mean, *squares;
  index columns;
  double count = 0;

  Seen(Scratch& scratch, index columns)
      : pivot(scratch.take<double>(columns)),
        mean(scratch.take<double>(columns)),
        squares(scratch.take<double>(columns)),
        columns(columns) {
    for (index j = 0; j < columns; ++j) pivot[j] = mean[j] = squares[j] = 0;
  }
};

// Chooses a pivot of the size of the channel's values, the median of three rows, which is subtracted from each element.
// Doubles near 1e6 that differ by 1 would otherwise lose digits that double cannot spare. Floats need no pivot, because
// their moments are double.
inline void choose_pivot(Seen& seen, const double* x, index rows, index stride) {
  const double *middle = x + rows / 2 * stride, *last = x + (rows - 1) * stride;
  for (index j = 0; j < seen.columns; ++j) seen.pivot[j] = median(x[j], middle[j], last[j]);
}
inline void choose_pivot(Seen&, const float*, index, index) {}

VECTOR float less(float x, double) { return x; }
VECTOR double less(double x, double pivot) { return x - pivot; }

// kHeld rows of one column, minus its pivot.
template <class T, class A>
struct Column {
  A held[kHeld];
  VECTOR Column(const T* x, index stride, double pivot) {
    for (int k = 0; k < kHeld; ++k) held[k] = less(A(x[k * stride]), pivot);
  }
};

// Moments of kHeld rows of some columns. Each pass goes over all strips before the next pass begins: a strip that went
// through all passes at once would stall on one dependent sum after another. noinline, because the inlined code keeps
// each row's address in memory.
template <class T>
struct BlockMoments {
  static constexpr index kColumns = 8 * kStripColumns<T>;
  T pivot[kColumns], shift[kColumns], squares[kColumns];
  double own_mean[kColumns], own_squares[kColumns];

  __attribute__((noinline)) void take_mean(const T* x, index stride, const double* less_by, index at) {
    T own[kStripColumns<T>];
    EACH_LANE(T, j) own[j] = mean_of(Column<T, T>(x + j, stride, less_by[j]).held);
    __builtin_memcpy(pivot + at, own, sizeof own);
  }
  __attribute__((noinline)) void take_squares(const T* x, index stride, const double* less_by, index at) {
    T about[kStripColumns<T>], own_shift[kStripColumns<T>], own_squares[kStripColumns<T>];
    __builtin_memcpy(about, pivot + at, sizeof about);
    EACH_LANE(T, j) {
      const Block<T> block = block_about(Column<T, T>(x + j, stride, less_by[j]).held, about[j]);
      own_shift[j] = block.shift, own_squares[j] = block.squares;
    }
    __builtin_memcpy(shift + at, own_shift, sizeof shift[0] * kStripColumns<T>);
    __builtin_memcpy(squares + at, own_squares, sizeof squares[0] * kStripColumns<T>);
  }
  // Repeats in double the columns whose float squares may have underflowed or overflowed.
  void take_again(const T* x, index stride, index columns) {
    for (index j = 0; j < columns; ++j) {
      if (own_squares[j] > kFloatLeast && own_squares[j] < kFloatMost) continue;
      const Block<double> block = block_of(Column<T, double>(x + j, stride, 0).held);
      own_mean[j] = block.pivot + block.shift, own_squares[j] = block.squares;
    }
  }

  void take(const T* x, index stride, index ahead, const double* less_by, index columns) {
    Aside<T, kHeld> aside;
    const auto ask = [&](index j) {
      if (ahead) ask_for(x + j + ahead * stride, kHeld, stride);
    };
    each_strip<T>(
        columns, [&](index j) { ask(j), take_mean(x + j, stride, less_by + j, j); },
        [&](index j, int count) {
          ask(j), take_mean(aside.take(x + j, kHeld, stride, count), kStripColumns<T>, less_by + j, j);
        });
    each_strip<T>(
        columns, [&](index j) { take_squares(x + j, stride, less_by + j, j); },
        [&](index j, int) { take_squares(aside.room(), kStripColumns<T>, less_by + j, j); });
    int vanished = 0;
    for (index j = 0; j < columns; ++j) {
      own_mean[j] = double(pivot[j]) + double(shift[j]), own_squares[j] = squares[j];
      if (sizeof(T) < sizeof(double)) vanished |= !(squares[j] > T(kFloatLeast) && squares[j] < T(kFloatMost));
    }
    if (vanished) take_again(x, stride, columns);
  }
};

// Merges kHeld rows into `seen`. `ahead` is how many rows ahead to prefetch, 0 for none; `share` is kHeld / (rows so
// far + kHeld).
template <class T>
void add_block(Seen& seen, const T* x, index stride, index ahead, double share) {
  for (index first = 0; first < seen.columns; first += BlockMoments<T>::kColumns) {
    const index columns = least(seen.columns - first, BlockMoments<T>::kColumns);
    BlockMoments<T> block;
    block.take(x + first, stride, ahead, seen.pivot + first, columns);
    double *__restrict mean = seen.mean + first, *__restrict squares = seen.squares + first;
    for (index j = 0; j < columns; ++j) {
      Moment all{seen.count, mean[j], squares[j]};
      merge(all, {double(kHeld), block.own_mean[j], block.own_squares[j]}, share);
      mean[j] = all.mean, squares[j] = all.squares;
    }
  }
}

template <class T>
void add_row(Seen& seen, const T* x) {
  const double share = 1 / (seen.count + 1);
  for (index j = 0; j < seen.columns; ++j) {
    Moment all{seen.count, seen.mean[j], seen.squares[j]};
    merge(all, {1, double(x[j]) - seen.pivot[j], 0}, share);
    seen.mean[j] = all.mean, seen.squares[j] = all.squares;
  }
  seen.count += 1;
}

// Merges all rows of x into `seen`, from the first to the last.
template <class T>
void add_rows(Seen& seen, const T* x, index rows, index stride) {
  const index ahead = rows_ahead<T>(rows, stride, seen.columns, kHeld);
  index row = 0;
  for (; row + kHeld <= rows; row += kHeld, x += kHeld * stride) {
    add_block(seen, x, stride, row + ahead + kHeld <= rows ? ahead : 0, kHeld / (seen.count + kHeld));
    seen.count += kHeld;
  }
  for (; row < rows; ++row, x += stride) add_row(seen, x);
}

// -- stored statistics: three rows of doubles, `stride` apart, so that they may be columns of a larger buffer

VECTOR Statistic read_statistic(const double* p, index stride) { return {p[0], p[stride], p[2 * stride]}; }
VECTOR void write_statistic(double* p, index stride, const Statistic& s) {
  p[0] = s.count, p[stride] = s.mean, p[2 * stride] = s.var;
}

// Writes the statistics of a batch and updates the pending ones, unless `pending` is null: with `adds` the batch is
// merged into them, otherwise it replaces them.
inline void write_moment(const Moment& seen, double* batch, index channels, double* pending, index stride, bool adds) {
  const Statistic own = statistic_of(seen);
  write_statistic(batch, channels, own);
  if (pending) write_statistic(pending, stride, adds ? merged(read_statistic(pending, stride), own) : own);
}
inline void write_moments(const Seen& seen, double* batch, index channels, double* pending, index stride, bool adds) {
  for (index j = 0; j < seen.columns; ++j)
    write_moment({seen.count, seen.mean[j] + seen.pivot[j], seen.squares[j]}, batch + j, channels,
                 pending ? pending + j : nullptr, stride, adds);
}

// -- the constants that normalize a channel

template <class T>
struct Affines {
  T *hi, *lo, *inv_std, *gamma, *beta;

  // Allocates the constants of `columns` channels, which read() computes; gammas and betas may be null. Lanes after the
  // last channel are 0, so that a partial strip is processed like a full one.
  Affines(Scratch& scratch, index columns)
      : hi(scratch.take<T>(columns)),
        lo(scratch.take<T>(columns)),
        inv_std(scratch.take<T>(columns)),
        gamma(scratch.take<T>(columns)),
        beta(scratch.take<T>(columns)) {}

  void read(const double* statistics, index stride, double eps, const T* gammas, const T* betas, index columns) {
    for (index j = 0; j < columns; ++j) {
      const Center<T> center = center_of<T>(statistics[stride + j], statistics[2 * stride + j], eps);
      hi[j] = center.hi, lo[j] = center.lo, inv_std[j] = center.inv_std;
    }
    for (index j = 0; j < columns; ++j) gamma[j] = gammas ? gammas[j] : T(1), beta[j] = betas ? betas[j] : T(0);
    for (index j = columns; j % kStripColumns<T>; ++j) hi[j] = lo[j] = inv_std[j] = gamma[j] = beta[j] = 0;
  }
};

// The constants of a strip's channels, as local arrays that the compiler can keep in registers.
template <class T>
struct StripAffines {
  T hi[kStripColumns<T>], lo[kStripColumns<T>], inv_std[kStripColumns<T>];
  T gamma[kStripColumns<T>], beta[kStripColumns<T>];

  VECTOR StripAffines(const Affines<T>& of, index first) {
    EACH_LANE(T, j) {
      hi[j] = of.hi[first + j], lo[j] = of.lo[first + j], inv_std[j] = of.inv_std[first + j];
      gamma[j] = of.gamma[first + j], beta[j] = of.beta[first + j];
    }
  }
  VECTOR T normalized(T x, int j) const { return Center<T>{hi[j], lo[j], inv_std[j]}.normalized(x); }
  VECTOR T affine(T x_norm, int j) const { return x_norm * gamma[j] + beta[j]; }
};

}  // namespace BNENGINE_ISA
}  // namespace bnengine
