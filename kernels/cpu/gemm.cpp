// Matrix products C = A B, with either factor transposed, plus bias and the old C; and sums of columns.
//
// Each element of C is one chain: c = 0, then c = fma(a(i, k), b(k, j), c) for k = 0, 1, 2, ..., then + bias(j), then +
// the old c(i, j). A chain that is interrupted between pieces of k is stored in T, its exact value. So cutting a
// product does not change its bits: not into blocks, not among threads, not with AVX2 instead of AVX-512.
//
// A block of a launch is a range of C's columns or rows. Within it a product is cut for the caches: panels of B are
// packed into the worker's scratch in the order of the innermost loop (tile.h), and unfinished chains also wait there.
#include "layout.h"
#include "pack.h"

namespace bnengine {
namespace BNENGINE_ISA {
namespace {

// A kRows x kColumns part of C stays in the second-level cache from the first k to the last, together with kRows x
// kDepth of A and the matching piece of B. kDepth is smaller for a transposed A, where each element of a row is in a
// different cache line.
template <class T, bool kAcrossA>
constexpr index kDepth = (kAcrossA ? 512 : 1024) / index(sizeof(T));
template <class T>
constexpr index kWidth = kTileVectors * kLanes<T>;  // columns of a tile
template <class T>
constexpr index kColumns = 1152 / index(sizeof(T)) / kWidth<T> * kWidth<T>;
constexpr index kRows = 96;
template <class T>
constexpr index kBlockStride = kRows + 64 / index(sizeof(T));  // not a power of two: rows would map to one cache set
constexpr index kHeld = 2304 << 10;  // bytes of B that may stay packed for all rows of C
constexpr index kNear = 48 << 10;    // bytes that fit into the first-level cache: not worth packing
constexpr index kPage = 4 << 10;
// Tiles are narrow: there are many, so a transposed A with rows a page apart is copied first. With wide tiles the copy
// was slower.
constexpr bool kNarrow = kTileVectors * kVectorBytes < 128;

// Offsets into a worker's scratch, in bytes, and its total size.
constexpr index kChainsAt = kHeld, kAsideAt = kHeld + (256 << 10), kBlockAt = kAsideAt + (256 << 10);
constexpr index kScratch = index(3) << 20;
template <class T>
constexpr bool kFits = kDepth<T, false> * kColumns<T> * index(sizeof(T)) <= kHeld &&
                       kRows * kColumns<T> * index(sizeof(T)) <= kAsideAt - kChainsAt &&
                       kWidth<T> * kColumns<T> * index(sizeof(T)) <= kBlockAt - kAsideAt &&
                       kDepth<T, true> * kBlockStride<T> * index(sizeof(T)) <= kScratch - kBlockAt;
static_assert(kFits<float> && kFits<double>, "a product's scratch is 3 MiB");

template <class T>
T* at(const Worker& worker, index bytes) {
  return reinterpret_cast<T*>(static_cast<char*>(worker.scratch) + bytes);
}

index least(index a, index b) { return a < b ? a : b; }

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
        chains(at<T>(worker, kChainsAt)),
        block(at<T>(worker, kBlockAt)),
        few(p.m <= 2 * kTileRows),
        in_place(!kAcrossB && (few || p.k * p.ldb * index(sizeof(T)) <= kNear)),
        copied(kAcrossA && kNarrow && p.lda * index(sizeof(T)) >= kPage) {}

  void run() {
    const index most = columns_at_once();
    for (j_begin = 0; j_begin < p.n; j_begin += columns) {
      columns = least(p.n - j_begin, most);
      padded = (columns + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
      held = p.k * padded * index(sizeof(T)) <= kHeld;
      for (i_begin = 0; i_begin < p.m; i_begin += rows) {
        rows = least(p.m - i_begin, kRows);
        k_begin = 0;
        do {
          depth = piece(p.k, k_begin, kDepth<T, kAcrossA>);
          if (!held || i_begin == 0) pack();
          tiles();
          k_begin += depth;
        } while (k_begin < p.k);
      }
    }
  }

 private:
  // Returns how many columns to process at once: as many as can stay packed for all rows of C. If that is fewer than
  // two tiles, it returns kColumns, and B is packed again for each part of C.
  index columns_at_once() const {
    const index fit = kHeld / index(sizeof(T)) / (p.k ? p.k : 1) / kWidth<T> * kWidth<T>;
    return fit < 2 * kWidth<T> ? kColumns<T> : least(fit, kColumns<T>);
  }

  // Whether the tile reads B in place. Its vectors must end within the block: another thread may write the columns
  // after it.
  bool direct(index j, index vectors) const { return in_place && j_begin + j + vectors * kLanes<T> <= p.n; }

  T* panel(index j) const { return panels + (held ? k_begin * padded : 0) + j * depth; }

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
        pack_columns(depth, some, p.b + first * p.ldb + k_begin, p.ldb, width, panel(j));
      else
        pack_rows(depth, some, p.b + k_begin * p.ldb + first, p.ldb, width, panel(j));
    }
  }

