// A job that checks by itself that the pool keeps its word; part of pool_driver.cpp.
#pragma once
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "cpu/pool.h"

using bnengine::Outcome;
using bnengine::Work;
using bnengine::Worker;

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      _exit(1);                                                               \
    }                                                                         \
  } while (0)

namespace {

thread_local std::atomic<bool> in_task{false};

// A job that counts: each task once, and none before the wave in front of it has ended. What a task writes, in
// memory that is not atomic, all tasks of the next wave read. Waves are `wave` stages long, but for the last.
struct Counted {
  std::vector<bnengine::index> ends, waves;
  bnengine::index wave;
  std::vector<std::atomic<int>> runs;
  std::vector<int> written;
  std::vector<std::atomic<bnengine::index>> done;
  void (*inner)(Worker&) = nullptr;
  int round = 0;
  bnengine::Trial trial;
  bool tried = false;

  explicit Counted(const std::vector<bnengine::index>& tasks, bnengine::index wave = 1)
      : wave(wave), runs(total(tasks)), written(runs.size()), done(tasks.size()) {
    const bnengine::index stages = bnengine::index(tasks.size());
    bnengine::index end = 0;
    for (bnengine::index n : tasks) ends.push_back(end += n);
    for (bnengine::index i = 0; i < stages; ++i) waves.push_back(std::min(stages, (i / wave + 1) * wave));
  }

  ~Counted() { bnengine::pool_drain(); }  // a late thread may still look at `ends` and `waves`

  static size_t total(const std::vector<bnengine::index>& tasks) {
    bnengine::index sum = 0;
    for (bnengine::index n : tasks) sum += n;
    return size_t(sum);
  }

  bnengine::index tasks(bnengine::index stage) const { return ends[stage] - (stage ? ends[stage - 1] : 0); }

  static void task(const void* context, bnengine::index stage, bnengine::index i, Worker& worker) {
    Counted& self = *static_cast<Counted*>(const_cast<void*>(context));
    in_task = true;
    CHECK(i >= 0 && i < self.tasks(stage));
    const bnengine::index before = stage / self.wave * self.wave, first = self.ends[stage] - self.tasks(stage);
    for (bnengine::index j = 0; j < before; ++j) CHECK(self.done[j].load() == self.tasks(j));
    for (bnengine::index k = 0; before && k < self.ends[before - 1]; ++k) CHECK(self.written[k] == self.round);
    self.written[first + i] = self.round;
    self.runs[first + i].fetch_add(1);
    if (self.inner) self.inner(worker);
    self.done[stage].fetch_add(1);
    in_task = false;
  }

  void run() {
    ++round;
    for (auto& n : runs) n = 0;
    for (auto& n : done) n = 0;
    Work work{task, this, ends.data(), bnengine::index(ends.size()), 0, waves.data()};
    if (tried) work.trial = &trial;
    CHECK(bnengine::pool_run(work) == Outcome::done);
    for (auto& n : runs) CHECK(n.load() == 1);
  }
};

}  // namespace
