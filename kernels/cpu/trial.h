// Measures whether a step finishes sooner on all threads or on the caller's thread alone.
#pragma once
#include <stdint.h>
#include <time.h>

namespace bnengine {

inline int64_t now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t(t.tv_sec) * 1000000000 + t.tv_nsec;
}

// Chooses between all threads and the caller's thread for work that runs repeatedly. The choice cannot change a result,
// so it is measured: kRuns runs on all threads, then kRuns alone. The measurement is repeated from time to time because
// it depends on the load of the machine. Work whose runs take longer than kLong stays on all threads without being
// measured alone.
class Trial {
 public:
  template <class Together, class Alone>
  void run(Together by_all, Alone by_one) {
    const bool counts = timed();
    const int64_t begin = counts ? now() : 0;
    if (alone())
      by_one();
    else
      by_all();
    if (counts)
      took(now() - begin);
    else
      passed();
  }

  bool alone() const { return run_ < kRuns ? false : run_ < 2 * kRuns ? true : alone_; }
  bool timed() const { return run_ < 2 * kRuns; }
  void took(int64_t nanoseconds) {  // records a timed run
    if (run_ == 0) times_[0] = times_[1] = {0, 0};
    Times& times = times_[run_ / kRuns];
    times.sum += nanoseconds;
    if (nanoseconds > times.longest) times.longest = nanoseconds;
    if (++run_ == kRuns && times.usual() > (kRuns - 1) * kLong)
      decide(false);
    else if (run_ == 2 * kRuns)
      decide(times_[1].usual() < times_[0].usual());
  }
  void passed() { run_ = run_ + 1 < period_ ? run_ + 1 : 0; }  // records a run that was not timed

 private:
  void decide(bool alone) {
    period_ = alone != alone_ ? kLeast : period_ < kMost ? 2 * period_ : kMost;
    alone_ = alone;
    run_ = 2 * kRuns;
  }

  static constexpr int kRuns = 8;
  static constexpr int64_t kLong = 500000;
  static constexpr int kLeast = 1 << 10, kMost = 1 << 16;  // runs between measurements; doubles while stable
  struct Times {
    int64_t sum, longest;
    int64_t usual() const { return sum - longest; }  // drops the longest: it woke the threads or was preempted
  };
  Times times_[2] = {};  // on all threads; alone
  int run_ = 0, period_ = kLeast;
  bool alone_ = false;
};

}  // namespace bnengine
