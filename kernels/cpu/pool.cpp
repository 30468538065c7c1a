// The thread pool, and why no thread ever reads a job that no longer exists.
//
// A job is a Work in a slot. The slot's `gate` is twice the number of workers inside, plus one while it is open.
//
// * The caller fills a slot whose gate is 0: nobody is inside and nobody can enter. It opens the gate (release),
//   publishes the slot to the workers, and takes part as thread 0.
// * A worker enters by adding two to an odd gate in one compare-and-exchange (acquire), so it sees what the caller
//   wrote. Until it leaves (release) the gate is not 0, so nobody writes to the slot. It does not matter whether this
//   is the job that woke the worker or a later one in the same slot: the worker takes part in the one that is open.
// * When the last stage has ended, the caller closes the gate and returns without waiting for anybody. A worker that is
//   still inside, however late, finds all tasks claimed and leaves. There are as many slots as threads, and each of the
//   workers (one fewer) is in at most one slot, so a slot is always free.
// * A late worker reads only the slot, and `ends` and `waves` of its Work. These may be freed only after pool_drain(),
//   which waits until every gate is 0.
//
// Inside a job, the tasks of a stage are cut into as many ranges as there are threads. Each range has a claim word: the
// stage in the upper half, and the number of its tasks that are taken in the lower half. A thread takes a task with a
// compare-and-exchange that succeeds only if the word belongs to its stage or to an earlier one. Words only grow, so a
// thread that is still in an earlier stage cannot take anything. A thread takes tasks from its own range first, then
// from the others, then from the next stage of the wave. A wave ends by count: the thread that adds the wave's last
// finished tasks to `finished` advances `stage` to the next wave. A thread that never arrived is not needed.
#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <new>

#include "floating_point.h"
#include "sleep.h"

