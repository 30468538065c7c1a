// Matrix products C = A B, with either factor transposed, plus bias and the old C; and sums of columns.
//
// The sum over k is cut into ceil(k / 256) pieces, as even as possible. A piece is one chain: 0, then c = fma(a(i, k),
// b(k, j), c) for each k in order. An element of C begins with its old value, or 0, and adds the pieces in order, then
// bias(j). With more than 16 pieces, each 16 of them are added up from 0, and the old value and these sums are added in
// double and rounded once. So the error does not grow with k, and k alone determines the order: cutting a product does
// not change its bits, neither into blocks, nor among threads, nor for caches, nor with AVX2 instead of AVX-512.
//
// A block of a launch is a range of C's columns or rows. Within it a product is cut for the caches: for each piece of k
// panels of B are packed into the worker's scratch in the order of the innermost loop (tile.h).
#include <stdlib.h>
#include <unistd.h>

#include "layout.h"
#include "pack.h"

namespace bnengine {
namespace BNENGINE_ISA {
namespace {

constexpr index kChain = 256;  // terms of a chain, at most
constexpr index kChains = 16;  // chains that are added up in T
template <class T>
constexpr index kWidth = kTileVectors * kLanes<T>;  // columns of a tile
constexpr index kNear = 48 << 10;  // bytes of B that fit into the first-level cache: not worth packing
constexpr index kPage = 4 << 10;

// How much of a product is processed at once. No bit depends on it.
struct Parts {
  index bytes;  // of a row of B: a packed piece of it, 256 such rows, takes half of the second-level cache
  index rows;   // of A
};

// Returns the bytes of a core's second-level cache, or 0 if unknown. BNENGINE_L2_BYTES overrides them, for tests.
index second_level_cache() {
  if (const char* bytes = getenv("BNENGINE_L2_BYTES")) return atol(bytes);
#ifdef _SC_LEVEL2_CACHE_SIZE
  return sysconf(_SC_LEVEL2_CACHE_SIZE);
#else
  return 0;
#endif
}

const Parts kParts = second_level_cache() >= (2 << 20) ? Parts{3840, 192} : Parts{1920, 96};
constexpr Parts kMost{3840, 192};

// Offsets into a worker's scratch, in bytes, and its total size. A row of the copied part of A is not a power of two
// long: its rows would map to one set of the cache.
constexpr index kBlockAt = 1 << 20, kAsideAt = kBlockAt + (512 << 10), kTotalsAt = kAsideAt + (256 << 10);
constexpr index kScratch = index(3) << 20;
template <class T>
constexpr index kBlockStride = kMost.rows + 64 / index(sizeof(T));
template <class T>
constexpr index kAsideColumns = (kTotalsAt - kAsideAt) / index(sizeof(T)) / kWidth<T> / kWidth<T> * kWidth<T>;
constexpr index kTotals = (kScratch - kTotalsAt) / index(sizeof(double));
template <class T>
constexpr bool kFits = kChain * kMost.bytes <= kBlockAt &&
                       kChain * kBlockStride<T> * index(sizeof(T)) <= kAsideAt - kBlockAt && kAsideColumns<T> > 0 &&
                       kTotals >= kMost.bytes / index(sizeof(T)) * kTileRows &&
                       1920 / index(sizeof(T)) % kWidth<T> == 0;
static_assert(kFits<float> && kFits<double>, "a product's scratch is 3 MiB");

template <class T>
T* at(const Worker& worker, index bytes) {
  return reinterpret_cast<T*>(static_cast<char*>(worker.scratch) + bytes);
}

index least(index a, index b) { return a < b ? a : b; }

index rounded_up(index n, index step) { return (n + step - 1) / step * step; }

// Returns the length of the next piece of `total` after `from`: at most `most`, with pieces as even as possible.
index piece(index total, index from, index most) {
  const index left = total - from, pieces = (left + most - 1) / most;
  return pieces < 2 ? left : (left + pieces - 1) / pieces;
}

template <class T>
struct Product {
  index m, n, k;
  const T* a;
  index lda;
  const T* b;
  index ldb;
  T* c;
  index ldc;
  const T* bias;
  bool adds;
};

template <class T, bool kAcrossA, bool kAcrossB>
class Multiplication {
 public:
  Multiplication(const Product<T>& product, Worker& worker)
      : p(product),
        panels(at<T>(worker, 0)),
        block(at<T>(worker, kBlockAt)),
        totals(at<double>(worker, kTotalsAt)),
        few(p.m <= 2 * kTileRows),
        in_place(!kAcrossB && (few || p.k * p.ldb * index(sizeof(T)) <= kNear)),
        in_double(p.k > kChain * kChains) {}

