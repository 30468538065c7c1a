// Sets the processor's floating-point mode while kernels run, and restores it afterwards.
#pragma once
#include <stdint.h>

namespace bnengine {

// Switches the current thread to the default mode (round to nearest, keep subnormal numbers), so that every thread
// computes the same bits whatever mode the caller has set. The destructor restores the caller's mode, including its
// exception flags.
class FloatingPoint {
 public:
  FloatingPoint() : callers_(exchange(kDefault)) {}
  ~FloatingPoint() { exchange(callers_); }
  FloatingPoint(const FloatingPoint&) = delete;
  FloatingPoint& operator=(const FloatingPoint&) = delete;

 private:
#if defined(__x86_64__)
  using Mode = unsigned;
  static constexpr Mode kDefault = 0x1F80;
  static Mode exchange(Mode mode) {
    const Mode before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(mode);
    return before;
  }
#else
  using Mode = uint64_t;
  static constexpr Mode kDefault = 0;
  static Mode exchange(Mode mode) {
    Mode before = 0;
#if defined(__aarch64__)
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
#else
    (void)mode;
#endif
    return before;
  }
#endif
  Mode callers_;
};

}  // namespace bnengine
