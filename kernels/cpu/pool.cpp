// How the pool works, and why no thread ever reads a job that is gone.
//
// A job is a Work in a slot. The slot's `gate` holds twice the number of workers inside, plus one while it is open.
// * The caller fills a slot whose gate is 0: nobody is inside and nobody can enter. It opens the gate (release), tells
//   the workers where, and works as thread 0.
// * A worker enters by raising an odd gate by two, in one exchange (acquire): it sees what the caller wrote, and until
//   it has left (release) the gate is not 0, so nobody writes to the slot. Whether this is the job that woke the worker
//   or a later one in the same slot makes no difference: it takes what is open.
// * When the last stage has ended the caller closes the gate and returns. It waits for nobody: a worker that is still
//   inside, however late, finds every task claimed and leaves. As many slots as threads: the workers (one fewer) can
//   hold no more than all but one, so there is always a free one.
// * A late worker looks at the slot and at `ends` and `waves` of its Work alone. These go only after pool_drain(), which
//   waits for every gate to be 0.
//
// Inside a job, the tasks of a stage are cut into as many ranges as there are threads. A range has a claim word: the
// stage in the upper half, the tasks of it that are taken in the lower. A thread takes a task by an exchange that holds
// only if the word is of its own stage or of an earlier one, and words only ever grow: so a thread that still believes
// in an earlier stage can take nothing. It takes from its own range first, then from the others', and goes on within the
// wave when none is left. A wave ends by count: whoever adds the last of its finished tasks to `finished` moves `stage` on
// to the next. A thread that was not there is not missed.
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
constexpr int64_t kSpin = 500000;  // nanoseconds of waiting awake before a thread sleeps
constexpr int kPauses = 4000;      // looks before it gives way to others at each

struct alignas(kLine) Claims {
  std::atomic<uint64_t> word;
};

struct alignas(kLine) Slot {
  std::atomic<uint64_t> gate;
  Work work;
  char* scratch;
  size_t bytes;
  Claims* claims;  // one of each thread
  alignas(kLine) std::atomic<index> finished;
  alignas(kLine) Signal stage;
};

struct Thread {
  pthread_t handle;
  int id;
};

// Everything static is trivially destructible: threads may run until the process is gone.
struct Pool {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  int threads = 1;    // that are asked for, the caller's own among them
  int started = 0;    // workers that run
  bool ready = false;  // slots, claims and scratch are there for `threads`
  Slot* slots = nullptr;
  Claims* claims = nullptr;
  Thread* workers = nullptr;
  char* scratch = nullptr;
  size_t bytes = 0;  // of scratch, of each thread
  bool forks = false;
  alignas(kLine) Signal posted;
  std::atomic<Slot*> current{nullptr};
  std::atomic<bool> stopping{false};
};

Pool pool;
// Where a thread's memory is from its start: elsewhere the first look at it would allocate.
__attribute__((tls_model("initial-exec"))) thread_local bool inside = false;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

// Returns when the signal is not `seen` any more: awake for half a millisecond, then asleep.
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

// The next task of a range of `size` in this stage, -1 if there is none.
index claim(std::atomic<uint64_t>& word, uint32_t stage, uint32_t size) {
  uint64_t seen = word.load(std::memory_order_relaxed);
  for (;;) {
    const uint32_t of = uint32_t(seen >> 32);
    const uint32_t taken = of == stage ? uint32_t(seen) : 0;
    if (of > stage || taken >= size) return -1;
    if (word.compare_exchange_weak(seen, uint64_t(stage) << 32 | (taken + 1), std::memory_order_relaxed)) return taken;
  }
}

// Runs what thread `id` gets of a stage: how many tasks.
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

// Takes part in the job of a slot, which this thread has entered, until its last stage has ended.
void take_part(Slot& slot, int threads, int id) {
  const Work& work = slot.work;
  const FloatingPoint mode;
  inside = true;
  Worker worker{slot.scratch + size_t(id) * slot.bytes, slot.bytes};
  for (uint32_t first; (first = slot.stage.value()) < uint32_t(work.stages);) {
    const uint32_t behind = uint32_t(work.wave(first));
    index count = 0;
    for (uint32_t stage = first; stage < behind; ++stage) count += take(work, slot.claims, stage, threads, id, worker);
    if (count && slot.finished.fetch_add(count, std::memory_order_acq_rel) + count == work.end(behind - 1))
      slot.stage.set(behind);
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
  const int threads = pool.threads;  // it does not change while workers run
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

// -- what follows is called with the mutex held

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

// Scratch of `bytes` for each of `threads`, if all of it is to be had; nobody is inside a job.
bool allot_scratch(int threads, size_t bytes) {
  char* scratch = static_cast<char*>(aligned(size_t(threads) * bytes));
  if (!scratch) return false;
  free(pool.scratch);
  pool.scratch = scratch;
  pool.bytes = bytes;
  return true;
}

// Slots, claims and scratch for `threads`; no worker runs. What is there stays if there is no memory.
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

// Where the system gives fewer threads, those that are there take all tasks. Signals stay with the caller's threads.
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

// -- fork: the child has the caller's thread alone, and a pool that starts anew

void before_fork() { pthread_mutex_lock(&pool.mutex); }
void behind_fork() { pthread_mutex_unlock(&pool.mutex); }

void in_child() {
  pool.started = 0;
  pool.current.store(nullptr, std::memory_order_relaxed);
  for (int i = 0; pool.slots && i < pool.threads; ++i) pool.slots[i].gate.store(0, std::memory_order_relaxed);
  pool.posted.reset();
  pthread_mutex_unlock(&pool.mutex);
}

// Holds the mutex of a pool that is ready. `held()` is false inside a task, and without memory.
class Hold {
 public:
  Hold() {
    if (inside) return;
    pthread_mutex_lock(&pool.mutex);
    if (!pool.forks) pool.forks = pthread_atfork(before_fork, behind_fork, in_child) == 0;
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
