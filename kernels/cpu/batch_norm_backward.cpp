// Backward pass of batch normalization: dx, dgamma, dbeta, and dadd for the residual input.
//
// dy, x, y, add, dx and dadd are (rows, channels) in T; dgamma, dbeta and dadd may be null. dz = dy g'(z) is recomputed
// from y, or from z = x_norm gamma + beta + add, whichever the activation's derivative reads.
//
// Launches are cut like the forward pass (batch_norm.cpp). With few rows a block is a range of columns, and
// `batch_norm_backward` computes the sums and dx of a tile while the tile is in the cache. With many rows
// `sums_of_blocks` writes partial sums of blocks of rows to an array, `sums_of_all` adds them in the order of the
// blocks, and `input_of_rows` computes dx.
//
// Sums have a fixed order, so they depend neither on the number of threads nor on the width of the vectors: kHeld rows
// are added in T, then these sums in double, from a block's first row to its last, and then block by block.
#include "batch_norm.h"
#include "layout.h"

namespace bnengine {
namespace BNENGINE_ISA {
namespace {

constexpr index kTileBytes = 128 << 10;  // of one array; four or five fit into the second-level cache

template <class T>
index tile_columns(index rows) {
  const index lines = kTileBytes / (64 * (rows ? rows : 1));
  return kStripColumns<T> * (lines < 1 ? 1 : least(lines, 8));
}

// The arrays from which gradients are computed, from one element on.
template <class T>
struct Sources {
  const T *dy, *x, *y, *add;
  Sources from(index at) const { return {dy + at, x + at, y ? y + at : nullptr, add ? add + at : nullptr}; }
};

template <Activation G, class T>
VECTOR void ask_for_sources(const Sources<T>& from, index stride) {
  ask_for(from.dy, kTogether, stride);
  ask_for(from.x, kTogether, stride);
  if (kNeedsY<G>) ask_for(from.y, kTogether, stride);
}

template <Activation G, class T>
VECTOR T dz_of(const Sources<T>& from, index at, int j, const StripAffines<T>& of, T x_norm, T slope) {
  T z = 0, out = 0;
  if (kNeedsY<G>) out = from.y[at];
  if (kNeedsZ<G>) z = of.affine(x_norm, j);
  if (kNeedsZ<G> && from.add) z += from.add[at];
  return derivative<G>(from.dy[at], out, z, slope);
}

// The sums of dz and of dz x_norm over the rows, for some columns: in T over kHeld rows, in double over all.
template <class T>
struct Sums {
  double *dz, *dz_x_norm;
  T *held, *held_x_norm;
  index columns;

