// What every native CPU kernel is: a function of a launch and a block of it.
//
// Kernels are templates, compiled once for each instruction set (BNENGINE_ISA names it: v3, v4, aarch64) and found by name.
// A block is a range of columns, of rows, or of a flat array; blocks follow from the shape alone, never from the number
// of threads, and no result depends on where a block begins. So the same launch gives the same bits on any number of
// threads, and v3 gives those of v4: every product is one chain of fused multiply-adds over k in its order, every other
// operation rounds by itself (-ffp-contract=off), and nothing calls libm.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace bnengine {

using index = int64_t;

// The arguments of a launch in the order in which Python declares them, null for an absent array. A kernel reads them by name,
// as layout.h has them.
struct Arguments {
  void* const* arrays;
  const index* integers;
  const double* reals;
};

// Memory of the thread that runs a block: what it holds means nothing between blocks.
struct Worker {
  void* scratch;  // at a multiple of 64 bytes
  size_t bytes;
};

// Runs the block [begin, end) of a launch.
using Kernel = void (*)(const Arguments&, index begin, index end, Worker&);

// A table of an instruction set: kernels by name, ended by a null name.
struct Entry {
  const char* name;  // such as "gemm_nn<float>"
  Kernel kernel;
};

}  // namespace bnengine
