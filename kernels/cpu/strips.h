// Rows of a matrix by strips of columns, a line of the cache wide: loops over the lanes of one become vector code, and a
// lane is computed as a scalar would be.
#pragma once
#include "functions.h"
#include "vector.h"

namespace bnengine {
namespace BNENGINE_ISA {

constexpr index least(index a, index b) { return a < b ? a : b; }

// A worker's scratch, handed out by pieces of whole lines.
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

// The block [begin, end) of a launch over a matrix, cut by columns or by rows.
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

// Over the lanes of a strip. GCC would unroll such a loop before it looks whether it is vector code.
#define EACH_LANE(T, j) _Pragma("GCC unroll 1") for (int j = 0; j < kStripColumns<T>; ++j)

// whole(first) for each strip of [0, columns), and some(first, count) for what is left of less than a line.
template <class T, class F, class G>
VECTOR void each_strip(index columns, F whole, G some) {
  index j = 0;
  for (; j + kStripColumns<T> <= columns; j += kStripColumns<T>) whole(j);
  if (j < columns) some(j, int(columns - j));
}

// Rows of a strip of less than a line, aside and padded with zeros: they are gone through as whole strips are, one line
// behind the other. Lane by lane they would take several times as long, a step with 100 channels a fifth more.
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

// Sums of a strip's lanes, in registers: an array that is added to GCC keeps in memory.
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

// Rows that are gone through at once: what all their strips need stays in registers, and few of their lines meet in a set of
// the first-level cache.
constexpr index kTogether = 4;

// Asks for rows of a strip before they are needed: where rows are far apart, or several are gone through at once, no processor
// fetches them by itself.
template <class T>
VECTOR void ask_for(const T* x, index rows, index stride) {
  for (index r = 0; r < rows; ++r) __builtin_prefetch(x + r * stride, 0, 3);
}
// How many rows ahead, where `held` rows are gone through at once. Columns of an array that is near at hand are not asked
// for, which is to say beyond the last row.
constexpr index kNearBytes = 2 << 20, kAheadBytes = 8 << 10;
template <class T>
index rows_ahead(index rows, index stride, index columns, index held) {
  if (stride != columns && rows * stride * index(sizeof(T)) <= kNearBytes) return rows;
  const index ahead = kAheadBytes / (columns * index(sizeof(T)));
  return ahead < held ? held : ahead;
}

// Whether rows of so many columns may be stored past the caches: a vector is a line, and each row is whole lines.
template <class T>
bool of_lines(const T* p, index columns) {
  return kVectorBytes == 64 && reinterpret_cast<uintptr_t>(p) % 64 == 0 && columns % kStripColumns<T> == 0;
}

// A line stored past the caches, which would read it first and then keep what nobody reads soon. A kernel that does so ends
// with settle(), so that another thread sees what it stored.
template <class T>
VECTOR void stream(T* to, const T (&line)[kStripColumns<T>]) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_loadu_si512(line));
#else
  __builtin_memcpy(to, line, sizeof line);
#endif
}
inline void settle() {
#if defined(__AVX512F__)
  _mm_sfence();
#endif
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
