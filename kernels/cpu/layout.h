// What a launch of each kernel passes, by name. bnengine/fused/cpu declares it, and `python -m tests.layouts` writes
// this file from there; a test compares the two.
#pragma once
#include "kernel.h"

namespace bnengine {
namespace layout {

struct Address {
  void* at;
  template <class T>
  operator T*() const {
    return static_cast<T*>(at);
  }
};

// Sorted ranges [begin, end): ends[0] is the first begin, ends[1] the first end.
struct Ranges {
  const index* ends;
  index count;
};

// The arguments of a launch by their places.
class Given {
 public:
  explicit Given(const Arguments& given) : given_(given) {}

 protected:
  Address array(int i) const { return {given_.arrays[i]}; }
  index integer(int i) const { return given_.integers[i]; }
  bool flag(int i) const { return given_.integers[i] != 0; }
  double real(int i) const { return given_.reals[i]; }
  Ranges ranges(int i) const { return {given_.integers + i + 1, given_.integers[i]}; }

 private:
  const Arguments& given_;
};

template <class T>
struct Rearranged : Given {
  using Given::Given;
  const char* x = array(0);
  T* out = array(1);
  index size_i = integer(0), size_j = integer(1), size_k = integer(2), size_l = integer(3), stride_i = integer(4),
      stride_j = integer(5), stride_k = integer(6), stride_l = integer(7);
};

template <class T>
struct Fill : Given {
  using Given::Given;
  T* out = array(0);
  double value = real(0);
};

template <class T>
struct Copy : Given {
  using Given::Given;
  const T* x = array(0);
  T* out = array(1);
};

template <class T>
struct Moments : Given {
  using Given::Given;
  const T* x = array(0);
  double* batch = array(1);
  double* pending = array(2);
  index rows = integer(0), channels = integer(1), stride = integer(2);
  bool adds = flag(3);
};

template <class T>
struct MomentsOfBlocks : Given {
  using Given::Given;
  const T* x = array(0);
  double* partial = array(1);
  index rows = integer(0), channels = integer(1), block = integer(2);
};

struct MomentsOfAll : Given {
  using Given::Given;
  const double* partial = array(0);
  double* batch = array(1);
  double* pending = array(2);
  index rows = integer(0), channels = integer(1), block = integer(2), stride = integer(3);
  bool adds = flag(4);
};

template <class T>
struct Normalize : Given {
  using Given::Given;
  const double* statistics = array(0);
  const T* gamma = array(1);
  const T* beta = array(2);
  const T* x = array(3);
  const T* add = array(4);
  T* y = array(5);
  index rows = integer(0), channels = integer(1), stride = integer(2);
  bool by_columns = flag(3), past = flag(4);
  double eps = real(0), slope = real(1);
};

template <class T>
struct BatchNorm : Given {
  using Given::Given;
  const T* gamma = array(0);
  const T* beta = array(1);
  const T* x = array(2);
  const T* add = array(3);
  T* y = array(4);
  double* batch = array(5);
  double* pending = array(6);
  index rows = integer(0), channels = integer(1), stride = integer(2);
  bool adds = flag(3);
  double eps = real(0), slope = real(1);
};

template <class T>
struct BatchNormBackward : Given {
  using Given::Given;
  const double* statistics = array(0);
  const T* gamma = array(1);
  const T* beta = array(2);
  const T* dy = array(3);
  const T* x = array(4);
  const T* y = array(5);
  const T* add = array(6);
  T* dx = array(7);
  T* dadd = array(8);
  T* dgamma = array(9);
  T* dbeta = array(10);
  index rows = integer(0), channels = integer(1), stride = integer(2);
  bool batch_statistics = flag(3), adds_dx = flag(4), adds_dgamma = flag(5), adds_dbeta = flag(6);
  double eps = real(0), slope = real(1);
};

template <class T>
struct SumsOfBlocks : Given {
  using Given::Given;
  const double* statistics = array(0);
  const T* gamma = array(1);
  const T* beta = array(2);
  const T* dy = array(3);
  const T* x = array(4);
  const T* y = array(5);
  const T* add = array(6);
  double* partial = array(7);
  index rows = integer(0), channels = integer(1), stride = integer(2), block = integer(3);
  double eps = real(0), slope = real(1);
};

template <class T>
struct SumsOfAll : Given {
  using Given::Given;
  const double* partial = array(0);
  double* sums = array(1);
  T* dgamma = array(2);
  T* dbeta = array(3);
  index blocks = integer(0), channels = integer(1);
  bool adds_dgamma = flag(2), adds_dbeta = flag(3);
};

template <class T>
struct InputOfRows : Given {
  using Given::Given;
  const double* sums = array(0);
  const double* statistics = array(1);
  const T* gamma = array(2);
  const T* beta = array(3);
  const T* dy = array(4);
  const T* x = array(5);
  const T* y = array(6);
  const T* add = array(7);
  T* dx = array(8);
  T* dadd = array(9);
  index rows = integer(0), channels = integer(1), stride = integer(2);
  bool adds_dx = flag(3), past = flag(4);
  double eps = real(0), slope = real(1);
};

struct Commit : Given {
  using Given::Given;
  const bool* ok = array(0);
  const double* running = array(1);
  const double* pending = array(2);
  const double* decay = array(3);
  const bool* unbiased = array(4);
  double* out = array(5);
  index channels = integer(0);
};

struct MergeStatistics : Given {
  using Given::Given;
  const double* a = array(0);
  const double* b = array(1);
  double* out = array(2);
  index channels = integer(0);
};

template <class T>
struct GemmNn : Given {
  using Given::Given;
  const T* a = array(0);
  const T* b = array(1);
  const T* bias = array(2);
  T* c = array(3);
  T* sums = array(4);
  index m = integer(0), n = integer(1), k = integer(2), lda = integer(3), ldb = integer(4), ldc = integer(5);
  bool adds = flag(6), adds_sums = flag(7);
};

template <class T>
struct GemmTn : Given {
  using Given::Given;
  const T* a = array(0);
  const T* b = array(1);
  const T* bias = array(2);
  T* c = array(3);
  T* sums = array(4);
  index m = integer(0), n = integer(1), k = integer(2), lda = integer(3), ldb = integer(4), ldc = integer(5);
  bool adds = flag(6), adds_sums = flag(7);
};

template <class T>
struct GemmNt : Given {
  using Given::Given;
  const T* a = array(0);
  const T* b = array(1);
  const T* bias = array(2);
  T* c = array(3);
  T* sums = array(4);
  index m = integer(0), n = integer(1), k = integer(2), lda = integer(3), ldb = integer(4), ldc = integer(5);
  bool adds = flag(6), adds_sums = flag(7);
};

template <class T>
struct GemmNnRows : Given {
  using Given::Given;
  const T* b = array(0);
  const T* bias = array(1);
  const T* a = array(2);
  T* c = array(3);
  index m = integer(0), n = integer(1), k = integer(2), lda = integer(3), ldb = integer(4), ldc = integer(5);
  bool adds = flag(6);
};

template <class T>
struct GemmTnRows : Given {
  using Given::Given;
  const T* b = array(0);
  const T* bias = array(1);
  const T* a = array(2);
  T* c = array(3);
  index m = integer(0), n = integer(1), k = integer(2), lda = integer(3), ldb = integer(4), ldc = integer(5);
  bool adds = flag(6);
};

template <class T>
struct GemmNtRows : Given {
  using Given::Given;
  const T* b = array(0);
  const T* bias = array(1);
  const T* a = array(2);
  T* c = array(3);
  index m = integer(0), n = integer(1), k = integer(2), lda = integer(3), ldb = integer(4), ldc = integer(5);
  bool adds = flag(6);
};

template <class T>
struct ColumnSums : Given {
  using Given::Given;
  const T* x = array(0);
  T* out = array(1);
  index rows = integer(0), stride = integer(1);
  bool adds = flag(2);
};

template <class T>
struct Dropout : Given {
  using Given::Given;
  const index* step = array(0);
  const index* samples = array(1);
  const T* x = array(2);
  T* y = array(3);
  bool* keep = array(4);
  index rows = integer(0), features = integer(1), seed_low = integer(2), seed_high = integer(3), layer = integer(4),
      threshold = integer(5);
  bool by_columns = flag(6);
  double rate = real(0);
};

template <class T>
struct DropoutBackward : Given {
  using Given::Given;
  const T* dy = array(0);
  const bool* keep = array(1);
  T* dx = array(2);
  index rows = integer(0), features = integer(1);
  bool by_columns = flag(2), adds = flag(3);
  double rate = real(0);
};

struct Gather : Given {
  using Given::Given;
  const char* x = array(0);
  const char* target = array(1);
  const char* weights = array(2);
  const index* samples = array(3);
  const char* divisors = array(4);
  const index* order = array(5);
  const index* cursor = array(6);
  char* to_x = array(7);
  char* to_target = array(8);
  char* to_weights = array(9);
  index* to_samples = array(10);
  char* to_divisor = array(11);
  index bytes_x = integer(0), bytes_target = integer(1), bytes_weights = integer(2), bytes_divisor = integer(3),
      bytes_between = integer(4), offset = integer(5);
};

struct GatherRaw : Given {
  using Given::Given;
  const char* x = array(0);
  const char* target = array(1);
  const char* weights = array(2);
  const index* samples = array(3);
  const char* divisors = array(4);
  const index* order = array(5);
  const index* cursor = array(6);
  const double* mean = array(7);
  const double* inv_scale = array(8);
  char* to_x = array(9);
  char* to_target = array(10);
  char* to_weights = array(11);
  index* to_samples = array(12);
  char* to_divisor = array(13);
  index bytes_x = integer(0), bytes_target = integer(1), bytes_weights = integer(2), bytes_divisor = integer(3),
      bytes_between = integer(4), offset = integer(5);
};

template <class T>
struct SoftmaxCrossEntropy : Given {
  using Given::Given;
  const T* class_weights = array(0);
  const T* divisor = array(1);
  const T* scale = array(2);
  const T* logits = array(3);
  const void* target = array(4);
  const T* sample_weights = array(5);
  double* losses = array(6);
  T* gradient = array(7);
  index classes = integer(0);
  bool numbers = flag(1);
  double smoothing = real(0);
};

template <class T>
struct ElementwiseLoss : Given {
  using Given::Given;
  const T* divisor = array(0);
  const T* scale = array(1);
  const T* prediction = array(2);
  const T* target = array(3);
  const T* sample_weights = array(4);
  double* losses = array(5);
  T* gradient = array(6);
  index rows = integer(0), outputs = integer(1), chunk = integer(2);
};

template <class T>
struct LossValue : Given {
  using Given::Given;
  const T* divisor = array(0);
  const double* losses = array(1);
  T* value = array(2);
  index terms = integer(0);
  bool adds = flag(1);
};

template <class T>
struct Correct : Given {
  using Given::Given;
  const T* output = array(0);
  const void* target = array(1);
  double* right = array(2);
  index classes = integer(0);
  bool numbers = flag(1);
};

template <class T>
struct Activation : Given {
  using Given::Given;
  const T* x = array(0);
  T* y = array(1);
  index rows = integer(0), columns = integer(1);
  bool by_columns = flag(2);
  double slope = real(0);
};

template <class T>
struct ActivationBackward : Given {
  using Given::Given;
  const T* dy = array(0);
  const T* x = array(1);
  const T* y = array(2);
  T* dx = array(3);
  index rows = integer(0), columns = integer(1);
  bool by_columns = flag(2), adds = flag(3);
  double slope = real(0);
};

template <class T>
struct Total : Given {
  using Given::Given;
  const T* a = array(0);
  const T* b = array(1);
  T* out = array(2);
  index rows = integer(0), columns = integer(1);
  bool by_columns = flag(2), adds = flag(3);
};

template <class T>
struct CheckChunks : Given {
  using Given::Given;
  const T* gradients = array(0);
  const double* pending = array(1);
  double* partial = array(2);
  index size = integer(0), chunk = integer(1), proposed = integer(2), some = integer(3);
};

template <class T>
struct CheckStep : Given {
  using Given::Given;
  const T* loss = array(0);
  const double* partial = array(1);
  const T* scaling = array(2);
  bool* ok = array(3);
  double* norm = array(4);
  T* factor = array(5);
  T* new_scaling = array(6);
  index chunks = integer(0), every = integer(1);
  double clip = real(0), growth = real(1), backoff = real(2);
};

template <class T>
struct Average : Given {
  using Given::Given;
  const bool* ok = array(0);
  const T* averaged = array(1);
  const T* values = array(2);
  T* out = array(3);
  double decay = real(0);
};

struct CountStep : Given {
  using Given::Given;
  const bool* ok = array(0);
  const index* counters = array(1);
  const index* cursor = array(2);
  index* new_counters = array(3);
  index* new_cursor = array(4);
  index rows = integer(0);
};

template <class T>
struct AddEpochSums : Given {
  using Given::Given;
  const T* value = array(0);
  const T* divisor = array(1);
  const double* correct = array(2);
  const bool* ok = array(3);
  const double* sums = array(4);
  double* out = array(5);
  index rows = integer(0);
};

template <class T>
struct Sgd : Given {
  using Given::Given;
  static constexpr int kSlots = 1, kNewSlots = 1, kSettings = 1, kFlags = 1;
  const T* table = array(0);
  const index* counters = array(1);
  const bool* ok = array(2);
  const T* factor = array(3);
  const T* parameters = array(4);
  const T* gradients = array(5);
  const T* slots[1] = {array(6)};
  T* new_parameters = array(7);
  T* new_slots[1] = {array(8)};
  index rows = integer(0), columns = integer(1), decay_end = integer(2);
  bool decoupled = flag(3), flags[1] = {flag(4)};
  Ranges frozen = ranges(5);
  double weight_decay = real(0), settings[1] = {real(1)};
};

template <class T>
struct Rmsprop : Given {
  using Given::Given;
  static constexpr int kSlots = 3, kNewSlots = 3, kSettings = 3, kFlags = 1;
  const T* table = array(0);
  const index* counters = array(1);
  const bool* ok = array(2);
  const T* factor = array(3);
  const T* parameters = array(4);
  const T* gradients = array(5);
  const T* slots[3] = {array(6), array(7), array(8)};
  T* new_parameters = array(9);
  T* new_slots[3] = {array(10), array(11), array(12)};
  index rows = integer(0), columns = integer(1), decay_end = integer(2);
  bool decoupled = flag(3), flags[1] = {flag(4)};
  Ranges frozen = ranges(5);
  double weight_decay = real(0), settings[3] = {real(1), real(2), real(3)};
};

template <class T>
struct Adam : Given {
  using Given::Given;
  static constexpr int kSlots = 3, kNewSlots = 3, kSettings = 3, kFlags = 0;
  const T* table = array(0);
  const index* counters = array(1);
  const bool* ok = array(2);
  const T* factor = array(3);
  const T* parameters = array(4);
  const T* gradients = array(5);
  const T* slots[3] = {array(6), array(7), array(8)};
  T* new_parameters = array(9);
  T* new_slots[3] = {array(10), array(11), array(12)};
  index rows = integer(0), columns = integer(1), decay_end = integer(2);
  bool decoupled = flag(3), flags[1] = {};
  Ranges frozen = ranges(4);
  double weight_decay = real(0), settings[3] = {real(1), real(2), real(3)};
};

template <class T>
struct Lion : Given {
  using Given::Given;
  static constexpr int kSlots = 1, kNewSlots = 1, kSettings = 2, kFlags = 0;
  const T* table = array(0);
  const index* counters = array(1);
  const bool* ok = array(2);
  const T* factor = array(3);
  const T* parameters = array(4);
  const T* gradients = array(5);
  const T* slots[1] = {array(6)};
  T* new_parameters = array(7);
  T* new_slots[1] = {array(8)};
  index rows = integer(0), columns = integer(1), decay_end = integer(2);
  bool decoupled = flag(3), flags[1] = {};
  Ranges frozen = ranges(4);
  double weight_decay = real(0), settings[2] = {real(1), real(2)};
};

}  // namespace layout
}  // namespace bnengine
