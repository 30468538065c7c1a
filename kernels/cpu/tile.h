// The innermost loop of a matrix product: computes one tile of C in registers.
//
// Each element of the tile is one chain of fused multiply-adds over k, in order. The tile's height and width therefore
// change the speed and no bit.
#pragma once
#include <utility>

#include "vector.h"

namespace bnengine {
namespace BNENGINE_ISA {

// A tile of C in memory.
template <class T>
struct Destination {
  T* out;
  index stride;
  bool adds;      // whether the chains are added to what is there
  const T* bias;  // one per column, added last; may be null
  int last;       // columns in the last vector
};

// A tile of kRows rows and kVectors vectors of columns: accumulates a(i, k) b(k, j) over k, where a(i, k) is a[i row +
// k step_a] and row k of B starts at b[k step_b]. Indices are template constants because GCC would otherwise keep the
// chains in memory.
template <class T, class Rows, class Vectors>
struct Tile;

template <class T, size_t... I, size_t... J>
struct Tile<T, std::index_sequence<I...>, std::index_sequence<J...>> {
  static constexpr int kRows = sizeof...(I), kVectors = sizeof...(J);
  using V = Vector<T>;

  template <size_t i>
  static VECTOR void step(V (&c)[kRows][kVectors], T a, const V (&b)[kVectors]) {
    const V all = broadcast(a);
    ((c[i][J] = fused(all, b[J], c[i][J])), ...);
  }

  template <size_t j>
  static VECTOR V get(const T* p, int last) {
    if (j + 1 < kVectors || last == kLanes<T>) return load(p + j * kLanes<T>);
    return load_part(p + j * kLanes<T>, last);
  }
  template <size_t j>
  static VECTOR void put(T* p, V v, int last) {
    if (j + 1 < kVectors || last == kLanes<T>) return store(p + j * kLanes<T>, v);
    store_part(p + j * kLanes<T>, v, last);
  }

  template <size_t i>
  static VECTOR void add(V (&c)[kRows][kVectors], const T* p, int last) {
    ((c[i][J] += get<J>(p, last)), ...);
  }
  template <size_t i>
  static VECTOR void finish(const V (&c)[kRows][kVectors], const Destination<T>& d) {
    (put<J>(d.out + index(i) * d.stride, c[i][J], d.last), ...);
  }

  static void run(index length, const T* a, index row, index step_a, const T* b, index step_b,
                  const Destination<T>& d) {
    V c[kRows][kVectors] = {};
    const T* const rows[kRows] = {a + index(I) * row...};
    index at = 0;
    for (index k = 0; k < length; ++k, at += step_a, b += step_b) {
      const V line[kVectors] = {load(b + J * kLanes<T>)...};
      (step<I>(c, rows[I][at], line), ...);
    }
    if (d.adds) (add<I>(c, d.out + index(I) * d.stride, d.last), ...);
    if (d.bias) (add<I>(c, d.bias, d.last), ...);
    (finish<I>(c, d), ...);
  }
};

template <class T>
using TileFunction = void (*)(index, const T*, index, index, const T*, index, const Destination<T>&);

// The largest tile whose chains fit into the registers. A tile of a single row has more vectors, since otherwise it
// would have too few independent chains to keep the processor busy.
constexpr int kTileRows = kVectorRegisters == 32 ? 8 : 6;
constexpr int kTileVectors = kVectorRegisters == 32 ? 3 : 2;
constexpr int kRowVectors = 8;

template <class T>
struct Tiles {
  TileFunction<T> of[kTileRows][kTileVectors];  // [rows - 1][vectors - 1]
  TileFunction<T> row[kRowVectors];             // [vectors - 1]
};

template <class T, size_t v, size_t... I>
constexpr void fill_tiles(Tiles<T>& tiles, std::index_sequence<I...>) {
  ((tiles.of[I][v] = Tile<T, std::make_index_sequence<I + 1>, std::make_index_sequence<v + 1>>::run), ...);
}
template <class T, size_t... J, size_t... R>
constexpr Tiles<T> tiles_of(std::index_sequence<J...>, std::index_sequence<R...>) {
  Tiles<T> tiles = {};
  (fill_tiles<T, J>(tiles, std::make_index_sequence<kTileRows>()), ...);
  ((tiles.row[R] = Tile<T, std::index_sequence<0>, std::make_index_sequence<R + 1>>::run), ...);
  return tiles;
}

template <class T>
constexpr Tiles<T> kTiles =
    tiles_of<T>(std::make_index_sequence<kTileVectors>(), std::make_index_sequence<kRowVectors>());

}  // namespace BNENGINE_ISA
}  // namespace bnengine