  // Runs all tiles of this part of C over the current piece of k.
  void tiles() {
    const T* a = kAcrossA ? p.a + k_begin * p.lda + i_begin : p.a + i_begin * p.lda + k_begin;
    if (copied) {
      copy_rows(depth, rows, a, p.lda, block, kBlockStride<T>);
      a = block;
    }
    const index lda = copied ? kBlockStride<T> : p.lda;
    for (index j = 0, vectors; j < columns; j += vectors * kLanes<T>) {
      vectors = vectors_from(j);
      const bool there = direct(j, vectors);
      const T* b = there ? p.b + k_begin * p.ldb + j_begin + j : panel(j);
      const index b_stride = there ? p.ldb : vectors * kLanes<T>;
      for (index i = 0; i < rows; i += kTileRows) {
        const index height = least(rows - i, kTileRows);
        const TileFunction<T> tile = p.m == 1 ? kTiles<T>.row[vectors - 1] : kTiles<T>.of[height - 1][vectors - 1];
        const Destination<T> to = destination(i, j, vectors);
        if (kAcrossA)
          tile(depth, a + i, 1, lda, b, b_stride, to);
        else
          tile(depth, a + i * lda, lda, 1, b, b_stride, to);
      }
    }
  }

  // Unfinished chains wait in scratch, because C may hold the old values that are added at the end.
  Destination<T> destination(index i, index j, index vectors) const {
    const bool ends = k_begin + depth == p.k;
    T* const c = p.c + (i_begin + i) * p.ldc + j_begin + j;
    T* const waiting = chains + i * kColumns<T> + j;
    Destination<T> to;
    to.partial = k_begin ? waiting : nullptr;
    to.partial_stride = kColumns<T>;
    to.out = ends ? c : waiting;
    to.out_stride = ends ? p.ldc : kColumns<T>;
    to.bias = ends && p.bias ? p.bias + j_begin + j : nullptr;
    to.old = ends && p.adds ? c : nullptr;
    to.old_stride = p.ldc;
    to.last = int(least(columns - j - (vectors - 1) * kLanes<T>, kLanes<T>));
    return to;
  }

  const Product<T> p;
  T *const panels, *const chains, *const block;
  const bool few, in_place, copied;
  bool held = false;  // whether the current columns of B stay packed for all rows
  index i_begin = 0, rows = 0, j_begin = 0, columns = 0, padded = 0, k_begin = 0, depth = 0;
};

// Computes a narrow C as its transpose, B^T A^T, in pieces of C's rows. The chains are the same.
template <class T>
void multiply_narrow(const Product<T>& p, Worker& worker) {
  T* const aside = at<T>(worker, kAsideAt);
  for (index i = 0; i < p.m; i += kColumns<T>) {
    Product<T> turned;
    turned.m = p.n, turned.n = least(p.m - i, kColumns<T>), turned.k = p.k;
    turned.a = p.b, turned.lda = p.ldb, turned.b = p.a + i, turned.ldb = p.lda;
    turned.c = aside, turned.ldc = kColumns<T>, turned.bias = nullptr, turned.adds = false;
    Multiplication<T, true, false>(turned, worker).run();
    T* c = p.c + i * p.ldc;
    for (index r = 0; r < turned.n; ++r, c += p.ldc)
      for (index j = 0; j < p.n; ++j) {
        const T chain = aside[j * kColumns<T> + r], sum = p.bias ? chain + p.bias[j] : chain;
        c[j] = p.adds ? sum + c[j] : sum;
      }
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
