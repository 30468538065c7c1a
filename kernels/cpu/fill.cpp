// fill and copy: the smallest kernels. A block is a range of a flat array; neither kernel needs scratch.
#include <string.h>

#include "layout.h"

namespace bnengine {
namespace BNENGINE_ISA {

// out[begin:end] = value.
template <typename T>
void fill(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::Fill<T> a(arguments);
  T* out = a.out;
  const T value = T(a.value);
  for (index i = begin; i < end; ++i) out[i] = value;
}

// out[begin:end] = x[begin:end].
template <typename T>
void copy(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::Copy<T> a(arguments);
  if (begin < end) memcpy(a.out + begin, a.x + begin, size_t(end - begin) * sizeof(T));
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
