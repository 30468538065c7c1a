// Drives kernels/cpu/pool.cpp without Python, so that sanitizers see it alone: pool_driver CASE; exit status 0 is a
// pass.
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <vector>

#include "counted.h"

namespace {

void counts() {
  unsigned state = 1;
  auto draw = [&](unsigned below) {
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
  };
  for (int threads : {1, 2, 3, 8}) {
    CHECK(bnengine::pool_set_threads(threads) == Outcome::done);
    CHECK(bnengine::pool_threads() == threads);
    for (int job = 0; job < 200; ++job) {
      std::vector<bnengine::index> tasks;
      for (unsigned i = 0; i < 1 + draw(12); ++i) tasks.push_back(1 + draw(20));
      Counted(tasks, 1 + draw(4)).run();
    }
    Counted({5000}).run();
    Counted many({1, 7, 1, 2, 8, 9, 1}), waves({5, 1, 1, 2, 8, 1, 3, 1}, 3);
    waves.tried = true;
    for (int job = 0; job < 2000; ++job) many.run(), waves.run();
  }
}

// Runs of a trial as if they had lasted so long; what it says then.
bool tried(bnengine::Trial& trial, int64_t together, int64_t alone) {
  for (int i = 0; i < 16; ++i) {
    CHECK(trial.timed() && trial.alone() == (i >= 8));
    trial.took((i < 8 ? together : alone) + (i == 3 || i == 9 ? 1000000 : 0));  // each was held up once
  }
  CHECK(!trial.timed());
  return trial.alone();
}

void trials() {
  bnengine::Trial trial;
  int passed = 0;
  const auto until_the_next = [&](bool alone) {
    for (passed = 16; !trial.timed(); ++passed) {
      CHECK(trial.alone() == alone);
      trial.passed();
    }
    return passed;
  };
  CHECK(tried(trial, 100, 50));
  CHECK(until_the_next(true) == 1024);
  CHECK(tried(trial, 80, 50));
  CHECK(until_the_next(true) == 2048);
  CHECK(!tried(trial, 50, 80));
  CHECK(until_the_next(false) == 1024);
  for (int i = 0; i < 10; ++i) {
    CHECK(!tried(trial, 50, 80));
    until_the_next(false);
  }
  CHECK(passed == 65536);
  for (int i = 0; i < 8; ++i) {
    CHECK(trial.timed() && !trial.alone());
    trial.took(600000);
  }
  CHECK(!trial.timed() && !trial.alone());  // what takes long is not run alone even once
}

void sleeping() {  // longer than threads stay awake
  CHECK(bnengine::pool_set_threads(4) == Outcome::done);
  Counted job({8, 8});
  Counted slow({1, 16, 1, 3, 1}, 2);
  slow.inner = [](Worker&) { usleep(3000); };  // the others fall asleep inside the stage
  for (int i = 0; i < 20; ++i) {
    job.run();
    usleep(2000);
    slow.run();
  }
}

void nested() {
  CHECK(bnengine::pool_set_threads(3) == Outcome::done);
  Counted job({9});
  job.inner = [](Worker&) {
    bnengine::index one = 1;
    CHECK(bnengine::pool_run(Work{nullptr, nullptr, &one, 1, 0}) == Outcome::nested);
    CHECK(bnengine::pool_set_threads(2) == Outcome::nested);
    CHECK(bnengine::pool_drain() == Outcome::nested);
  };
  job.run();
  job.inner = nullptr;
  job.run();
}

std::atomic<bool> over{false};

void* caller(void*) {
  Counted job({3, 8, 1, 5});
  while (!over) job.run();
  return nullptr;
}

template <typename Body>
void beside_callers(int callers, Body body) {
  over = false;
  std::vector<pthread_t> threads(callers);
  for (auto& t : threads) CHECK(pthread_create(&t, nullptr, caller, nullptr) == 0);
  body();
  over = true;
  for (auto& t : threads) CHECK(pthread_join(t, nullptr) == 0);
}

void concurrent() {
  CHECK(bnengine::pool_set_threads(3) == Outcome::done);
  beside_callers(3, [] {
    Counted job({4, 4, 4});
    for (int i = 0; i < 300; ++i) job.run();
  });
}

void resize() {
  beside_callers(2, [] {
    for (int i = 0; i < 60; ++i) {
      CHECK(bnengine::pool_set_threads(1 + i % 5) == Outcome::done);
      CHECK(bnengine::pool_reserve(size_t(64 * i)) == Outcome::done);
      if (i % 7 == 0) CHECK(bnengine::pool_release() == Outcome::done);
      if (i % 5 == 0) CHECK(bnengine::pool_drain() == Outcome::done);
    }
  });
  for (int bad : {0, -1, bnengine::kMostThreads + 1}) CHECK(bnengine::pool_set_threads(bad) == Outcome::range);
  CHECK(bnengine::pool_set_threads(bnengine::kMostThreads) == Outcome::done);
  Counted({3, 5000}).run();
}

void forked() {
  CHECK(bnengine::pool_set_threads(4) == Outcome::done);
  Counted job({8, 1, 8});
  job.run();
  beside_callers(1, [] {
    for (int i = 0; i < 20; ++i) {
      const pid_t child = fork();
      CHECK(child >= 0);
      if (child == 0) {
        alarm(60);
        Counted here({8, 1, 8});
        for (int j = 0; j < 20; ++j) here.run();
        CHECK(bnengine::pool_set_threads(2) == Outcome::done);
        here.run();
        _exit(0);
      }
      int status = 0;
      CHECK(waitpid(child, &status, 0) == child);
      CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
      Counted({8, 8}).run();
    }
  });
}

void leaving() {  // the process ends while threads run, spin and sleep
  CHECK(bnengine::pool_set_threads(4) == Outcome::done);
  pthread_t thread;
  CHECK(pthread_create(&thread, nullptr, caller, nullptr) == 0);
  usleep(5000);
  exit(0);
}

void scratch() {
  CHECK(bnengine::pool_set_threads(3) == Outcome::done);
  CHECK(bnengine::pool_reserve(1000) == Outcome::done);
  CHECK(bnengine::pool_reserve(10) == Outcome::done);
  CHECK(bnengine::pool_fill_scratch(255) == Outcome::done);
  Counted job({40});
  job.inner = [](Worker& w) {
    CHECK(w.bytes >= 1000 && reinterpret_cast<uintptr_t>(w.scratch) % 64 == 0);
    unsigned char* mine = static_cast<unsigned char*>(w.scratch);
    const unsigned char mark = static_cast<unsigned char>(reinterpret_cast<uintptr_t>(&w) >> 6);
    memset(mine, mark, w.bytes);
    sched_yield();
    for (size_t i = 0; i < w.bytes; ++i) CHECK(mine[i] == mark);
  };
  job.run();
}

void floating_point() {
#if defined(__x86_64__)
  const unsigned odd = __builtin_ia32_stmxcsr() | 0x8040;  // subnormal numbers count as 0
  __builtin_ia32_ldmxcsr(odd);
  for (int threads : {1, 4}) {
    CHECK(bnengine::pool_set_threads(threads) == Outcome::done);
    Counted job({64});
    job.inner = [](Worker&) { CHECK((__builtin_ia32_stmxcsr() & 0xFFC0) == 0x1F80); };
    job.run();
    CHECK(__builtin_ia32_stmxcsr() == odd);
  }
#endif
}

// -- threads that are stopped wherever they are, but for inside a task

std::atomic<int> stopped{0}, jobs{0}, passed{0}, holding{0};
std::atomic<pthread_t> workers[8];
std::atomic<int> known{0};
thread_local bool introduced = false;

void stop_here(int) {
  if (in_task) return;
  ++stopped;
  const int until = jobs + 5, part = holding;
  for (int i = 0; i < 2000 && part && holding == part; ++i) {
    if (part == 1 && jobs >= until) {  // the jobs went on without this thread
      ++passed;
      return;
    }
    const timespec millisecond{0, 1000000};
    nanosleep(&millisecond, nullptr);
  }
}

void introduce(Worker&) {
  if (!introduced) {
    introduced = true;
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
    workers[known++] = pthread_self();
  }
  usleep(100);
}

void* stopper(void* self) {
  const pthread_t but = *static_cast<pthread_t*>(self);
  while (!over) {
    for (int w = 0; w < known; ++w)
      if (!pthread_equal(workers[w], but)) pthread_kill(workers[w], SIGUSR1);
    usleep(1000);
  }
  return nullptr;
}

void late() {
  struct sigaction action = {};
  action.sa_handler = stop_here;
  sigaction(SIGUSR1, &action, nullptr);
  CHECK(bnengine::pool_set_threads(4) == Outcome::done);
  Counted job({16, 4, 3, 16}, 2);
  job.inner = introduce;
  while (known < 4) job.run();
  pthread_t self = pthread_self();

  // All workers stopped between two jobs: the caller does everything alone, and waits for none of them.
  holding = 2;
  const int before = stopped;
  for (int w = 0; w < 4; ++w)
    if (!pthread_equal(workers[w], self)) pthread_kill(workers[w], SIGUSR1);
  while (stopped < before + 3) sched_yield();
  job.inner = nullptr;
  for (int i = 0; i < 1000; ++i) job.run();
  CHECK(stopped == before + 3);
  holding = 0;

  // Stopped at any moment of a job, until five more jobs have ended without them.
  holding = 1;
  job.inner = introduce;
  const int from = stopped;
  over = false;
  pthread_t thread;
  CHECK(pthread_create(&thread, nullptr, stopper, &self) == 0);
  while (stopped < from + 20) job.run(), ++jobs;
  over = true;
  for (int i = 0; i < 20; ++i) job.run(), ++jobs;
  CHECK(pthread_join(thread, nullptr) == 0);
  holding = 0;
  CHECK(bnengine::pool_release() == Outcome::done);
  printf("%d of %d stops were passed over\n", passed.load(), stopped - from);
  CHECK(passed * 2 >= stopped - from);  // the others hit the few instructions around a task
}

const struct {
  const char* name;
  void (*run)();
} kCases[] = {{"counts", counts},   {"trials", trials},     {"sleeping", sleeping}, {"nested", nested},
              {"concurrent", concurrent},
              {"resize", resize},   {"forked", forked},     {"leaving", leaving}, {"scratch", scratch},
              {"floating_point", floating_point},           {"late", late}};

}  // namespace

int main(int argc, char** argv) {
  alarm(120);
  for (const auto& one : kCases)
    if (argc == 2 && !strcmp(argv[1], one.name)) {
      one.run();
      return 0;
    }
  fprintf(stderr, "no such case\n");
  return 2;
}
