// Kernels that only tests need: sums in two launches, a log of what ran, calls from inside, a thread's own memory.
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>

#include "cpu/kernel.h"

using bnengine::Arguments;
using bnengine::index;
using bnengine::Worker;

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {
constexpr index kRows = 16;  // of a block that has a partial sum
}

// partial[i, c] = the sum of rows 16 i to 16 i + 15 of x[:, c]. Blocks are ranges of i. Arrays: x, partial. Integers:
// rows, columns.
EXPORT void block_sums(const Arguments& a, index begin, index end, Worker&) {
  const float* x = static_cast<const float*>(a.arrays[0]);
  float* partial = static_cast<float*>(a.arrays[1]);
  const index rows = a.integers[0], columns = a.integers[1];
  for (index i = begin; i < end; ++i)
    for (index c = 0; c < columns; ++c) {
      float sum = 0;
      for (index r = i * kRows; r < rows && r < (i + 1) * kRows; ++r) sum += x[r * columns + c];
      partial[i * columns + c] = sum;
    }
}

// out[c] = scale * the sum of partial[:, c]. Blocks are columns. Arrays: partial, out. Integers: blocks, columns.
// Reals: scale.
EXPORT void merged_sums(const Arguments& a, index begin, index end, Worker&) {
  const float* partial = static_cast<const float*>(a.arrays[0]);
  for (index c = begin; c < end; ++c) {
    double sum = 0;
    for (index i = 0; i < a.integers[0]; ++i) sum += partial[i * a.integers[1] + c];
    static_cast<float*>(a.arrays[1])[c] = float(a.reals[0] * sum);
  }
}

// Appends (number, begin, end) to a log whose first int64 counts them. Arrays: log, and one that it is cut along.
// Integers: number.
EXPORT void logged(const Arguments& a, index begin, index end, Worker&) {
  int64_t* log = static_cast<int64_t*>(a.arrays[0]);
  const int64_t at = reinterpret_cast<std::atomic<int64_t>*>(log)->fetch_add(1);
  log[1 + 3 * at] = a.integers[0], log[2 + 3 * at] = begin, log[3 + 3 * at] = end;
}

// out[i] = the outcome of running a plan from inside. Arrays: out. Integers: the address of bnengine_run, the plan.
EXPORT void runs_a_plan(const Arguments& a, index begin, index end, Worker&) {
  const auto run = reinterpret_cast<int (*)(const void*)>(a.integers[0]);
  for (index i = begin; i < end; ++i)
    static_cast<int64_t*>(a.arrays[0])[i] = run(reinterpret_cast<const void*>(a.integers[1]));
}

// out[i] = i if the thread has its bytes of scratch to itself, else -1. Arrays: out. Integers: bytes.
EXPORT void uses_scratch(const Arguments& a, index begin, index end, Worker& worker) {
  int64_t* mine = static_cast<int64_t*>(worker.scratch);
  const index n = a.integers[0] / 8;
  for (index i = begin; i < end; ++i) {
    bool own = worker.bytes >= size_t(a.integers[0]);
    for (index k = 0; own && k < n; ++k) mine[k] = i;
    for (index k = 0; own && k < n; ++k) own = mine[k] == i;
    static_cast<int64_t*>(a.arrays[0])[i] = own ? i : -1;
  }
}

// out[i] = what the scratch holds there. Arrays: out.
EXPORT void reads_scratch(const Arguments& a, index begin, index end, Worker& worker) {
  for (index i = begin; i < end; ++i) static_cast<float*>(a.arrays[0])[i] = static_cast<float*>(worker.scratch)[i];
}

EXPORT void nothing(const Arguments&, index, index, Worker&) {}

// Takes memory and keeps it. Arrays: out. Integers: bytes.
EXPORT void allocates(const Arguments& a, index, index, Worker&) {
  static void* kept;
  kept = malloc(size_t(a.integers[0]));
  *static_cast<double*>(a.arrays[0]) = kept != nullptr;
}

// Raises flags[0], waits for flags[1], ten seconds at most; out[0] = whether it came. Arrays: flags, out.
EXPORT void waits(const Arguments& a, index, index, Worker&) {
  auto* flags = static_cast<std::atomic<int64_t>*>(a.arrays[0]);
  flags[0].store(1);
  for (int i = 0; i < 10000 && !flags[1].load(); ++i) usleep(1000);
  *static_cast<double*>(a.arrays[1]) = double(flags[1].load());
}
