// The threads that run blocks: one small pool a process, which knows nothing of what a task does.
#pragma once
#include "kernel.h"
#include "trial.h"

namespace bnengine {

// Stages of tasks; the tasks of a stage in any order, on any thread. Stages are taken up one after the other: one begins
// when those before it have ended, but within a wave of them when all their tasks are taken.
struct Work {
  void (*run)(const void* context, index stage, index task, Worker&);
  const void* context;
  const index* ends;  // tasks of the stages up to and with each: ends[0] is the first stage's count; none is empty
  index stages;
  index only;  // where `ends` is null: the tasks of the only stage
  const index* waves = nullptr;  // behind the last stage of the wave that each is in; null: each is one of its own
  Trial* trial = nullptr;  // null: by all threads

  index end(index stage) const { return ends ? ends[stage] : only; }
  index begin(index stage) const { return stage ? ends[stage - 1] : 0; }
  index wave(index stage) const { return waves ? waves[stage] : stage + 1; }
};

constexpr int kMostThreads = 256;
constexpr index kMostTasks = index(1) << 31;  // of a stage

enum class Outcome { done = 0, nested = 1, memory = 2, range = 3 };

// Runs all of it and returns when the last task has ended. Calls from several threads go one after the other; a call
// from inside a task runs nothing and says `nested`.
Outcome pool_run(const Work&);

// The caller's thread is one of them. Threads are started by the first work that has use for them, and stopped here;
// work that runs is waited for.
Outcome pool_set_threads(int count);
int pool_threads();

// Stops and joins the threads. The next work starts them again.
Outcome pool_release();

// From now on each thread has at least so many bytes of scratch.
Outcome pool_reserve(size_t scratch);

// Sets every byte of all scratch: nothing may depend on what it holds.
Outcome pool_fill_scratch(int byte);

// Returns when no thread looks at the `ends` and `waves` of any work that was run: only now may they go. A late thread may
// look at them behind pool_run(), but at nothing else.
Outcome pool_drain();

}  // namespace bnengine