  Sums(Scratch& scratch, index columns)
      : dz(scratch.take<double>(columns)),
        dz_x_norm(scratch.take<double>(columns)),
        held(scratch.take<T>(columns)),
        held_x_norm(scratch.take<T>(columns)),
        columns(columns) {
    for (index j = 0; j < columns; ++j) dz[j] = dz_x_norm[j] = 0;
    for (index j = 0; j < columns || j % kStripColumns<T>; ++j) held[j] = held_x_norm[j] = 0;
  }
  void add_held() {
    for (index j = 0; j < columns; ++j) {
      dz[j] += held[j], dz_x_norm[j] += held_x_norm[j];
      held[j] = held_x_norm[j] = 0;
    }
  }
};

template <Activation G, class T>
VECTOR void sum_strip(const Sources<T>& from, index rows, index stride, const Affines<T>& affines, index first, T slope,
                      T* sums, T* sums_x_norm) {
  const StripAffines<T> of(affines, first);
  StripSum<T> sum(sums), sum_x_norm(sums_x_norm);
  T own[kStripColumns<T>], own_x_norm[kStripColumns<T>];
  for (index r = 0; r < rows; ++r) {
    EACH_LANE(T, j) {
      const T x_norm = of.normalized(from.x[r * stride + j], j);
      own[j] = dz_of<G>(from, r * stride + j, j, of, x_norm, slope);
      own_x_norm[j] = own[j] * x_norm;
    }
    sum.add(own), sum_x_norm.add(own_x_norm);
  }
  sum.put(sums), sum_x_norm.put(sums_x_norm);
}

// Zero-padded copies of the sources of a partial strip.
template <Activation G, class T>
struct SourcesAside {
  Aside<T, kTogether> dy, x, y, add;
  VECTOR Sources<T> take(const Sources<T>& from, index rows, index stride, int count) {
    return {dy.take(from.dy, rows, stride, count), x.take(from.x, rows, stride, count),
            y.take(kNeedsY<G> ? from.y : nullptr, rows, stride, count),
            add.take(kNeedsZ<G> ? from.add : nullptr, rows, stride, count)};
  }
};

template <Activation G, class T>
void sum_rows(Sums<T>& sums, const Sources<T>& from, index rows, index stride, const Affines<T>& affines, T slope) {
  const index ahead = rows_ahead<T>(rows, stride, sums.columns, kTogether);
  for (index row = 0; row < rows; row += kTogether) {
    const index some = least(kTogether, rows - row);
    const Sources<T> here = from.from(row * stride);
    const bool more = row + ahead + kTogether <= rows;
    const auto sum = [&](const Sources<T>& own, index own_stride, index j) {
      if (more) ask_for_sources<G>(here.from(ahead * stride + j), stride);
      sum_strip<G>(own, some, own_stride, affines, j, slope, sums.held + j, sums.held_x_norm + j);
    };
    each_strip<T>(
        sums.columns, [&](index j) { sum(here.from(j), stride, j); },
        [&](index j, int count) {
          SourcesAside<G, T> aside;
          sum(aside.take(here.from(j), some, stride, count), kStripColumns<T>, j);
        });
    if ((row + kTogether) % kHeld == 0) sums.add_held();
  }
  sums.add_held();
}

template <class T>
void write_parameter_gradients(const double* dz, const double* dz_x_norm, index columns, T* dgamma, T* dbeta,
                               bool adds_dgamma, bool adds_dbeta) {
  for (index j = 0; dbeta && j < columns; ++j) dbeta[j] = T(dz[j]) + (adds_dbeta ? dbeta[j] : T(0));
  for (index j = 0; dgamma && j < columns; ++j) dgamma[j] = T(dz_x_norm[j]) + (adds_dgamma ? dgamma[j] : T(0));
}

// The constants that input_gradient needs per channel.
template <class T>
struct Through {
  T *mean, *var, *scale;
  bool batch_statistics;

