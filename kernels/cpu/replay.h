// The C interface of the library: instruction sets, kernels by name, threads, and recorded steps, each run by one call.
//
// Functions that can fail return an Outcome (pool.h): 0 done, 1 called from inside a task, 2 out of memory, 3 out of
// range.
#pragma once
#include "kernel.h"

#define BNENGINE_EXPORT extern "C" __attribute__((visibility("default")))

namespace bnengine {

struct Plan;

// Returns the version of this interface. It is incremented when a function here changes, so that a loader refuses a
// library of another version.
BNENGINE_EXPORT int bnengine_interface();

// -- the instruction set, and the kernels of it

// Returns the i-th instruction set that was compiled, the most capable first; null after the last.
BNENGINE_EXPORT const char* bnengine_isa_at(int i);
// Returns whether this processor supports it.
BNENGINE_EXPORT int bnengine_isa_runs(const char* name);
// Selects an instruction set; null selects the most capable one that this processor supports. Returns 3 if the name is
// unknown or not supported here. Kernels and plans obtained before keep theirs.
BNENGINE_EXPORT int bnengine_choose_isa(const char* name);
BNENGINE_EXPORT const char* bnengine_isa();
// Returns a kernel of the selected instruction set, null if the name is unknown; and the i-th name, null after the
// last.
BNENGINE_EXPORT Kernel bnengine_kernel(const char* name);
BNENGINE_EXPORT const char* bnengine_kernel_at(int i);

// -- threads

BNENGINE_EXPORT int bnengine_set_threads(int count);
BNENGINE_EXPORT int bnengine_threads();
BNENGINE_EXPORT int bnengine_release();
BNENGINE_EXPORT int bnengine_fill_scratch(int byte);

// -- recorded steps

// A group of launches that are cut the same way: a thread takes a block and runs all launches of the group on it. There
// are `blocks` blocks, at most one per unit; each is a multiple of `unit` wide, except the last. Both follow from the
// shape. A group with `waits` = 0 may run at the same time as the previous group, and as those that the previous group
// does not wait for.
struct bnengine_group {
  index unit, blocks, launches, waits;
};

// A launch. `width` is the extent that its blocks divide, the same for all launches of a group of several blocks.
// `arrays`, `integers` and `reals` are the numbers of arguments that it takes, starting where the previous launch's
// end.
struct bnengine_launch {
  Kernel kernel;
  index width, arrays, integers, reals;
};

// Creates a plan of these groups, in order. `launches`, `arrays`, `integers` and `reals` are those of all groups,
// concatenated, and are copied. Reserves `scratch` bytes for each thread. Returns null on failure, with the reason in
// `outcome`.
BNENGINE_EXPORT Plan* bnengine_plan(const bnengine_group* groups, index count, const bnengine_launch* launches,
                                    void* const* arrays, const index* integers, const double* reals, index scratch,
                                    int* outcome);
// Returns the plan's array pointers, in the order of its launches. The next run reads what is written there. Do not
// write while a thread runs the plan.
BNENGINE_EXPORT void** bnengine_plan_arrays(Plan* plan);
// Runs all groups. Allocates nothing.
BNENGINE_EXPORT int bnengine_run(const Plan* plan);
// Runs the plan up to `times` times, at least once. Stops early after a run that changed `until`, or when `nanoseconds`
// have passed. `ran` receives the number of runs.
BNENGINE_EXPORT int bnengine_run_on(const Plan* plan, index times, const index* until, index nanoseconds, index* ran);
// Runs the plan once with timing, in ticks of the processor's clock. Adds the time of each launch, over all threads, to
// `busy`; `ended` receives the time when the call began, then the time when each group ended.
BNENGINE_EXPORT int bnengine_run_timed(const Plan* plan, uint64_t* busy, uint64_t* ended);
// Frees a plan. Do not call while a thread runs it.
BNENGINE_EXPORT void bnengine_plan_free(Plan* plan);
// Runs one launch as a separate group, with the same result as in a plan.
BNENGINE_EXPORT int bnengine_launch_now(const bnengine_group* group, const bnengine_launch* launch,
                                        void* const* arrays, const index* integers, const double* reals, index scratch);

}  // namespace bnengine
