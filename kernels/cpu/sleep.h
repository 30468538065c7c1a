// A number that threads can wait on. They sleep until it changes: on a futex on Linux, on a condition variable
// elsewhere.
#pragma once
#include <stdint.h>

#include <atomic>

#if defined(__linux__)
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <pthread.h>
#endif

namespace bnengine {

// No wake-up is lost. The setter writes the number and then reads `sleepers_`; a waiter increments `sleepers_` and then
// reads the number. All four accesses are sequentially consistent, so either the setter sees the waiter or the waiter
// sees the new number.
class Signal {
 public:
  uint32_t value() const { return value_.load(std::memory_order_acquire); }

  // Call only while nobody waits: it wakes no thread.
  void reset() {
    value_.store(0, std::memory_order_relaxed);
    sleepers_.store(0, std::memory_order_relaxed);
  }

  void set(uint32_t value) {
    value_.store(value, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst)) wake();
  }

  // Returns when the number differs from `seen`.
  void sleep(uint32_t seen) {
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    while (value_.load(std::memory_order_seq_cst) == seen) doze(seen);
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
  }

 private:
  std::atomic<uint32_t> value_{0};
  std::atomic<uint32_t> sleepers_{0};

#if defined(__linux__)
  void wake() { syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0); }
  void doze(uint32_t seen) { syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0); }
#else
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed_ = PTHREAD_COND_INITIALIZER;

  void wake() {
    pthread_mutex_lock(&mutex_);
    pthread_cond_broadcast(&changed_);
    pthread_mutex_unlock(&mutex_);
  }

  void doze(uint32_t seen) {
    pthread_mutex_lock(&mutex_);
    if (value_.load(std::memory_order_seq_cst) == seen) pthread_cond_wait(&changed_, &mutex_);
    pthread_mutex_unlock(&mutex_);
  }
#endif
};

}  // namespace bnengine
