// Matrix products, C = A B with factors as they lie or transposed, bias, sums of columns, and the old C added.
//
// Every element of C is one chain: c = 0, then c = fma(a(i, k), b(k, j), c) for k = 0, 1, 2, ..., then + bias(j), then
// + the old c(i, j). Blocks, threads and the width of vectors change nothing about it: between pieces of k a chain waits in
// memory as it is. So any split gives the same bits, with AVX2 as with AVX-512.
#include "pack.h"

namespace bnengine {
namespace BNENGINE_ISA {
namespace {

// A piece of B, kDepth x kColumns, stays in the second-level cache; so do kRows x kDepth of A.
template <class T>
constexpr index kDepth = 256;
template <class T>
constexpr index kWidth = kTileVectors * kLanes<T>;  // of a tile
template <class T>
constexpr index kColumns = 1152 / index(sizeof(T)) / kWidth<T> * kWidth<T>;
constexpr index kRows = 192;
constexpr index kChains = 96;  // rows whose unfinished chains wait in scratch

// Where things lie in a worker's scratch, in bytes. kScratch of them is what a product needs.
template <class T>
constexpr index kStripsAt = kDepth<T> * kColumns<T> * index(sizeof(T));
template <class T>
constexpr index kChainsAt = kStripsAt<T> + kRows * kDepth<T> * index(sizeof(T));
template <class T>
constexpr index kNeeded = kChainsAt<T> + kChains * kColumns<T> * index(sizeof(T));
constexpr index kScratch = index(1) << 20;
static_assert(kNeeded<float> <= kScratch && kNeeded<double> <= kScratch, "a product's scratch is 1 MiB");

index least(index a, index b) { return a < b ? a : b; }

// The range of `total` that begins at `from`: pieces of at most `most`, as even as may be.
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
  index readable;  // columns of b, from its first, that may be read: those of the matrix and not only of the block
};

// The vectors of the panel that begins at column j of n: as many as a tile has, but no single one is left for the last.
template <class T>
index panel_vectors(index n, index j) {
  const index left = (n - j + kLanes<T> - 1) / kLanes<T>;
  if (left <= kTileVectors) return left;
  return left == kTileVectors + 1 && kTileVectors > 2 ? kTileVectors - 1 : kTileVectors;
}

template <class T, bool kAcrossA, bool kAcrossB>
class Multiplication {
 public:
  Multiplication(const Product<T>& product, Worker& worker)
      : p(product),
        panels(static_cast<T*>(worker.scratch)),
        strips(at(worker, kStripsAt<T>)),
        chains(at(worker, kChainsAt<T>)) {}

  void run() {
    const bool waits = p.adds && p.k > kDepth<T>;  // C still holds what is to be added while chains are unfinished
    for (i_begin = 0; i_begin < p.m; i_begin = i_end) {
      i_end = waits ? i_begin + piece(p.m, i_begin, kChains) : p.m;
      for (j_begin = 0; j_begin < p.n; j_begin += columns) {
        columns = least(p.n - j_begin, kColumns<T>);
        k_begin = 0;
        do {
          depth = piece(p.k, k_begin, kDepth<T>);
          pack();
          for (index i = i_begin; i < i_end; i += kRows) rows(i, least(i_end - i, kRows));
          k_begin += depth;
        } while (k_begin < p.k);
      }
    }
  }

 private:
  static T* at(Worker& worker, index bytes) { return reinterpret_cast<T*>(static_cast<char*>(worker.scratch) + bytes); }

  // Whether the panel is read where it lies: few rows of C, and no column of it beyond the matrix.
  bool direct(index j, index vectors) const {
    if (kAcrossB || j_begin + j + vectors * kLanes<T> > p.readable) return false;
    return p.m <= 2 * kTileRows || (p.m <= 64 && p.ldb <= 128);
  }

  void pack() {
    for (index j = 0, vectors; j < columns; j += vectors * kLanes<T>) {
      vectors = panel_vectors<T>(columns, j);
      if (direct(j, vectors)) continue;
      const index width = vectors * kLanes<T>, some = least(columns - j, width), first = j_begin + j;
      if constexpr (kAcrossB)
        pack_columns(depth, some, p.b + first * p.ldb + k_begin, p.ldb, width, panels + j * depth);
      else
        pack_rows(depth, some, p.b + k_begin * p.ldb + first, p.ldb, width, panels + j * depth);
    }
  }

  // Rows [i, i + count) of the columns and the depth that are packed.
  void rows(index i, index count) {
    const T* a = kAcrossA ? p.a + k_begin * p.lda + i : p.a + i * p.lda + k_begin;
    const bool strip = kAcrossA && columns > kWidth<T> && p.lda > 64;
    if (strip) pack_strips(count, depth, a, p.lda, strips);
    for (index j = 0, vectors; j < columns; j += vectors * kLanes<T>) {
      vectors = panel_vectors<T>(columns, j);
      const bool in_place = direct(j, vectors);
      const T* b = in_place ? p.b + k_begin * p.ldb + j_begin + j : panels + j * depth;
      const index b_stride = in_place ? p.ldb : vectors * kLanes<T>;
      for (index r = 0; r < count; r += kTileRows) {
        const index height = least(count - r, kTileRows);
        const TileFunction<T> tile = kTiles<T>.of[height - 1][vectors - 1];
        const Destination<T> to = destination(i + r, j, vectors);
        if (strip)
          tile(depth, strips + r * depth, 1, kTileRows, b, b_stride, to);
        else if (kAcrossA)
          tile(depth, a + r, 1, p.lda, b, b_stride, to);
        else
          tile(depth, a + r * p.lda, p.lda, 1, b, b_stride, to);
      }
    }
  }

