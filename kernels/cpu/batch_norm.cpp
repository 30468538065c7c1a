// Batch normalization: batch statistics, forward pass, running statistics. x, y and add are (rows, channels) in T;
// statistics are double.
//
// With few rows a block is a range of columns and has all their rows. `batch_norm` then works tile by tile: it computes
// the statistics and y of as many columns as fit into the second-level cache, so x is read from memory once. With many
// rows a column does not fit. The rows are then cut into blocks that depend only on the shape: `moments_of_blocks`
// writes the moments of each to an array, `moments_of_all` merges them, and `normalize` computes y from rows.
//
// Sums have a fixed order: kHeld rows at a time are summed about their own mean and merged, from a block's first row to
// its last, and then block by block. So results depend neither on the number of threads nor on the width of the
// vectors.
#include "batch_norm.h"
#include "layout.h"

namespace bnengine {
namespace BNENGINE_ISA {
namespace {

constexpr index kTileBytes = 256 << 10;  // of x; the same amount of y also fits into the second-level cache

// Returns the columns of a tile: whole cache lines, at most eight.
template <class T>
index tile_columns(index rows) {
  const index lines = kTileBytes / (64 * (rows ? rows : 1));
  return kStripColumns<T> * (lines < 1 ? 1 : least(lines, 8));
}

// Computes y = g(gamma x_norm + beta + add) for the rows of a strip.
template <Activation G, bool kAdds, bool kStreams, class T>
VECTOR void normalize_strip(const T* x, const T* add, T* y, index rows, index stride, const Affines<T>& affines,
                            index first, T slope) {
  const StripAffines<T> of(affines, first);
  for (index r = 0; r < rows; ++r, x += stride, add += kAdds ? stride : 0, y += stride) {
    T line[kStripColumns<T>];
    EACH_LANE(T, j) {
      T z = of.affine(of.normalized(x[j], j), j);
      if (kAdds) z += add[j];
      line[j] = activate<G>(z, slope);
    }
    if constexpr (kStreams)
      stream(y, line);
    else
      __builtin_memcpy(y, line, sizeof line);
  }
}

template <Activation G, bool kStreams, class T>
void normalize_rows(const T* x, const T* add, T* y, index rows, index stride, index columns, const Affines<T>& affines,
                    T slope) {
  const index ahead = rows_ahead<T>(rows, stride, columns, kTogether);
  for (index row = 0; row < rows; row += kTogether) {
    const index some = least(kTogether, rows - row), at = row * stride;
    const bool more = row + ahead + kTogether <= rows;
    const auto ask = [&](index j) {
      if (more) ask_for(x + at + ahead * stride + j, kTogether, stride);
    };
    each_strip<T>(
        columns,
        [&](index j) {
          ask(j);
          if (add)
            normalize_strip<G, true, kStreams>(x + at + j, add + at + j, y + at + j, some, stride, affines, j, slope);
          else
            normalize_strip<G, false, kStreams>(x + at + j, add, y + at + j, some, stride, affines, j, slope);
        },
        [&](index j, int count) {
          ask(j);
          Aside<T, kTogether> own, own_add, out;
          const T *from = own.take(x + at + j, some, stride, count);
          if (add)
            normalize_strip<G, true, false>(from, own_add.take(add + at + j, some, stride, count), out.room(), some,
                                            kStripColumns<T>, affines, j, slope);
          else
            normalize_strip<G, false, false>(from, add, out.room(), some, kStripColumns<T>, affines, j, slope);
          out.put(y + at + j, some, stride, count);
        });
  }
}

// Computes the statistics of columns [begin, end): batch is (3, channels); pending is 3 rows, `stride` apart, or null.
template <class T>
void moments(const Arguments& arguments, index begin, index end, Worker& worker) {
  const layout::Moments<T> a(arguments);
  const T* x = a.x;
  double *batch = a.batch, *pending = a.pending;
  const index rows = a.rows, channels = a.channels, stride = a.stride;
  const bool adds = a.adds;
  for (index column = begin, columns; column < end; column += columns) {
    columns = least(end - column, tile_columns<T>(rows));
    Scratch scratch(worker);
    Seen seen(scratch, columns);
    choose_pivot(seen, x + column, rows, channels);
    add_rows(seen, x + column, rows, channels);
    write_moments(seen, batch + column, channels, pending ? pending + column : nullptr, stride, adds);
  }
}

// Computes the moments of blocks [begin, end) of `block` rows each; partial (blocks, 3, channels) gets the pivot, mean
// - pivot, and the sum of squared differences. Blocks count from the last rows: the rows read last are then the first
// rows, which the next launch reads first, from the cache.
template <class T>
void moments_of_blocks(const Arguments& arguments, index begin, index end, Worker& worker) {
  const layout::MomentsOfBlocks<T> a(arguments);
  const T* x = a.x;
  double* partial = a.partial;
  const index rows = a.rows, channels = a.channels, block = a.block;
  const index blocks = (rows + block - 1) / block;
  for (index b = begin; b < end; ++b) {
    const index row = (blocks - 1 - b) * block;
    Scratch scratch(worker);
    Seen seen(scratch, channels);
    choose_pivot(seen, x, rows, channels);
    add_rows(seen, x + row * channels, least(block, rows - row), channels);
    double* to = partial + b * 3 * channels;
    for (index j = 0; j < channels; ++j) {
      to[j] = seen.pivot[j];
      to[channels + j] = seen.mean[j];
      to[2 * channels + j] = seen.squares[j];
    }
  }
}

// Merges the moments of all blocks for columns [begin, end), in the order of the blocks.
void moments_of_all(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::MomentsOfAll a(arguments);
  const double* partial = a.partial;
  double *batch = a.batch, *pending = a.pending;
  const index rows = a.rows, channels = a.channels, block = a.block, stride = a.stride;
  const bool adds = a.adds;
  const index blocks = (rows + block - 1) / block;
  constexpr index kSome = 64;
  for (index first = begin; first < end; first += kSome) {
    const index columns = least(kSome, end - first);
    double mean[kSome] = {}, squares[kSome] = {}, count = 0;
    for (index b = 0; b < blocks; ++b) {
      const double* p = partial + b * 3 * channels + first;
      const double own = double(least(block, rows - (blocks - 1 - b) * block)), share = own / (count + own);
      for (index j = 0; j < columns; ++j) {
        Moment all{count, mean[j], squares[j]};
        merge(all, {own, p[channels + j], p[2 * channels + j]}, share);
        mean[j] = all.mean, squares[j] = all.squares;
      }
      count += own;
    }
    for (index j = 0; j < columns; ++j)
      write_moment({count, mean[j] + partial[first + j], squares[j]}, batch + first + j, channels,
                   pending ? pending + first + j : nullptr, stride, adds);
  }
}

// Computes y of columns or rows [begin, end), and writes past the caches if `past` is set. Statistics are 3 rows,
// `stride` apart; gamma, beta and add may be null.
template <class T, Activation G>
void normalize(const Arguments& arguments, index begin, index end, Worker& worker) {
  const layout::Normalize<T> a(arguments);
  const T *gamma = a.gamma, *beta = a.beta, *x = a.x, *add = a.add;
  T* y = a.y;
  const index channels = a.channels;
  const Region at(a.rows, channels, a.by_columns, begin, end);
  const T slope = T(a.slope);
  Scratch scratch(worker);
  Affines<T> affines(scratch, at.columns);
  affines.read(a.statistics + at.column, a.stride, a.eps, gamma ? gamma + at.column : nullptr,
               beta ? beta + at.column : nullptr, at.columns);
  const index first = at.row * channels + at.column;
  x += first, y += first;
  if (add) add += first;
  if (a.past && of_lines(y, channels)) {
    normalize_rows<G, true>(x, add, y, at.rows, channels, at.columns, affines, slope);
    store_fence();
  } else {
    normalize_rows<G, false>(x, add, y, at.rows, channels, at.columns, affines, slope);
  }
}

// Computes the statistics and y of columns [begin, end), tile by tile. `stride` is that of the pending statistics.
template <class T, Activation G>
void batch_norm(const Arguments& arguments, index begin, index end, Worker& worker) {
  const layout::BatchNorm<T> a(arguments);
  const T *gamma = a.gamma, *beta = a.beta, *x = a.x, *add = a.add;
  T* y = a.y;
  double *batch = a.batch, *pending = a.pending;
  const index rows = a.rows, channels = a.channels, stride = a.stride;
  const bool adds = a.adds;
  const double eps = a.eps;
  const T slope = T(a.slope);
  for (index column = begin, columns; column < end; column += columns) {
    columns = least(end - column, tile_columns<T>(rows));
    Scratch scratch(worker);
    Seen seen(scratch, columns);
    choose_pivot(seen, x + column, rows, channels);
    add_rows(seen, x + column, rows, channels);
    write_moments(seen, batch + column, channels, pending ? pending + column : nullptr, stride, adds);
    Affines<T> affines(scratch, columns);
    affines.read(batch + column, channels, eps, gamma ? gamma + column : nullptr, beta ? beta + column : nullptr,
                 columns);
    normalize_rows<G, false>(x + column, add ? add + column : nullptr, y + column, rows, channels, columns, affines,
                             slope);
  }
}

// -- running statistics: (3, channels) buffers

// Updates the running statistics of columns [begin, end) from the pending ones. If ok is false, the result is the old
// statistics, bit for bit. `out` may be `running`.
void commit(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::Commit a(arguments);
  const index channels = a.channels;
  for (index j = begin; j < end; ++j) {
    const Statistic old = read_statistic(a.running + j, channels), seen = read_statistic(a.pending + j, channels);
    write_statistic(a.out + j, channels, *a.ok ? committed(old, seen, a.decay[j], a.unbiased[j]) : old);
  }
}

// Merges the statistics of two samples for columns [begin, end). `out` may be `a`.
void merge_statistics(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::MergeStatistics of(arguments);
  const index channels = of.channels;
  for (index j = begin; j < end; ++j)
    write_statistic(of.out + j, channels,
                    merged(read_statistic(of.a + j, channels), read_statistic(of.b + j, channels)));
}

}  // namespace

#define ENTRIES(T, G)                                         \
  {"normalize<" #T ", " #G ">", normalize<T, Activation::G>}, \
      {"batch_norm<" #T ", " #G ">", batch_norm<T, Activation::G>},
#define ENTRIES_OF(G, ...) ENTRIES(float, G) ENTRIES(double, G)

const Entry* entries() {
  static const Entry table[] = {
      {"moments<float>", moments<float>},
      {"moments<double>", moments<double>},
      {"moments_of_blocks<float>", moments_of_blocks<float>},
      {"moments_of_blocks<double>", moments_of_blocks<double>},
      {"moments_of_all", moments_of_all},
      ACTIVATIONS(ENTRIES_OF)
      {"commit", commit},
      {"merge_statistics", merge_statistics},
      {nullptr, nullptr},
  };
  return table;
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
