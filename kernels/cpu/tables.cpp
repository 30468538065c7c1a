// The table of compiled instruction sets and kernels, and the choice of an instruction set.
//
// The build writes tables.inc, which contains SET(set) for each instruction set, the most capable first, and TABLE(set,
// file) for each kernel file of each set. A kernel file is compiled once per set, with `bnengine` renamed to
// bnengine_<set> and `entries` to <file>_entries. So the linker can never substitute an inline function that another
// set compiled, and every file can give its table the same name.
#include <string.h>

#include <atomic>

#include "replay.h"

#define SET(set)
#define TABLE(set, file)                   \
  namespace bnengine_##set {               \
  namespace set {                          \
  const bnengine::Entry* file##_entries(); \
  }                                        \
  }
#include "tables.inc"
#undef SET
#undef TABLE

namespace bnengine {
namespace {

constexpr int kInterface = 6;

struct Table {
  const char* set;
  const Entry* (*entries)();
};

#define SET(set) #set,
#define TABLE(set, file)
constexpr const char* kSets[] = {
#include "tables.inc"
    nullptr};
#undef SET
#undef TABLE

#define SET(set)
#define TABLE(set, file) {#set, bnengine_##set::set::file##_entries},
constexpr Table kTables[] = {
#include "tables.inc"
};
#undef SET
#undef TABLE

bool runs(const char* set) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                  __builtin_cpu_supports("bmi2");
  if (!strcmp(set, "v3")) return v3;
  return v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  (void)set;
  return true;
#endif
}

std::atomic<const char*> taken{nullptr};

// Calls visit(entry) for each kernel of the selected set until it returns true.
template <typename Visit>
void each_kernel(Visit visit) {
  const char* set = bnengine_isa();
  for (const Table& table : kTables) {
    if (!set || strcmp(table.set, set)) continue;
    for (const Entry* entry = table.entries(); entry->name; ++entry)
      if (visit(*entry)) return;
  }
}

}  // namespace

int bnengine_interface() { return kInterface; }

const char* bnengine_isa_at(int i) {
  constexpr int count = int(sizeof(kSets) / sizeof(kSets[0])) - 1;
  return i >= 0 && i < count ? kSets[i] : nullptr;
}

int bnengine_isa_runs(const char* name) {
  for (int i = 0; const char* set = bnengine_isa_at(i); ++i)
    if (!strcmp(set, name)) return runs(set);
  return 0;
}

int bnengine_choose_isa(const char* name) {
  for (int i = 0; const char* set = bnengine_isa_at(i); ++i) {
    if ((name && strcmp(set, name)) || !runs(set)) continue;
    taken.store(set);
    return 0;
  }
  return 3;
}

const char* bnengine_isa() {
  if (!taken.load()) bnengine_choose_isa(nullptr);
  return taken.load();
}

Kernel bnengine_kernel(const char* name) {
  Kernel found = nullptr;
  each_kernel([&](const Entry& entry) {
    if (!strcmp(entry.name, name)) found = entry.kernel;
    return found != nullptr;
  });
  return found;
}

const char* bnengine_kernel_at(int i) {
  const char* found = nullptr;
  each_kernel([&](const Entry& entry) {
    if (i-- == 0) found = entry.name;
    return found != nullptr;
  });
  return found;
}

}  // namespace bnengine
