// The plain C interface of the library: instruction sets, kernels by name, threads, and recorded steps that run as one.
//
// Functions that can fail return an Outcome (pool.h): 0 done, 1 called from inside a task, 2 no memory, 3 out of range.
#pragma once
#include "kernel.h"

#define BNENGINE_EXPORT extern "C" __attribute__((visibility("default")))

namespace bnengine {

struct Plan;

// What follows belongs to this number; it changes when a function here changes, so that no other loader takes it.
BNENGINE_EXPORT int bnengine_interface();

// -- the instruction set, and the kernels of it

// Those that were compiled, the most capable first, by index; null behind the last.
BNENGINE_EXPORT const char* bnengine_isa_at(int i);
// Whether this processor has it.
BNENGINE_EXPORT int bnengine_isa_runs(const char* name);
// Takes it from now on; null for the most capable that runs. 3 if there is none of this name, or it does not run here.
// Kernels found and plans made before stay as they are.
BNENGINE_EXPORT int bnengine_choose_isa(const char* name);
BNENGINE_EXPORT const char* bnengine_isa();
// A kernel of the instruction set taken, null if there is none of this name; names by index, null behind the last.
BNENGINE_EXPORT Kernel bnengine_kernel(const char* name);
BNENGINE_EXPORT const char* bnengine_kernel_at(int i);

// -- threads

BNENGINE_EXPORT int bnengine_set_threads(int count);
BNENGINE_EXPORT int bnengine_threads();
BNENGINE_EXPORT int bnengine_release();
BNENGINE_EXPORT int bnengine_fill_scratch(int byte);

// -- recorded steps

// A group of launches, of which a thread takes a block and runs all of them on it. Blocks are `unit` or a multiple of it
// wide, but for the last, and there are `blocks` of them, at most one a unit; both follow from the shape. A group that
// does not wait may run beside the one before it, and beside those that that one does not wait for.
struct bnengine_group {
  index unit, blocks, launches, waits;
};

// What the blocks of a launch divide, the same in a group of more than one block; and how many arrays, integers and reals
// it takes from where the one before it stopped.
struct bnengine_launch {
  Kernel kernel;
  index width, arrays, integers, reals;
};

// Groups in their order; `launches`, `arrays`, `integers` and `reals` hold those of all groups, one behind the other,
// and are copied. Scratch of so many bytes is there for each thread from now on. Null if that cannot be, and why in
// `outcome`.
BNENGINE_EXPORT Plan* bnengine_plan(const bnengine_group* groups, index count, const bnengine_launch* launches,
                                    void* const* arrays, const index* integers, const double* reals, index scratch,
                                    int* outcome);
// Where a plan holds the arrays of its launches, in their order: what is put there is read by the next run. Not to be written
// while a thread runs the plan.
BNENGINE_EXPORT void** bnengine_plan_arrays(Plan* plan);
// Runs all groups and allocates nothing.
BNENGINE_EXPORT int bnengine_run(const Plan* plan);
// Runs it so many times, one behind the other, at least once: no more behind one that changed `until`, or once so many
// nanoseconds have passed. `ran`: how many there were.
BNENGINE_EXPORT int bnengine_run_on(const Plan* plan, index times, const index* until, index nanoseconds, index* ran);
// The same with a clock: adds to `busy` what each launch took, on all threads together, and says in `ended` when the call
// began and each group ended, all in ticks of the processor's clock.
BNENGINE_EXPORT int bnengine_run_timed(const Plan* plan, uint64_t* busy, uint64_t* ended);
// Must not be called while a thread runs the plan.
BNENGINE_EXPORT void bnengine_plan_free(Plan* plan);
// One launch as a group of its own: what a plan of it would do.
BNENGINE_EXPORT int bnengine_launch_now(const bnengine_group* group, const bnengine_launch* launch,
                                        void* const* arrays, const index* integers, const double* reals, index scratch);

}  // namespace bnengine
