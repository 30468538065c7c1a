// Recorded steps: groups of launches as stages of the pool, blocks of a group as its tasks.
#include "replay.h"

#include <stdlib.h>
#include <string.h>

#include "pool.h"

namespace bnengine {

struct Launch {
  Kernel kernel;
  Arguments arguments;
};

struct Group {
  index width, unit, blocks;
  const Launch *first, *last;
};

// All of it lies in one block of memory, behind itself.
struct Plan {
  Work work;
  void** arrays;
};

namespace {

index ceiling(index a, index b) { return (a + b - 1) / b; }

bool valid(const bnengine_group& g) {
  const index units = g.unit > 0 && g.width > 0 ? ceiling(g.width, g.unit) : 1;
  return g.width >= 0 && g.unit > 0 && g.launches > 0 && g.blocks > 0 && g.blocks <= units && g.blocks < kMostTasks;
}

void run_block(const Group& group, index block, Worker& worker) {
  const index units = ceiling(group.width, group.unit);
  const index begin = units * block / group.blocks * group.unit;
  const index wanted = units * (block + 1) / group.blocks * group.unit;
  const index end = wanted < group.width ? wanted : group.width;
  for (const Launch* launch = group.first; launch != group.last; ++launch)
    launch->kernel(launch->arguments, begin, end, worker);
}

void run_task(const void* context, index stage, index task, Worker& worker) {
  run_block(static_cast<const Group*>(context)[stage], task, worker);
}

// Hands out pieces of a block of memory that is large enough; with none given, it only counts.
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

// The plan in the memory of `pieces`, or with none how much it needs.
Plan* lay_out(Pieces& pieces, const Sizes& n, const Given& given) {
  Plan* plan = pieces.next<Plan>(1);
  Group* groups = pieces.next<Group>(size_t(n.groups));
  Launch* launches = pieces.next<Launch>(size_t(n.launches));
  index* ends = pieces.next<index>(size_t(n.groups));
  void** const all = pieces.copy(given.arrays, size_t(n.arrays));
  void* const* arrays = all;
  const index* integers = pieces.copy(given.integers, size_t(n.integers));
  const double* reals = pieces.copy(given.reals, size_t(n.reals));
  if (!plan) return nullptr;
  const bnengine_launch* from = given.launches;
  index tasks = 0;
  for (index i = 0; i < n.groups; ++i) {
    const bnengine_group& g = given.groups[i];
    groups[i] = {g.width, g.unit, g.blocks, launches, launches + g.launches};
    for (index j = 0; j < g.launches; ++j, ++from) {
      *launches++ = {from->kernel, {arrays, integers, reals}};
      arrays += from->arrays, integers += from->integers, reals += from->reals;
    }
    ends[i] = tasks += g.blocks;
  }
  *plan = {{run_task, groups, ends, n.groups, 0}, all};
  return plan;
}

}  // namespace

Plan* bnengine_plan(const bnengine_group* groups, index count, const bnengine_launch* launches, void* const* arrays,
                    const index* integers, const double* reals, index scratch, int* outcome) {
  Sizes n{count};
  bool fits = count > 0 && count < kMostTasks && scratch >= 0;
  for (index i = 0; fits && i < count; ++i) {
    fits = valid(groups[i]);
    for (index j = 0; fits && j < groups[i].launches; ++j) {
      const bnengine_launch& launch = launches[n.launches++];
      n.arrays += launch.arrays, n.integers += launch.integers, n.reals += launch.reals;
      fits = launch.kernel && launch.arrays >= 0 && launch.integers >= 0 && launch.reals >= 0;
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

void bnengine_plan_free(Plan* plan) {
  pool_drain();
  free(plan);
}

int bnengine_launch_now(const bnengine_group* group, Kernel kernel, void* const* arrays, const index* integers,
                        const double* reals, index scratch) {
  if (!kernel || !valid(*group) || group->launches != 1 || scratch < 0) return int(Outcome::range);
  const Outcome reserved = pool_reserve(size_t(scratch));
  if (reserved != Outcome::done) return int(reserved);
  const Launch launch{kernel, {arrays, integers, reals}};
  const Group only{group->width, group->unit, group->blocks, &launch, &launch + 1};
  return int(pool_run({run_task, &only, nullptr, 1, group->blocks}));
}

int bnengine_set_threads(int count) { return int(pool_set_threads(count)); }
int bnengine_threads() { return pool_threads(); }
int bnengine_release() { return int(pool_release()); }
int bnengine_fill_scratch(int byte) { return int(pool_fill_scratch(byte)); }

}  // namespace bnengine
