// The interface of native CPU kernels: a kernel is a function that runs one block of a launch.
//
// Kernels are templates. They are compiled once per instruction set (BNENGINE_ISA: v3, v4 or aarch64) and found by
// name. A block is a range of columns, of rows, or of a flat array.
//
// A launch gives the same bits on any number of threads, because the shape alone determines the blocks and no result
// depends on where a block begins. AVX2 (v3) and AVX-512 (v4) give the same bits, because each element of a matrix
// product is a sum of chains of fused multiply-adds that k alone determines, every other operation rounds separately
// (-ffp-contract=off), and no kernel calls libm.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace bnengine {

using index = int64_t;

// The arguments of a launch, in the order in which Python declares them. An absent array is null. A kernel reads them
// by name, through the structs of layout.h.
struct Arguments {
  void* const* arrays;
  const index* integers;
  const double* reals;
};

// Scratch memory of the thread that runs a block. Its contents are undefined when a block begins.
struct Worker {
  void* scratch;  // aligned to 64 bytes
  size_t bytes;
};

// Runs the block [begin, end) of a launch.
using Kernel = void (*)(const Arguments&, index begin, index end, Worker&);

// A row of a table of kernels. A null name ends the table.
struct Entry {
  const char* name;  // for example "gemm_nn<float>"
  Kernel kernel;
};

}  // namespace bnengine