namespace bnengine {
namespace {

constexpr size_t kLine = 64;
constexpr int64_t kSpin = 500000;  // nanoseconds of spinning before a thread sleeps
constexpr int kPauses = 4000;      // polls before it yields the core after each poll

struct alignas(kLine) Claims {
  std::atomic<uint64_t> word;
};

struct alignas(kLine) Slot {
  std::atomic<uint64_t> gate;
  Work work;
  char* scratch;
  size_t bytes;
  Claims* claims;  // one per thread
  alignas(kLine) std::atomic<index> finished;
  alignas(kLine) Signal stage;
};

struct Thread {
  pthread_t handle;
  int id;
};

// All static data is trivially destructible, because threads may run until the process ends.
struct Pool {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  int threads = 1;    // requested number, including the caller's
  int started = 0;    // running workers
  bool ready = false;  // slots, claims and scratch are allocated for `threads`
  Slot* slots = nullptr;
  Claims* claims = nullptr;
  Thread* workers = nullptr;
  char* scratch = nullptr;
  size_t bytes = 0;  // scratch per thread
  bool forks = false;
  alignas(kLine) Signal posted;
  std::atomic<Slot*> current{nullptr};
  std::atomic<bool> stopping{false};
};

Pool pool;
// initial-exec, because with the default model the first access of a thread would allocate.
__attribute__((tls_model("initial-exec"))) thread_local bool inside = false;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

// Returns when the signal differs from `seen`. Spins for half a millisecond, then sleeps.
void wait(Signal& signal, uint32_t seen) {
  for (int i = 0; i < kPauses; ++i) {
    if (signal.value() != seen) return;
    pause();
  }
  for (const int64_t end = now() + kSpin; signal.value() == seen;) {
    if (now() > end) {
      signal.sleep(seen);
      return;
    }
    sched_yield();
  }
}

// Claims the next task of a range of `size` tasks in this stage. Returns -1 if all are taken.
index claim(std::atomic<uint64_t>& word, uint32_t stage, uint32_t size) {
  uint64_t seen = word.load(std::memory_order_relaxed);
  for (;;) {
    const uint32_t of = uint32_t(seen >> 32);
    const uint32_t taken = of == stage ? uint32_t(seen) : 0;
    if (of > stage || taken >= size) return -1;
    if (word.compare_exchange_weak(seen, uint64_t(stage) << 32 | (taken + 1), std::memory_order_relaxed)) return taken;
  }
}

// Runs the tasks of a stage that thread `id` can claim, and returns their number.
index take(const Work& work, Claims* claims, uint32_t stage, int threads, int id, Worker& worker) {
  const index tasks = work.end(stage) - work.begin(stage);
  const index ranges = tasks < threads ? tasks : threads;
  index count = 0;
  for (index i = 0; i < ranges; ++i) {
    const index range = (id + i) % ranges, begin = tasks * range / ranges, end = tasks * (range + 1) / ranges;
    index task;
    while ((task = claim(claims[range].word, stage, uint32_t(end - begin))) >= 0) {
      work.run(work.context, stage, begin + task, worker);
      ++count;
    }
  }
  return count;
}

// Runs tasks of the job in a slot, which this thread has entered, until the last stage has ended.
void take_part(Slot& slot, int threads, int id) {
  const Work& work = slot.work;
  const FloatingPoint mode;
  inside = true;
  Worker worker{slot.scratch + size_t(id) * slot.bytes, slot.bytes};
  for (uint32_t first; (first = slot.stage.value()) < uint32_t(work.stages);) {
    const uint32_t after = uint32_t(work.wave(first));
    index count = 0;
    for (uint32_t stage = first; stage < after; ++stage) count += take(work, slot.claims, stage, threads, id, worker);
    if (count && slot.finished.fetch_add(count, std::memory_order_acq_rel) + count == work.end(after - 1))
      slot.stage.set(after);
    else
      wait(slot.stage, first);
  }
  inside = false;
}

bool enter(Slot& slot) {
  uint64_t gate = slot.gate.load(std::memory_order_relaxed);
  while (gate & 1)
    if (slot.gate.compare_exchange_weak(gate, gate + 2, std::memory_order_acquire, std::memory_order_relaxed))
      return true;
  return false;
}

void* worker_main(void* argument) {
  const Thread& self = *static_cast<Thread*>(argument);
  const int threads = pool.threads;  // constant while workers run
  uint32_t seen = 0;
  for (;;) {
    wait(pool.posted, seen);
    seen = pool.posted.value();
    if (pool.stopping.load(std::memory_order_acquire)) return nullptr;
    Slot* slot = pool.current.load(std::memory_order_acquire);
    if (slot && enter(*slot)) {
      take_part(*slot, threads, self.id);
      slot->gate.fetch_sub(2, std::memory_order_release);
    }
  }
}

// -- these functions require the mutex

void drain() {
  for (int i = 0; pool.slots && i < pool.threads; ++i)
    while (pool.slots[i].gate.load(std::memory_order_acquire)) sched_yield();
}

void stop() {
  pool.stopping.store(true, std::memory_order_release);
  pool.posted.set(pool.posted.value() + 1);
  for (int i = 0; i < pool.started; ++i) pthread_join(pool.workers[i].handle, nullptr);
  pool.stopping.store(false, std::memory_order_release);
  pool.started = 0;
}

void* aligned(size_t bytes) {
  void* block = nullptr;
  return posix_memalign(&block, kLine, bytes ? bytes : kLine) ? nullptr : block;
}

// Allocates scratch of `bytes` for each of `threads`. On failure, returns false and keeps the old one. Nobody may be
// inside a job.
bool allot_scratch(int threads, size_t bytes) {
  char* scratch = static_cast<char*>(aligned(size_t(threads) * bytes));
  if (!scratch) return false;
  free(pool.scratch);
  pool.scratch = scratch;
  pool.bytes = bytes;
  return true;
}

// Allocates slots, claims and scratch for `threads`. On failure, returns false and keeps the old ones. No worker may
// run.
bool allot(int threads) {
  const size_t n = size_t(threads);
  Slot* slots = static_cast<Slot*>(aligned(n * sizeof(Slot)));
  Claims* claims = static_cast<Claims*>(aligned(n * n * sizeof(Claims)));
  Thread* workers = static_cast<Thread*>(aligned(n * sizeof(Thread)));
  if (!slots || !claims || !workers || !allot_scratch(threads, pool.bytes)) {
    free(slots), free(claims), free(workers);
    return false;
  }
  for (size_t i = 0; i < n; ++i) {
    new (&slots[i]) Slot();
    slots[i].claims = claims + i * n;
    for (size_t j = 0; j < n; ++j) new (&slots[i].claims[j]) Claims();
  }
  pool.current.store(nullptr, std::memory_order_release);
  free(pool.slots), free(pool.claims), free(pool.workers);
  pool.slots = slots, pool.claims = claims, pool.workers = workers;
  pool.threads = threads;
  return pool.ready = true;
}

// Starts workers. If the system refuses some, the others take all tasks. Workers block all signals, which the caller's
// threads handle.
void start() {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (pool.started < pool.threads - 1) {
    Thread& next = pool.workers[pool.started];
    next.id = pool.started + 1;
    if (pthread_create(&next.handle, nullptr, worker_main, &next)) break;
    ++pool.started;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

bool has_use_for_threads(const Work& work) {
  if (pool.threads == 1) return false;
  for (index i = 0; i < work.stages; ++i)
    if (work.end(i) - work.begin(i) > 1) return true;
  return false;
}

void run_alone(const Work& work) {
  const FloatingPoint mode;
  inside = true;
  Worker worker{pool.scratch, pool.bytes};
  for (index stage = 0, task = 0; stage < work.stages; ++stage)
    for (const index first = task; task < work.end(stage); ++task) work.run(work.context, stage, task - first, worker);
  inside = false;
}

void run_together(const Work& work) {
  if (!pool.started) start();
  Slot* slot = pool.slots;
  while (slot->gate.load(std::memory_order_acquire)) ++slot;
  slot->work = work, slot->scratch = pool.scratch, slot->bytes = pool.bytes;
  for (int i = 0; i < pool.threads; ++i) slot->claims[i].word.store(0, std::memory_order_relaxed);
  slot->finished.store(0, std::memory_order_relaxed);
  slot->stage.reset();
  slot->gate.store(1, std::memory_order_release);
  pool.current.store(slot, std::memory_order_release);
  pool.posted.set(pool.posted.value() + 1);
  take_part(*slot, pool.threads, 0);
  slot->gate.fetch_sub(1, std::memory_order_release);
}

// -- fork: the child has only the thread that called fork, and restarts the pool

void before_fork() { pthread_mutex_lock(&pool.mutex); }
void after_fork() { pthread_mutex_unlock(&pool.mutex); }

void in_child() {
  pool.started = 0;
  pool.current.store(nullptr, std::memory_order_relaxed);
  for (int i = 0; pool.slots && i < pool.threads; ++i) pool.slots[i].gate.store(0, std::memory_order_relaxed);
  pool.posted.reset();
  pthread_mutex_unlock(&pool.mutex);
}

// Locks the mutex and allocates the pool at first use. False inside a task, or without memory.
class Hold {
 public:
  Hold() {
    if (inside) return;
    pthread_mutex_lock(&pool.mutex);
    if (!pool.forks) pool.forks = pthread_atfork(before_fork, after_fork, in_child) == 0;
    outcome_ = pool.ready || allot(pool.threads) ? Outcome::done : Outcome::memory;
    if (outcome_ != Outcome::done) pthread_mutex_unlock(&pool.mutex);
  }
  ~Hold() {
    if (outcome_ == Outcome::done) pthread_mutex_unlock(&pool.mutex);
  }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;
  Outcome outcome() const { return outcome_; }
  explicit operator bool() const { return outcome_ == Outcome::done; }

 private:
  Outcome outcome_ = Outcome::nested;
};

}  // namespace

Outcome pool_run(const Work& work) {
  const Hold hold;
  if (!hold) return hold.outcome();
  if (!has_use_for_threads(work))
    run_alone(work);
  else if (work.trial)
    work.trial->run([&] { run_together(work); }, [&] { run_alone(work); });
  else
    run_together(work);
  return Outcome::done;
}

Outcome pool_set_threads(int count) {
  if (count < 1 || count > kMostThreads) return Outcome::range;
  const Hold hold;
  if (!hold || count == pool.threads) return hold.outcome();
  stop();
  return allot(count) ? Outcome::done : Outcome::memory;
}

int pool_threads() {
  const Hold hold;
  return pool.threads;
}

Outcome pool_release() {
  const Hold hold;
  if (hold) stop();
  return hold.outcome();
}

Outcome pool_reserve(size_t scratch) {
  const Hold hold;
  if (!hold || scratch <= pool.bytes) return hold.outcome();
  drain();
  return allot_scratch(pool.threads, (scratch + kLine - 1) / kLine * kLine) ? Outcome::done : Outcome::memory;
}

Outcome pool_fill_scratch(int byte) {
  const Hold hold;
  if (!hold) return hold.outcome();
  drain();
  memset(pool.scratch, byte, size_t(pool.threads) * pool.bytes);
  return Outcome::done;
}

Outcome pool_drain() {
  const Hold hold;
  if (hold) drain();
  return hold.outcome();
}

}  // namespace bnengine