  void run() {
    constexpr index kSize = index(sizeof(T));
    for (j_begin = 0; j_begin < p.n; j_begin += columns) {
      const index left = p.n - j_begin;
      columns = least(left, rounded_up(piece(left, 0, kParts.bytes / kSize), kWidth<T>));
      // Elements of a tile's row of A^T lie in different lines: a page apart, all in one set of the cache.
      copied = kAcrossA && columns >= 2 * kWidth<T> && (p.lda * kSize >= kPage || columns >= 256);
      const index height = in_double ? kTotals / columns / kTileRows * kTileRows : p.m;
      for (top = 0; top < p.m; top = bottom) {
        bottom = least(p.m, top + height);
        k_begin = 0;
        in_double ? add_in_double() : add_chains(kChains, p.adds);
      }
    }
  }

 private:
  // Adds the next chains to rows [top, bottom) of C; the first replaces them unless `adds`.
  void add_chains(index count, bool adds) {
    do {
      depth = piece(p.k, k_begin, kChain);
      pack();
      for (i_begin = top; i_begin < bottom; i_begin += rows) {
        rows = least(bottom - i_begin, kParts.rows);
        tiles(adds);
      }
      adds = true;
      k_begin += depth;
    } while (--count && k_begin < p.k);
  }

  // Adds all chains to these rows: each kChains of them are added up in C, and these sums in double.
  void add_in_double() {
    each_total([&](double& total, T& c, index) { total = p.adds ? double(c) : 0; });
    while (k_begin < p.k) {
      add_chains(kChains, false);
      each_total([](double& total, T& c, index) { total += double(c); });
    }
    each_total([&](double& total, T& c, index j) { c = p.bias ? T(total) + p.bias[j] : T(total); });
  }

  template <class Visit>
  void each_total(Visit visit) {
    double* total = totals;
    for (index i = top; i < bottom; ++i, total += columns)
      for (index j = 0; j < columns; ++j) visit(total[j], p.c[i * p.ldc + j_begin + j], j_begin + j);
  }

  // Whether the tile reads B in place. Its vectors must end within the block: another thread may write the columns
  // after it.
  bool direct(index j, index vectors) const { return in_place && j_begin + j + vectors * kLanes<T> <= p.n; }

  // Returns the vectors of the panel that begins at column j: those of a full tile, but such that the last panel is not
  // a single vector. If rows are few, whole vectors are read in place and only the remaining columns are packed.
  index vectors_from(index j) const {
    const index whole = (columns - j) / kLanes<T>, most = p.m == 1 ? kRowVectors : kTileVectors;
    const index left = in_place && few && whole ? whole : (columns - j + kLanes<T> - 1) / kLanes<T>;
    if (left <= most) return left;
    return left == most + 1 && most > 2 ? most - 1 : most;
  }

  void pack() {
    for (index j = 0, vectors; j < columns; j += vectors * kLanes<T>) {
      vectors = vectors_from(j);
      if (direct(j, vectors)) continue;
      const index width = vectors * kLanes<T>, some = least(columns - j, width), first = j_begin + j;
      if constexpr (kAcrossB)
        pack_columns(depth, some, p.b + first * p.ldb + k_begin, p.ldb, width, panels + j * depth);
      else
        pack_rows(depth, some, p.b + k_begin * p.ldb + first, p.ldb, width, panels + j * depth);
    }
  }

