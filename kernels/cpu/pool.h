// The thread pool: one per process. It runs tasks and knows nothing about what they compute.
#pragma once
#include "kernel.h"
#include "trial.h"

namespace bnengine {

// Work to run, as stages of tasks. The tasks of a stage run in any order, on any thread. Stages form waves of
// consecutive stages that are independent: a stage of the same wave may begin when all tasks of the previous stages are
// taken, but a wave begins only when all tasks of the previous waves have ended.
struct Work {
  void (*run)(const void* context, index stage, index task, Worker&);
  const void* context;
  const index* ends;  // ends[i]: tasks of the stages up to and including i; no stage is empty
  index stages;
  index only;  // tasks of the only stage, if `ends` is null
  const index* waves = nullptr;  // the end of each stage's wave (exclusive); null: every stage is a wave
  Trial* trial = nullptr;  // null: always use all threads

  index end(index stage) const { return ends ? ends[stage] : only; }
  index begin(index stage) const { return stage ? ends[stage - 1] : 0; }
  index wave(index stage) const { return waves ? waves[stage] : stage + 1; }
};

constexpr int kMostThreads = 256;
constexpr index kMostTasks = index(1) << 31;  // per stage

enum class Outcome { done = 0, nested = 1, memory = 2, range = 3 };

// Runs all tasks and returns when the last one has ended. Concurrent calls from several threads run one after the
// other. A call from inside a task runs nothing and returns `nested`.
Outcome pool_run(const Work&);

// Sets the number of threads, including the caller's. Stops the current workers, after the work that runs; the next
// work that can use several threads starts new ones.
Outcome pool_set_threads(int count);
int pool_threads();

// Stops and joins the workers. The next work starts them again.
Outcome pool_release();

// Ensures that each thread has at least this many bytes of scratch.
Outcome pool_reserve(size_t scratch);

// Fills all scratch with one byte. Tests use it to show that no result depends on the contents of scratch.
Outcome pool_fill_scratch(int byte);

// Returns when no thread can still read `ends` and `waves` of any work that has run; only then may they be freed. A
// late worker may read them after pool_run() has returned, but nothing else.
Outcome pool_drain();

}  // namespace bnengine