  Through(Scratch& scratch, const double* dz, const double* dz_x_norm, index columns, index rows,
          const Affines<T>& affines, bool batch_statistics)
      : mean(scratch.take<T>(columns)),
        var(scratch.take<T>(columns)),
        scale(scratch.take<T>(columns)),
        batch_statistics(batch_statistics) {
    for (index j = 0; j < columns; ++j) {
      mean[j] = batch_statistics ? T(dz[j] / double(rows)) : T(0);
      var[j] = batch_statistics ? T(dz_x_norm[j] / double(rows)) : T(0);
      scale[j] = affines.gamma[j] * affines.inv_std[j];
    }
    for (index j = columns; j % kStripColumns<T>; ++j) mean[j] = var[j] = scale[j] = 0;
  }
};

template <class T>
struct Destinations {
  T *dx, *dadd;
  bool adds_dx;
  Destinations from(index at) const { return {dx + at, dadd ? dadd + at : nullptr, adds_dx}; }
};

template <Activation G, bool kBatch, bool kStreams, class T>
VECTOR void input_strip(const Sources<T>& from, const Destinations<T>& to, index rows, index stride,
                        const Affines<T>& affines, const Through<T>& through, index first, T slope) {
  const StripAffines<T> of(affines, first);
  T mean[kStripColumns<T>], var[kStripColumns<T>], scale[kStripColumns<T>];
  EACH_LANE(T, j)
    mean[j] = through.mean[first + j], var[j] = through.var[first + j], scale[j] = through.scale[first + j];
  for (index r = 0; r < rows; ++r) {
    T line[kStripColumns<T>], gradients[kStripColumns<T>];
    EACH_LANE(T, j) {
      const T x_norm = of.normalized(from.x[r * stride + j], j);
      const T dz = dz_of<G>(from, r * stride + j, j, of, x_norm, slope);
      gradients[j] = dz;
      line[j] = input_gradient(dz, x_norm, mean[j], var[j], scale[j], kBatch);
    }
    if (to.dadd) __builtin_memcpy(to.dadd + r * stride, gradients, sizeof gradients);
    if (to.adds_dx)
      EACH_LANE(T, j) line[j] = to.dx[r * stride + j] + line[j];
    if constexpr (kStreams)
      stream(to.dx + r * stride, line);
    else
      __builtin_memcpy(to.dx + r * stride, line, sizeof line);
  }
}

// Does the same as input_strip for a partial strip.
template <Activation G, bool kBatch, class T>
void input_aside(const Sources<T>& from, const Destinations<T>& to, index rows, index stride, const Affines<T>& affines,
                 const Through<T>& through, index first, int count, T slope) {
  SourcesAside<G, T> sources;
  Aside<T, kTogether> dx, dadd;
  if (to.adds_dx) dx.take(to.dx, rows, stride, count);
  input_strip<G, kBatch, false>(sources.take(from, rows, stride, count),
                                {dx.room(), to.dadd ? dadd.room() : nullptr, to.adds_dx}, rows, kStripColumns<T>,
                                affines, through, first, slope);
  dx.put(to.dx, rows, stride, count);
  if (to.dadd) dadd.put(to.dadd, rows, stride, count);
}

template <Activation G, bool kStreams, class T>
void input_rows(const Sources<T>& from, const Destinations<T>& to, index rows, index stride, index columns,
                const Affines<T>& affines, const Through<T>& through, T slope) {
  const index ahead = rows_ahead<T>(rows, stride, columns, kTogether);
  for (index row = 0; row < rows; row += kTogether) {
    const index some = least(kTogether, rows - row), at = row * stride;
    const bool more = row + ahead + kTogether <= rows;
    const auto ask = [&](index j) {
      if (more) ask_for_sources<G>(from.from(at + ahead * stride + j), stride);
    };
    each_strip<T>(
        columns,
        [&](index j) {
          ask(j);
          const Sources<T> own = from.from(at + j);
          const Destinations<T> own_to = to.from(at + j);
          if (through.batch_statistics)
            input_strip<G, true, kStreams>(own, own_to, some, stride, affines, through, j, slope);
          else
            input_strip<G, false, kStreams>(own, own_to, some, stride, affines, through, j, slope);
        },
        [&](index j, int count) {
          ask(j);
          const Sources<T> own = from.from(at + j);
          const Destinations<T> own_to = to.from(at + j);
          if (through.batch_statistics)
            input_aside<G, true>(own, own_to, some, stride, affines, through, j, count, slope);
          else
            input_aside<G, false>(own, own_to, some, stride, affines, through, j, count, slope);
        });
  }
}

// The arguments that the kernels of this file share. Statistics are 3 rows, `stride` apart; gamma and beta may be null.
template <class T>
struct Problem {
  const double* statistics;
  const T *gamma, *beta;
  Sources<T> from;
  index rows, channels, stride;
  double eps;
  T slope;

