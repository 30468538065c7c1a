// The threads of a CUDA block as fibers of one OS thread.
//
// A fiber runs until it meets a barrier or a warp collective; then another one that is ready runs. FORWARD and SHUFFLED go
// round, REVERSE lets the last warp run ahead of the others as far as it can. Blocks run one after another. Every switch
// point is known, so a deadlock, a barrier in a divergent branch and a shuffle that names an absent lane are reported with
// their line instead of hanging.
#pragma once
#include <algorithm>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>
#include <tuple>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

// Shared memory is thread_local: so the linker puts all of it, and nothing else, into one segment that can be found and
// filled before every block. The one name for dynamic shared memory is `dynamic_shared`.
static constexpr size_t kDynamicMax = 227 * 1024, kGuard = 256;
alignas(128) thread_local unsigned char dynamic_shared[kDynamicMax + kGuard];

namespace cudacpu {

enum State : uint8_t { READY, BARRIER, WARP, DONE };
enum Schedule { FORWARD, REVERSE, SHUFFLED };

struct Fiber {
  jmp_buf context;
  uint3 thread;
  State state = DONE;
  bool started = false;
  unsigned mask = 0;  // of the warp collective that it waits in
  int source = 0, line = 0;
  uint64_t value = 0, result = 0, ballot = 0;
};

constexpr size_t kStack = 64 * 1024, kThreads = 1024;

struct Block {
  std::vector<Fiber> fibers{kThreads};
  std::vector<int> order = std::vector<int>(kThreads), position = std::vector<int>(kThreads);
  int threads = 0, current = 0, alive = 0, waiting = 0, line = 0;
  bool runs_ahead = false;
  int some = 0, count = 0, some_result = 0, count_result = 0;
  jmp_buf home;
  char* stacks = static_cast<char*>(mmap(nullptr, kThreads * kStack, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  void (*body)(const void*) = nullptr;
  const void* argument = nullptr;
  char error[256] = {0};
};
inline Block* B = nullptr;

inline Block* storage() {  // fibers and their stacks outlive a launch
  static Block block;
  return &block;
}

// The address sanitizer takes a jump for one up its own stack, and spends more time on finding out where that is than the
// kernels take: here it sees neither the jumps nor who makes them.
#ifdef __SANITIZE_ADDRESS__
#define CUDACPU_NOINLINE __attribute__((noinline, no_sanitize_address))
using Jump = void (*)(jmp_buf, int);
inline const Jump jump = reinterpret_cast<Jump>(dlsym(dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD), "_longjmp"));
#else
#define CUDACPU_NOINLINE __attribute__((noinline))
constexpr auto jump = _longjmp;
#endif

[[noreturn]] CUDACPU_NOINLINE inline void fail(const char* message, int line) {
  std::snprintf(B->error, sizeof B->error, "%s (line %d, block %u,%u,%u, thread %u,%u,%u)", message, line, blockIdx.x,
                blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
  jump(B->home, 2);
  __builtin_unreachable();
}

inline void trampoline();

[[noreturn]] CUDACPU_NOINLINE inline void resume(int t) {
  Fiber& fiber = B->fibers[t];
  B->current = t;
  threadIdx = fiber.thread;
  if (fiber.started) jump(fiber.context, 1);
  fiber.started = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = B->stacks + size_t(t) * kStack;
  context.uc_stack.ss_size = kStack;
  context.uc_link = nullptr;
  makecontext(&context, trampoline, 0);
  setcontext(&context);
  __builtin_unreachable();
}

[[noreturn]] CUDACPU_NOINLINE inline void next(int line) {
  const int p = B->runs_ahead ? -1 : B->position[B->current];
  for (int i = 1; i <= B->threads; ++i) {
    const int t = B->order[(p + i) % B->threads];
    if (B->fibers[t].state == READY) resume(t);
  }
  if (B->alive == 0) jump(B->home, 1);
  fail("deadlock: some threads wait at a barrier or warp collective that others never reach", line);
}

CUDACPU_NOINLINE inline void yield(int line) {
  if (_setjmp(B->fibers[B->current].context) == 0) next(line);
}

inline void release_barrier() {
  B->some_result = B->some;
  B->count_result = B->count;
  B->some = B->count = B->waiting = 0;
  for (int i = 0; i < B->threads; ++i)
    if (B->fibers[i].state == BARRIER) B->fibers[i].state = READY;
}

CUDACPU_NOINLINE inline void trampoline() {  // a fiber serves one thread of each block, again and again
  for (;;) {
    B->body(B->argument);
    B->fibers[B->current].state = DONE;
    if (--B->alive > 0 && B->waiting == B->alive) release_barrier();  // threads that have left hold no barrier up
    if (_setjmp(B->fibers[B->current].context) == 0) next(0);
  }
}

CUDACPU_NOINLINE inline void barrier(bool predicate, int line) {
  if (B->waiting == 0)
    B->line = line;
  else if (B->line != line)
    fail("divergent __syncthreads: threads of one block meet at different lines", line);
  B->some |= predicate;
  B->count += predicate;
  B->fibers[B->current].state = BARRIER;
  if (++B->waiting == B->alive)
    release_barrier();
  else
    yield(line);
}

// A warp collective: the last lane to arrive moves every lane's value.
CUDACPU_NOINLINE inline Fiber& collective(unsigned mask, uint64_t value, int source, int line) {
  const int me = B->current, base = me & ~31;
  Fiber& mine = B->fibers[me];
  if (!(mask >> (me & 31) & 1)) fail("warp collective: the calling lane is not in its mask", line);
  mine.value = value, mine.source = source, mine.mask = mask, mine.line = line, mine.state = WARP;
  bool complete = true;
  for (int lane = 0; lane < 32 && complete; ++lane) {
    if (!(mask >> lane & 1)) continue;
    if (base + lane >= B->threads) fail("warp collective: the mask names lanes beyond the block", line);
    const Fiber& other = B->fibers[base + lane];
    if (other.state == DONE) fail("warp collective: the mask names a lane that has exited", line);
    if (other.state == WARP && (other.mask != mask || other.line != line))
      fail("warp collective: lanes disagree on mask or place", line);
    complete = other.state == WARP;
  }
  if (!complete) {
    yield(line);
    return mine;
  }
  uint64_t ballot = 0;
  for (int lane = 0; lane < 32; ++lane)
    if ((mask >> lane & 1) && B->fibers[base + lane].value) ballot |= 1ull << lane;
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    Fiber& other = B->fibers[base + lane];
    if (!(mask >> other.source & 1)) fail("shuffle: reads a lane outside the mask", line);
    other.result = B->fibers[base + other.source].value;
    other.ballot = ballot;
  }
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1) B->fibers[base + lane].state = READY;
  return mine;
}

template <class T>
inline T shuffle(unsigned mask, T value, int source, int line) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "shuffles move at most 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = collective(mask, bits, source, line).result;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline int lane() { return B->current & 31; }
inline int within(int source, int width) {  // a source outside the segment leaves the lane with its own value
  const int first = lane() & ~(width - 1);
  return source >= first && source < first + width ? source : lane();
}
inline uint64_t vote(unsigned mask, bool predicate, int line) {
  return collective(mask, predicate, lane(), line).ballot;
}

// 0xff bytes are NaN in every floating type: what a kernel reads from shared memory before writing it shows.
inline void poison_shared() {
  dynamic_shared[0] = 0;  // makes this thread's segment exist
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void*) {
        auto* segment = static_cast<unsigned char*>(info->dlpi_tls_data);
        for (int i = 0; segment && i < info->dlpi_phnum; ++i) {
          const size_t size = info->dlpi_phdr[i].p_memsz;
          if (info->dlpi_phdr[i].p_type == PT_TLS && dynamic_shared >= segment && dynamic_shared < segment + size) {
            std::memset(segment, 0xff, size);
            return 1;
          }
        }
        return 0;
      },
      nullptr);
}