  // Runs all tiles of rows [i_begin, i_begin + rows) over the current piece of k. Rows are outermost: those of a tile
  // stay in the first-level cache while all panels of B pass.
  void tiles(bool adds) {
    const T* a = kAcrossA ? p.a + k_begin * p.lda + i_begin : p.a + i_begin * p.lda + k_begin;
    if (copied) {
      pack_rows(depth, rows, a, p.lda, kBlockStride<T>, block);
      a = block;
    }
    const index lda = copied ? kBlockStride<T> : p.lda;
    for (index i = 0; i < rows; i += kTileRows)
      for (index j = 0, vectors; j < columns; j += vectors * kLanes<T>) {
        vectors = vectors_from(j);
        const bool there = direct(j, vectors);
        const T* b = there ? p.b + k_begin * p.ldb + j_begin + j : panels + j * depth;
        const index b_stride = there ? p.ldb : vectors * kLanes<T>, height = least(rows - i, kTileRows);
        const TileFunction<T> tile = p.m == 1 ? kTiles<T>.row[vectors - 1] : kTiles<T>.of[height - 1][vectors - 1];
        const Destination<T> to = destination(i, j, vectors, adds);
        if (adds)
          for (index r = 0; r < height; ++r) fetch(to.out + r * p.ldc, vectors * kLanes<T>);
        if (kAcrossA)
          tile(depth, a + i, 1, lda, b, b_stride, to);
        else
          tile(depth, a + i * lda, lda, 1, b, b_stride, to);
      }
  }

  Destination<T> destination(index i, index j, index vectors, bool adds) const {
    Destination<T> to;
    to.out = p.c + (i_begin + i) * p.ldc + j_begin + j;
    to.stride = p.ldc;
    to.adds = adds;
    to.bias = p.bias && !in_double && k_begin + depth == p.k ? p.bias + j_begin + j : nullptr;
    to.last = int(least(columns - j - (vectors - 1) * kLanes<T>, kLanes<T>));
    return to;
  }