  template <class Layout>
  explicit Problem(const Layout& a)
      : statistics(a.statistics),
        gamma(a.gamma),
        beta(a.beta),
        from{a.dy, a.x, a.y, a.add},
        rows(a.rows),
        channels(a.channels),
        stride(a.stride),
        eps(a.eps),
        slope(T(a.slope)) {}
  void read(Affines<T>& affines, index column, index columns) const {
    affines.read(statistics + column, stride, eps, gamma ? gamma + column : nullptr, beta ? beta + column : nullptr,
                 columns);
  }
};

// Computes all gradients of columns [begin, end), tile by tile.
template <class T, Activation G>
void batch_norm_backward(const Arguments& arguments, index begin, index end, Worker& worker) {
  const layout::BatchNormBackward<T> a(arguments);
  const Problem<T> p(a);
  const Destinations<T> to{a.dx, a.dadd, a.adds_dx};
  T *dgamma = a.dgamma, *dbeta = a.dbeta;
  const bool batch_statistics = a.batch_statistics, adds_dgamma = a.adds_dgamma, adds_dbeta = a.adds_dbeta;
  const bool summed = batch_statistics || dgamma || dbeta;
  for (index column = begin, columns; column < end; column += columns) {
    columns = least(end - column, tile_columns<T>(p.rows));
    Scratch scratch(worker);
    Affines<T> affines(scratch, columns);
    p.read(affines, column, columns);
    Sums<T> sums(scratch, columns);
    if (summed) sum_rows<G>(sums, p.from.from(column), p.rows, p.channels, affines, p.slope);
    write_parameter_gradients(sums.dz, sums.dz_x_norm, columns, dgamma ? dgamma + column : nullptr,
                              dbeta ? dbeta + column : nullptr, adds_dgamma, adds_dbeta);
    const Through<T> through(scratch, sums.dz, sums.dz_x_norm, columns, p.rows, affines, batch_statistics);
    input_rows<G, false>(p.from.from(column), to.from(column), p.rows, p.channels, columns, affines, through, p.slope);
  }
}

// Computes the sums of blocks [begin, end) of `block` rows each; partial is (blocks, 2, channels). Blocks count from
// the last rows, so that the rows read last are those that the next launch reads first, from the cache.
template <class T, Activation G>
void sums_of_blocks(const Arguments& arguments, index begin, index end, Worker& worker) {
  const layout::SumsOfBlocks<T> a(arguments);
  const Problem<T> p(a);
  double* partial = a.partial;
  const index block = a.block, blocks = (p.rows + block - 1) / block;
  Scratch scratch(worker);
  Affines<T> affines(scratch, p.channels);
  p.read(affines, 0, p.channels);
  for (index b = begin; b < end; ++b) {
    const index row = (blocks - 1 - b) * block;
    Scratch rest(scratch);
    Sums<T> sums(rest, p.channels);
    sum_rows<G>(sums, p.from.from(row * p.channels), least(block, p.rows - row), p.channels, affines, p.slope);
    double* to = partial + b * 2 * p.channels;
    for (index j = 0; j < p.channels; ++j) to[j] = sums.dz[j], to[p.channels + j] = sums.dz_x_norm[j];
  }
}

// Adds the sums of all blocks for columns [begin, end). `sums` (2, channels) stays in double for input_of_rows.
template <class T>
void sums_of_all(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::SumsOfAll<T> a(arguments);
  const double* partial = a.partial;
  double* sums = a.sums;
  T *dgamma = a.dgamma, *dbeta = a.dbeta;
  const index blocks = a.blocks, channels = a.channels;
  for (index j = begin; j < end; ++j) sums[j] = sums[channels + j] = 0;
  for (index b = 0; b < blocks; ++b)
    for (index j = begin; j < end; ++j) {
      sums[j] += partial[2 * b * channels + j];
      sums[channels + j] += partial[(2 * b + 1) * channels + j];
    }
  write_parameter_gradients(sums + begin, sums + channels + begin, end - begin, dgamma ? dgamma + begin : nullptr,
                            dbeta ? dbeta + begin : nullptr, a.adds_dgamma, a.adds_dbeta);
}

// Computes dx and dadd of rows [begin, end), and writes dx past the caches if `past` is set. `sums` is null if the
// statistics are constants.
template <class T, Activation G>
void input_of_rows(const Arguments& arguments, index begin, index end, Worker& worker) {
  const layout::InputOfRows<T> a(arguments);
  const double* sums = a.sums;
  const Problem<T> p(a);
  const Destinations<T> to{a.dx, a.dadd, a.adds_dx};
  Scratch scratch(worker);
  Affines<T> affines(scratch, p.channels);
  p.read(affines, 0, p.channels);
  const double* second = sums ? sums + p.channels : nullptr;
  const Through<T> through(scratch, sums, second, p.channels, p.rows, affines, sums != nullptr);
  const index at = begin * p.channels;
  const Sources<T> from = p.from.from(at);
  if (a.past && of_lines(to.dx, p.channels)) {
    input_rows<G, true>(from, to.from(at), end - begin, p.channels, p.channels, affines, through, p.slope);
    store_fence();
  } else {
    input_rows<G, false>(from, to.from(at), end - begin, p.channels, p.channels, affines, through, p.slope);
  }
}

}  // namespace

#define ENTRIES(T, G)                                                             \
  {"batch_norm_backward<" #T ", " #G ">", batch_norm_backward<T, Activation::G>}, \
      {"sums_of_blocks<" #T ", " #G ">", sums_of_blocks<T, Activation::G>},       \
      {"input_of_rows<" #T ", " #G ">", input_of_rows<T, Activation::G>},
#define ENTRIES_OF(G, ...) ENTRIES(float, G) ENTRIES(double, G)

const Entry* entries() {
  static const Entry table[] = {
      {"sums_of_all<float>", sums_of_all<float>},
      {"sums_of_all<double>", sums_of_all<double>},
      ACTIVATIONS(ENTRIES_OF)
      {nullptr, nullptr},
  };
  return table;
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
