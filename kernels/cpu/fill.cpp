// Memory set and moved: the smallest kernels there are.
#include <string.h>

#include "kernel.h"

namespace bnengine {
namespace BNENGINE_ISA {

// out[begin:end] = value. Arrays: out (n). Reals: value.
template <typename T>
void fill(const Arguments& a, index begin, index end, Worker&) {
  T* out = static_cast<T*>(a.arrays[0]);
  const T value = T(a.reals[0]);
  for (index i = begin; i < end; ++i) out[i] = value;
}

// out[begin:end] = x[begin:end]. Arrays: x, out (n each).
template <typename T>
void copy(const Arguments& a, index begin, index end, Worker&) {
  const T* x = static_cast<const T*>(a.arrays[0]);
  if (begin < end) memcpy(static_cast<T*>(a.arrays[1]) + begin, x + begin, size_t(end - begin) * sizeof(T));
}

const Entry* entries() {
  static const Entry table[] = {
      {"fill<float>", fill<float>},
      {"fill<double>", fill<double>},
      {"copy<float>", copy<float>},
      {"copy<double>", copy<double>},
      {nullptr, nullptr},
  };
  return table;
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