  const Product<T> p;
  T *const panels, *const block;
  double* const totals;
  const bool few, in_place, in_double;
  bool copied = false;
  index top = 0, bottom = 0, i_begin = 0, rows = 0, j_begin = 0, columns = 0, k_begin = 0, depth = 0;
};

// Computes a narrow C as its transpose, B^T A^T, in pieces of C's rows. The sums are the same.
template <class T>
void multiply_narrow(const Product<T>& p, Worker& worker) {
  T* const aside = at<T>(worker, kAsideAt);
  for (index i = 0; i < p.m; i += kAsideColumns<T>) {
    Product<T> turned;
    turned.m = p.n, turned.n = least(p.m - i, kAsideColumns<T>), turned.k = p.k;
    turned.a = p.b, turned.lda = p.ldb, turned.b = p.a + i, turned.ldb = p.lda;
    turned.c = aside, turned.ldc = kAsideColumns<T>, turned.bias = nullptr, turned.adds = p.adds;
    const auto each = [&](auto visit) {
      for (index r = 0; r < turned.n; ++r)
        for (index j = 0; j < p.n; ++j) visit(p.c[(i + r) * p.ldc + j], aside[j * kAsideColumns<T> + r], j);
    };
    if (p.adds) each([](T& c, T& there, index) { there = c; });
    Multiplication<T, true, false>(turned, worker).run();
    each([&](T& c, T& there, index j) { c = p.bias ? there + p.bias[j] : there; });
  }
}

template <class T, bool kAcrossA, bool kAcrossB>
void multiply(const Product<T>& p, Worker& worker) {
  if constexpr (kAcrossA && !kAcrossB) {
    // Vectors along the rows of a C this narrow would be half empty. Along its columns they are full, and contiguous in
    // A.
    const index padded = (p.n + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
    if (padded <= kWidth<T> && p.n * 10 <= padded * 7 && p.m >= kWidth<T>) return multiply_narrow(p, worker);
  }
  Multiplication<T, kAcrossA, kAcrossB>(p, worker).run();
}

// Adds up columns [begin, end) of x (rows, columns): one chain of additions in double per column, rounded once.
template <class T>
void sum_columns(index rows, const T* x, index stride, index begin, index end, T* out, bool adds) {
  constexpr index kSome = 4 * kLanes<double>;
  for (index j = begin; j < end; j += kSome) {
    double sums[kSome] = {};
    const index some = least(end - j, kSome);
    const T* from = x + j;
    if (some == kSome) {
      for (index i = 0; i < rows; ++i, from += stride)
        for (index l = 0; l < kSome; ++l) sums[l] += double(from[l]);
    } else {
      for (index i = 0; i < rows; ++i, from += stride)
        for (index l = 0; l < some; ++l) sums[l] += double(from[l]);
    }
    for (index l = 0; l < some; ++l) out[j + l] = adds ? out[j + l] + T(sums[l]) : T(sums[l]);
  }
}

// -- the kernels. A is (m, k), or (k, m) in gemm_tn; B is (k, n), or (n, k) in gemm_nt; C is (m, n). With `adds` the
// old C is added. lda, ldb and ldc are the strides of rows; bias (n) may be null. Scratch: kScratch bytes.

// Computes columns [begin, end) of C, and the sums (n) of these columns of B unless `sums` is null, as in gemm_nt.
template <class T, bool kAcrossA, bool kAcrossB, class Layout>
void by_columns(const Arguments& arguments, index begin, index end, Worker& worker) {
  const Layout a(arguments);
  Product<T> p;
  p.m = a.m, p.n = end - begin, p.k = a.k;
  p.a = a.a, p.lda = a.lda;
  p.b = a.b + (kAcrossB ? begin * a.ldb : begin), p.ldb = a.ldb;
  p.c = a.c + begin, p.ldc = a.ldc;
  p.bias = a.bias ? a.bias + begin : nullptr;
  p.adds = a.adds;
  multiply<T, kAcrossA, kAcrossB>(p, worker);
  if (a.sums) sum_columns(p.k, a.b, a.ldb, begin, end, a.sums, a.adds_sums);
}

// Computes rows [begin, end) of C.
template <class T, bool kAcrossA, bool kAcrossB, class Layout>
void by_rows(const Arguments& arguments, index begin, index end, Worker& worker) {
  const Layout a(arguments);
  Product<T> p;
  p.m = end - begin, p.n = a.n, p.k = a.k;
  p.a = a.a + (kAcrossA ? begin : begin * a.lda), p.lda = a.lda;
  p.b = a.b, p.ldb = a.ldb;
  p.c = a.c + begin * a.ldc, p.ldc = a.ldc;
  p.bias = a.bias;
  p.adds = a.adds;
  multiply<T, kAcrossA, kAcrossB>(p, worker);
}

// Adds up columns [begin, end) of x (rows, n), whose rows are `stride` apart; with `adds` the old `out` is added.
template <class T>
void column_sums(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::ColumnSums<T> a(arguments);
  sum_columns(a.rows, a.x, a.stride, begin, end, a.out, a.adds);
}

}  // namespace

const Entry* entries() {
  static const Entry table[] = {
      {"gemm_nn<float>", by_columns<float, false, false, layout::GemmNn<float>>},
      {"gemm_nn<double>", by_columns<double, false, false, layout::GemmNn<double>>},
      {"gemm_nt<float>", by_columns<float, false, true, layout::GemmNt<float>>},
      {"gemm_nt<double>", by_columns<double, false, true, layout::GemmNt<double>>},
      {"gemm_tn<float>", by_columns<float, true, false, layout::GemmTn<float>>},
      {"gemm_tn<double>", by_columns<double, true, false, layout::GemmTn<double>>},
      {"gemm_nn_rows<float>", by_rows<float, false, false, layout::GemmNnRows<float>>},
      {"gemm_nn_rows<double>", by_rows<double, false, false, layout::GemmNnRows<double>>},
      {"gemm_nt_rows<float>", by_rows<float, false, true, layout::GemmNtRows<float>>},
      {"gemm_nt_rows<double>", by_rows<double, false, true, layout::GemmNtRows<double>>},
      {"gemm_tn_rows<float>", by_rows<float, true, false, layout::GemmTnRows<float>>},
      {"gemm_tn_rows<double>", by_rows<double, true, false, layout::GemmTnRows<double>>},
      {"column_sums<float>", column_sums<float>},
      {"column_sums<double>", column_sums<double>},
      {nullptr, nullptr},
  };
  return table;
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
