// The rows of a micro-batch, out of a data set in memory: rows of bytes, whatever their type.
#include <string.h>

#include "kernel.h"

namespace bnengine {
namespace BNENGINE_ISA {
namespace {

constexpr index kAhead = 4;      // rows asked for before their turn, for they lie anywhere
constexpr index kAsked = 1024;   // bytes of a row that are asked for: the processor itself fetches the rest

// Row i of each output is row order[cursor[0] + offset + i] of its input, for i in [begin, end); the normaliser is
// normalisers[cursor[1]]. Arrays: x, target, weights or null, samples, normalisers, order, cursor, and the outputs of the
// first five. Integers: rows, bytes of a row of x, target, weights and normalisers, the bytes between two rows of x, offset.
void gather(const Arguments& given, index begin, index end, Worker&) {
  const char* const* from = reinterpret_cast<const char* const*>(given.arrays);
  char* const* to = reinterpret_cast<char* const*>(given.arrays) + 7;
  const char *x = from[0], *target = from[1], *weights = from[2];
  const index* samples = reinterpret_cast<const index*>(from[3]);
  const index *order = reinterpret_cast<const index*>(from[5]), *cursor = reinterpret_cast<const index*>(from[6]);
  const index features = given.integers[1], targets = given.integers[2], weighed = given.integers[3];
  const index normaliser = given.integers[4], between = given.integers[5];
  const index* chosen = order + cursor[0] + given.integers[6];
  for (index i = begin; i < end; ++i) {
    if (i + kAhead < end) {
      const char* next = x + chosen[i + kAhead] * between;
      for (index byte = 0; byte < features && byte < kAsked; byte += 64) __builtin_prefetch(next + byte);
    }
    const index row = chosen[i];
    memcpy(to[0] + i * features, x + row * between, size_t(features));
    memcpy(to[1] + i * targets, target + row * targets, size_t(targets));
    if (weights) memcpy(to[2] + i * weighed, weights + row * weighed, size_t(weighed));
    reinterpret_cast<index*>(to[3])[i] = samples[row];
  }
  if (begin == 0) memcpy(to[4], from[4] + cursor[1] * normaliser, size_t(normaliser));
}

}  // namespace

const Entry* entries() {
  static const Entry table[] = {
      {"gather", gather},
      {nullptr, nullptr},
  };
  return table;
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