inline uint32_t draw(uint32_t& state, uint32_t end) {
  state = state * 1664525u + 1013904223u;
  return (state >> 8) % end;
}

inline void arrange(std::vector<int>& order, int n, Schedule schedule, uint32_t& random) {
  for (int i = 0; i < n; ++i) order[i] = schedule == REVERSE ? n - 1 - i : i;
  for (int i = n - 1; schedule == SHUFFLED && i > 0; --i) std::swap(order[i], order[draw(random, i + 1)]);
}

struct Options {
  int schedule;
  unsigned seed;
  int flush;
};

// As -ftz=true: while one of these is there, subnormal numbers are taken for 0, and results that would be such are 0.
// What a GPU does to float alone an x86-64 does to double too.
struct Flushing {
#if defined(__SSE2__)
  const unsigned before = _mm_getcsr();
  explicit Flushing(bool flush) {
    if (flush) _mm_setcsr(before | 0x8040);
  }
  ~Flushing() { _mm_setcsr(before); }
#else
  explicit Flushing(bool) {}
#endif
};

template <class F>
int run(dim3 grid, dim3 block, size_t shared, Options options, const F& body, char* error, size_t size) {
  B = storage();
  const size_t blocks = size_t(grid.x) * grid.y * grid.z, threads = size_t(block.x) * block.y * block.z;
  if (threads < 1 || threads > kThreads || block.z > 64 || blocks == 0 || grid.y > 65535 || grid.z > 65535)
    return std::snprintf(error, size, "invalid launch configuration");
#if !defined(__SSE2__)
  if (options.flush) return std::snprintf(error, size, "subnormal numbers can be flushed on x86-64 alone");
#endif
  const Flushing flushing(options.flush);
  if (shared > kDynamicMax) return std::snprintf(error, size, "more than 227 KiB of dynamic shared memory");
  const Schedule schedule = Schedule(options.schedule);
  uint32_t random = options.seed * 2654435761u + 1;
  std::vector<int> blocks_order(blocks);
  arrange(blocks_order, int(blocks), schedule, random);
  blockDim = block, gridDim = grid;
  B->threads = int(threads);
  B->runs_ahead = schedule == REVERSE;
  B->body = [](const void* f) { (*static_cast<const F*>(f))(); };
  B->argument = &body;
  for (volatile size_t i = 0; i < blocks; ++i) {
    const unsigned b = unsigned(blocks_order[i]);
    blockIdx = uint3{b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
    poison_shared();
    arrange(B->order, B->threads, schedule, random);
    for (unsigned t = 0; t < threads; ++t) {
      B->position[B->order[t]] = int(t);
      B->fibers[t].thread = uint3{t % block.x, t / block.x % block.y, t / block.x / block.y};
      B->fibers[t].state = READY;
    }
    B->alive = B->threads, B->waiting = 0;
    const int outcome = _setjmp(B->home);
    if (outcome == 0) resume(B->order[0]);
    if (outcome == 2) {
      for (Fiber& fiber : B->fibers) fiber.started = false;
      return std::snprintf(error, size, "%s", B->error);
    }
    for (size_t k = shared; k < shared + kGuard; ++k)
      if (dynamic_shared[k] != 0xff)
        return std::snprintf(error, size, "write past dynamic shared memory (byte %zu of %zu)", k, shared);
  }
  return 0;
}

template <class... A, size_t... I>
int call(void (*kernel)(A...), const unsigned* d, size_t shared, Options options, void** given, char* error,
         size_t size, std::index_sequence<I...>) {
  std::tuple<std::decay_t<A>...> arguments(*static_cast<std::decay_t<A>*>(given[I])...);
  return run(dim3(d[0], d[1], d[2]), dim3(d[3], d[4], d[5]), shared, options,
             [kernel, &arguments] { kernel(std::get<I>(arguments)...); }, error, size);
}

// What a parameter is, for the check on Python's side: kind << 16 | (1 if a pointer) << 8 | bytes of the value or pointee.
template <class T>
constexpr int kind() {
  return std::is_same<T, bool>::value             ? 'b'
         : std::is_same<T, __half>::value         ? 'e'
         : std::is_same<T, __nv_bfloat16>::value  ? 'E'
         : std::is_floating_point<T>::value       ? 'f'
         : std::is_unsigned<T>::value             ? 'u'
         : std::is_integral<T>::value             ? 'i'
                                                  : 's';
}
template <class T>
constexpr int parameter() {
  using Value = std::remove_cv_t<std::remove_pointer_t<T>>;
  return kind<Value>() << 16 | std::is_pointer<T>::value << 8 | int(sizeof(Value));
}
template <class... A>
int signature(void (*)(A...), int* out) {
  int i = 0;
  ((out[i++] = parameter<std::decay_t<A>>()), ...);
  return i;
}

}  // namespace cudacpu

#define CUDACPU_EXPORT(id, ...)                                                                                      \
  extern "C" __attribute__((visibility("default"))) int cudacpu_signature_##id(int* out) {                           \
    return cudacpu::signature(&__VA_ARGS__, out);                                                                    \
  }                                                                                                                  \
  template <class... A>                                                                                              \
  static int cudacpu_go_##id(void (*k)(A...), const unsigned* d, size_t s, cudacpu::Options o, void** a, char* e,    \
                             size_t n) {                                                                             \
    return cudacpu::call(k, d, s, o, a, e, n, std::index_sequence_for<A...>{});                                      \
  }                                                                                                                  \
  extern "C" __attribute__((visibility("default"))) int cudacpu_run_##id(const unsigned* d, size_t s,                \
                                                                         cudacpu::Options o, void** a, char* e,      \
                                                                         size_t n) {                                 \
    return cudacpu_go_##id(&__VA_ARGS__, d, s, o, a, e, n);                                                          \
  }
