// Processes the rows of a matrix in strips of columns, one cache line (64 bytes) wide.
//
// Loops over the lanes of a strip compile to vector code. Each lane is computed like a scalar, so the width of the
// vectors changes no bit. The last strip may have fewer columns: it is copied to zero-padded lines first (see Aside).
#pragma once
#include "functions.h"
#include "vector.h"

namespace bnengine {
namespace BNENGINE_ISA {

constexpr index least(index a, index b) { return a < b ? a : b; }

// Allocates arrays from a worker's scratch, each rounded up to whole cache lines.
class Scratch {
 public:
  explicit Scratch(Worker& worker) : at_(static_cast<char*>(worker.scratch)) {}
  template <class T>
  T* take(index count) {
    T* piece = reinterpret_cast<T*>(at_);
    at_ += (count * index(sizeof(T)) + 63) / 64 * 64;
    return piece;
  }

 private:
  char* at_;
};

// The part of a (rows, columns) matrix that a block [begin, end) covers: all rows of some columns, or all columns of
// some rows.
struct Region {
  index row, rows, column, columns;
  Region(index all_rows, index all_columns, bool by_columns, index begin, index end)
      : row(by_columns ? 0 : begin),
        rows(by_columns ? all_rows : end - begin),
        column(by_columns ? begin : 0),
        columns(by_columns ? end - begin : all_columns) {}
};

// -- strips

template <class T>
constexpr int kStripColumns = 64 / int(sizeof(T));

// Loops over the lanes of a strip. Without the pragma, GCC unrolls the loop before it tries to vectorize it.
#define EACH_LANE(T, j) _Pragma("GCC unroll 1") for (int j = 0; j < kStripColumns<T>; ++j)

// Calls whole(first) for each full strip of [0, columns), then some(first, count) for the remaining columns, if any.
template <class T, class F, class G>
VECTOR void each_strip(index columns, F whole, G some) {
  index j = 0;
  for (; j + kStripColumns<T> <= columns; j += kStripColumns<T>) whole(j);
  if (j < columns) some(j, int(columns - j));
}

// Zero-padded copies of the rows of a partial strip, one line each, so that the code for full strips processes them. A
// scalar loop over the remaining columns would be several times slower, and a step with 100 channels a fifth slower.
template <class T, index kRows>
struct Aside {
  T lines[kRows * kStripColumns<T>];

  VECTOR const T* take(const T* from, index rows, index stride, int count) {
    if (!from) return nullptr;
    for (index r = 0; r < rows; ++r)
      for (int at = 0; at < kStripColumns<T>; at += kLanes<T>)
        store(lines + r * kStripColumns<T> + at, load_part(from + r * stride + at, there(count - at)));
    return lines;
  }
  VECTOR T* room() { return lines; }
  VECTOR void put(T* to, index rows, index stride, int count) const {
    for (index r = 0; r < rows; ++r)
      for (int at = 0; at < kStripColumns<T>; at += kLanes<T>)
        store_part(to + r * stride + at, load(lines + r * kStripColumns<T> + at), there(count - at));
  }

 private:
  static VECTOR int there(int left) { return left < 0 ? 0 : left < kLanes<T> ? left : kLanes<T>; }
};

// Sums of the lanes of a strip. The recursion keeps them in registers; GCC would keep an array in memory.
template <class T, int kVectors = 64 / kVectorBytes>
struct StripSum {
  Vector<T> first;
  StripSum<T, kVectors - 1> rest;
  explicit VECTOR StripSum(const T* line) : first(load(line)), rest(line + kLanes<T>) {}
  VECTOR void add(const T* line) {
    first += load(line);
    rest.add(line + kLanes<T>);
  }
  VECTOR void put(T* line) const {
    store(line, first);
    rest.put(line + kLanes<T>);
  }
};
template <class T>
struct StripSum<T, 0> {
  explicit VECTOR StripSum(const T*) {}
  VECTOR void add(const T*) {}
  VECTOR void put(T*) const {}
};

// Rows that are processed together. With four, the constants of all their strips stay in registers and few of their
// lines map to the same set of the first-level cache.
constexpr index kTogether = 4;

// Prefetches rows of a strip. The hardware prefetcher does not when rows are far apart or several are read together.
template <class T>
VECTOR void ask_for(const T* x, index rows, index stride) {
  for (index r = 0; r < rows; ++r) __builtin_prefetch(x + r * stride, 0, 3);
}
// Returns how many rows ahead to prefetch when `held` rows are processed together. For some columns of an array of at
// most kNearBytes it returns `rows`, which disables prefetching: such an array is probably in the cache already.
constexpr index kNearBytes = 2 << 20, kAheadBytes = 8 << 10;
template <class T>
index rows_ahead(index rows, index stride, index columns, index held) {
  if (stride != columns && rows * stride * index(sizeof(T)) <= kNearBytes) return rows;
  const index ahead = kAheadBytes / (columns * index(sizeof(T)));
  return ahead < held ? held : ahead;
}

// Returns whether rows of this many columns may bypass the caches: a vector must be a cache line, and each row must
// consist of whole, aligned lines.
template <class T>
bool of_lines(const T* p, index columns) {
  return kVectorBytes == 64 && reinterpret_cast<uintptr_t>(p) % 64 == 0 && columns % kStripColumns<T> == 0;
}

// Writes a line past the caches. A normal store would read the line first and keep data in the cache that is not read
// again soon. A kernel that uses this must end with store_fence(), which makes the lines visible to other threads.
template <class T>
VECTOR void stream(T* to, const T (&line)[kStripColumns<T>]) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_loadu_si512(line));
#else
  __builtin_memcpy(to, line, sizeof line);
#endif
}
inline void store_fence() {
#if defined(__AVX512F__)
  _mm_sfence();
#endif
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
