// Runs recorded steps: groups of launches are stages of the thread pool, and the blocks of a group are its tasks.
//
// A plan is one allocation with all its groups, launches and arguments; running it allocates nothing. The cut into
// blocks depends only on a launch's width and the group's number of blocks, never on the number of threads.
#include "replay.h"

#include <stdlib.h>
#include <string.h>

#include "pool.h"

namespace bnengine {

struct Launch {
  Kernel kernel;
  index width;
  Arguments arguments;
};

struct Group {
  index unit, blocks;
  const Launch *first, *last;
};

// The head of one allocation; everything it points to follows in the same memory.
struct Plan {
  Work work;
  Trial trial;
  void** arrays;
};

namespace {

index ceiling(index a, index b) { return (a + b - 1) / b; }

bool valid(const bnengine_group& g, const bnengine_launch* launches) {
  bool fits = g.unit > 0 && g.launches > 0 && g.blocks > 0 && g.blocks < kMostTasks;
  for (const bnengine_launch* l = launches; fits && l != launches + g.launches; ++l) {
    fits = l->kernel && l->width >= 0 && l->arrays >= 0 && l->integers >= 0 && l->reals >= 0;
    if (g.blocks > 1) fits = fits && l->width == launches->width && g.blocks <= ceiling(l->width, g.unit);
  }
  return fits;
}

// Calls run(launch, begin, end) for each launch of a group, for one block.
template <class Run>
void each_launch(const Group& group, index block, Run run) {
  const index units = ceiling(group.first->width, group.unit);
  const index begin = units * block / group.blocks * group.unit;
  const index wanted = units * (block + 1) / group.blocks * group.unit;
  for (const Launch* launch = group.first; launch != group.last; ++launch)
    run(*launch, begin, block + 1 < group.blocks ? wanted : launch->width);
}

void run_task(const void* context, index stage, index task, Worker& worker) {
  each_launch(static_cast<const Group*>(context)[stage], task, [&](const Launch& launch, index begin, index end) {
    launch.kernel(launch.arguments, begin, end, worker);
  });
}

// -- the same, reading the clock before and after each launch

// Reads the processor's time-stamp counter, which runs at a constant rate.
uint64_t ticks() {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t count;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(count));
  return count;
#else
#error "kernels/cpu: a processor whose clock is not known; add it to replay.cpp"
#endif
}

struct Timed {
  const Group* groups;
  uint64_t *busy, *ended;  // per launch; per group
};

void run_task_timed(const void* context, index stage, index task, Worker& worker) {
  const Timed& timed = *static_cast<const Timed*>(context);
  uint64_t from = ticks();
  each_launch(timed.groups[stage], task, [&](const Launch& launch, index begin, index end) {
    launch.kernel(launch.arguments, begin, end, worker);
    const uint64_t now = ticks();
    __atomic_fetch_add(&timed.busy[&launch - timed.groups->first], now - from, __ATOMIC_RELAXED);
    from = now;
  });
  uint64_t last = __atomic_load_n(&timed.ended[stage], __ATOMIC_RELAXED);
  while (last < from &&
         !__atomic_compare_exchange_n(&timed.ended[stage], &last, from, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

// Allocates pieces from memory that is large enough. Without memory it only counts the bytes.
class Pieces {
 public:
  explicit Pieces(char* at) : base_(at) {}

  template <typename T>
  T* next(size_t count) {
    T* piece = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += (count * sizeof(T) + 15) / 16 * 16;
    return piece;
  }

  template <typename T>
  T* copy(const T* from, size_t count) {
    T* piece = next<T>(count);
    if (piece && count) memcpy(piece, from, count * sizeof(T));
    return piece;
  }

  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

struct Sizes {
  index groups, launches = 0, arrays = 0, integers = 0, reals = 0;
};

struct Given {
  const bnengine_group* groups;
  const bnengine_launch* launches;
  void* const* arrays;
  const index* integers;
  const double* reals;
};

// Builds the plan in the memory of `pieces`. Without memory, returns null and counts the bytes that it needs.
Plan* lay_out(Pieces& pieces, const Sizes& n, const Given& given) {
  Plan* plan = pieces.next<Plan>(1);
  Group* groups = pieces.next<Group>(size_t(n.groups));
  Launch* launches = pieces.next<Launch>(size_t(n.launches));
  index *ends = pieces.next<index>(size_t(n.groups)), *waves = pieces.next<index>(size_t(n.groups));
  void** const all = pieces.copy(given.arrays, size_t(n.arrays));
  void* const* arrays = all;
  const index* integers = pieces.copy(given.integers, size_t(n.integers));
  const double* reals = pieces.copy(given.reals, size_t(n.reals));
  if (!plan) return nullptr;
  const bnengine_launch* from = given.launches;
  index tasks = 0;
  for (index i = 0; i < n.groups; ++i) {
    const bnengine_group& g = given.groups[i];
    groups[i] = {g.unit, g.blocks, launches, launches + g.launches};
    for (index j = 0; j < g.launches; ++j, ++from) {
      *launches++ = {from->kernel, from->width, {arrays, integers, reals}};
      arrays += from->arrays, integers += from->integers, reals += from->reals;
    }
    ends[i] = tasks += g.blocks;
  }
  for (index i = n.groups - 1, after = n.groups; i >= 0; --i) {
    waves[i] = after;
    if (given.groups[i].waits) after = i;
  }
  *plan = {{run_task, groups, ends, n.groups, 0, waves, &plan->trial}, {}, all};
  return plan;
}

}  // namespace

Plan* bnengine_plan(const bnengine_group* groups, index count, const bnengine_launch* launches, void* const* arrays,
                    const index* integers, const double* reals, index scratch, int* outcome) {
  Sizes n{count};
  bool fits = count > 0 && count < kMostTasks && scratch >= 0;
  for (index i = 0; fits && i < count; ++i) {
    fits = valid(groups[i], launches + n.launches);
    for (index j = 0; fits && j < groups[i].launches; ++j) {
      const bnengine_launch& launch = launches[n.launches++];
      n.arrays += launch.arrays, n.integers += launch.integers, n.reals += launch.reals;
    }
  }
  *outcome = int(fits ? pool_reserve(size_t(scratch)) : Outcome::range);
  if (*outcome) return nullptr;
  const Given given{groups, launches, arrays, integers, reals};
  Pieces counted(nullptr);
  lay_out(counted, n, given);
  char* memory = static_cast<char*>(malloc(counted.used()));
  if (!memory) {
    *outcome = int(Outcome::memory);
    return nullptr;
  }
  Pieces pieces(memory);
  return lay_out(pieces, n, given);
}

void** bnengine_plan_arrays(Plan* plan) { return plan->arrays; }

int bnengine_run(const Plan* plan) { return int(pool_run(plan->work)); }

int bnengine_run_on(const Plan* plan, index times, const index* until, index nanoseconds, index* ran) {
  const index before = *until;
  const int64_t end = now() + nanoseconds;
  Outcome outcome = Outcome::done;
  for (*ran = 0; *ran < times; ++*ran) {
    if (*ran && (*until != before || now() > end)) break;
    outcome = pool_run(plan->work);
    if (outcome != Outcome::done) break;
  }
  return int(outcome);
}

int bnengine_run_timed(const Plan* plan, uint64_t* busy, uint64_t* ended) {
  const Timed timed{static_cast<const Group*>(plan->work.context), busy, ended + 1};
  Work work = plan->work;
  work.run = run_task_timed, work.context = &timed, work.trial = nullptr;
  for (index i = 0; i < work.stages; ++i) timed.ended[i] = 0;
  ended[0] = ticks();
  return int(pool_run(work));
}

void bnengine_plan_free(Plan* plan) {
  pool_drain();
  free(plan);
}

int bnengine_launch_now(const bnengine_group* group, const bnengine_launch* launch, void* const* arrays,
                        const index* integers, const double* reals, index scratch) {
  if (!valid(*group, launch) || group->launches != 1 || scratch < 0) return int(Outcome::range);
  const Outcome reserved = pool_reserve(size_t(scratch));
  if (reserved != Outcome::done) return int(reserved);
  const Launch own{launch->kernel, launch->width, {arrays, integers, reals}};
  const Group only{group->unit, group->blocks, &own, &own + 1};
  return int(pool_run({run_task, &only, nullptr, 1, group->blocks}));
}

int bnengine_set_threads(int count) { return int(pool_set_threads(count)); }
int bnengine_threads() { return pool_threads(); }
int bnengine_release() { return int(pool_release()); }
int bnengine_fill_scratch(int byte) { return int(pool_fill_scratch(byte)); }

}  // namespace bnengine