  Destination<T> destination(index i, index j, index vectors) const {
    const bool ends = k_begin + depth == p.k, waits = p.adds && p.k > kDepth<T>;
    T* const c = p.c + i * p.ldc + j_begin + j;
    T* const between = waits ? chains + (i - i_begin) * kColumns<T> + j : c;
    const index between_stride = waits ? kColumns<T> : p.ldc;
    Destination<T> to;
    to.partial = k_begin ? between : nullptr;
    to.partial_stride = between_stride;
    to.out = ends ? c : between;
    to.out_stride = ends ? p.ldc : between_stride;
    to.bias = ends && p.bias ? p.bias + j_begin + j : nullptr;
    to.old = ends && p.adds ? c : nullptr;
    to.old_stride = p.ldc;
    to.last = int(least(columns - j - (vectors - 1) * kLanes<T>, kLanes<T>));
    return to;
  }

  const Product<T> p;
  T *const panels, *const strips, *const chains;
  index i_begin = 0, i_end = 0, j_begin = 0, columns = 0, k_begin = 0, depth = 0;
};

// The sums of columns [begin, end) of x (rows, columns), each a chain of additions in double, rounded once.
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

enum Size { kM, kN, kK, kStrideA, kStrideB, kStrideC, kAdds, kAddsSums };

// -- the kernels. Integers: m, n, k, the strides of the rows of A, B and C, whether the old C is added, and, of a product by
// columns, whether the old sums are. A is (m, k), or (k, m) in gemm_tn; B is (k, n), or (n, k) in gemm_nt; C is (m, n).

// Columns [begin, end) of C. Arrays: A, B, bias (n) or null, C, sums (n) or null: those of the columns of B, not for gemm_nt.
template <class T, bool kAcrossA, bool kAcrossB>
void by_columns(const Arguments& given, index begin, index end, Worker& worker) {
  const index* size = given.integers;
  const T* b = static_cast<const T*>(given.arrays[1]);
  const T* bias = static_cast<const T*>(given.arrays[2]);
  const index ldb = size[kStrideB];
  Product<T> p;
  p.m = size[kM], p.n = end - begin, p.k = size[kK];
  p.a = static_cast<const T*>(given.arrays[0]), p.lda = size[kStrideA];
  p.b = b + (kAcrossB ? begin * ldb : begin), p.ldb = ldb;
  p.c = static_cast<T*>(given.arrays[3]) + begin, p.ldc = size[kStrideC];
  p.bias = bias ? bias + begin : nullptr;
  p.adds = size[kAdds] != 0;
  p.readable = size[kN] - begin;
  Multiplication<T, kAcrossA, kAcrossB>(p, worker).run();
  if (T* sums = static_cast<T*>(given.arrays[4])) sum_columns(p.k, b, ldb, begin, end, sums, size[kAddsSums] != 0);
}

// Rows [begin, end) of C. Arrays: B, bias (n) or null, A, C.
template <class T, bool kAcrossA, bool kAcrossB>
void by_rows(const Arguments& given, index begin, index end, Worker& worker) {
  const index* size = given.integers;
  const index lda = size[kStrideA], ldc = size[kStrideC];
  Product<T> p;
  p.m = end - begin, p.n = size[kN], p.k = size[kK];
  p.a = static_cast<const T*>(given.arrays[2]) + (kAcrossA ? begin : begin * lda), p.lda = lda;
  p.b = static_cast<const T*>(given.arrays[0]), p.ldb = size[kStrideB];
  p.c = static_cast<T*>(given.arrays[3]) + begin * ldc, p.ldc = ldc;
  p.bias = static_cast<const T*>(given.arrays[1]);
  p.adds = size[kAdds] != 0;
  p.readable = p.n;
  Multiplication<T, kAcrossA, kAcrossB>(p, worker).run();
}

// out[begin:end] = the sums of these columns of x (rows, n), or that added. Arrays: x, out (n). Integers: rows, the stride of
// the rows of x, whether the old sums are added.
template <class T>
void column_sums(const Arguments& given, index begin, index end, Worker&) {
  const index* size = given.integers;
  T* out = static_cast<T*>(given.arrays[1]);
  sum_columns(size[0], static_cast<const T*>(given.arrays[0]), size[1], begin, end, out, size[2] != 0);
}

}  // namespace

const Entry* entries() {
  static const Entry table[] = {
      {"gemm_nn<float>", by_columns<float, false, false>},
      {"gemm_nn<double>", by_columns<double, false, false>},
      {"gemm_nt<float>", by_columns<float, false, true>},
      {"gemm_nt<double>", by_columns<double, false, true>},
      {"gemm_tn<float>", by_columns<float, true, false>},
      {"gemm_tn<double>", by_columns<double, true, false>},
      {"gemm_nn_rows<float>", by_rows<float, false, false>},
      {"gemm_nn_rows<double>", by_rows<double, false, false>},
      {"gemm_nt_rows<float>", by_rows<float, false, true>},
      {"gemm_nt_rows<double>", by_rows<double, false, true>},
      {"gemm_tn_rows<float>", by_rows<float, true, false>},
      {"gemm_tn_rows<double>", by_rows<double, true, false>},
      {"column_sums<float>", column_sums<float>},
      {"column_sums<double>", column_sums<double>},
      {nullptr, nullptr},
  };
  return table;
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
