// Every product kernel between pages that nothing may touch, in blocks, against its definition: for each element chains
// of at most 256 fused multiply-adds, which are added up. A page that is touched ends the program; so does a finding of a
// sanitizer.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "gemm.cpp"

using namespace bnengine::BNENGINE_ISA;
using bnengine::Kernel;
using i64 = int64_t;

static uint64_t state = 88172645463325252ull;
static uint64_t draw() {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state;
}
static i64 below(i64 n) { return i64(draw() % uint64_t(n)); }

// `count` elements that end, or begin, where a page that may not be touched begins, or ends.
template <class T>
struct Fenced {
  static constexpr size_t kPage = 4096;
  char* base = nullptr;
  size_t bytes = 0;
  T* data = nullptr;
  Fenced(i64 count, bool fence_after) {
    const size_t needed = size_t(count) * sizeof(T);
    bytes = (needed + kPage - 1) / kPage * kPage + 2 * kPage;
    base = static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base == MAP_FAILED) abort();
    if (mprotect(base, kPage, PROT_NONE) || mprotect(base + bytes - kPage, kPage, PROT_NONE)) abort();
    data = reinterpret_cast<T*>(fence_after ? base + bytes - kPage - needed : base + kPage);
    for (i64 i = 0; i < count; ++i) data[i] = T(below(2001) - 1000) / T(1 + below(999));
  }
  ~Fenced() { munmap(base, bytes); }
  Fenced(const Fenced&) = delete;
};

static float chain(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static double chain(double a, double b, double c) { return __builtin_fma(a, b, c); }

// The element's definition, with pieces of k from their number and not from the length that is left.
template <class T, class A, class B>
static T element(i64 k, A a, B b, bool adds, T old, const T* bias) {
  const i64 pieces = k ? (k + 255) / 256 : 1, shorter = k / pieces, longer = k % pieces;
  const bool in_double = pieces > 16;
  double total = adds ? double(old) : 0;
  T sum = adds && !in_double ? old : 0;
  bool any = adds && !in_double;
  for (i64 q = 0, l = 0; q < pieces; ++q) {
    T c = 0;
    for (const i64 end = l + shorter + (q < longer); l < end; ++l) c = chain(a(l), b(l), c);
    sum = any ? c + sum : c;
    any = true;
    if (in_double && (q % 16 == 15 || q == pieces - 1)) total += double(sum), any = false;
  }
  if (in_double) sum = T(total);
  return bias ? sum + *bias : sum;
}

static Kernel find(const char* name) {
  for (const bnengine::Entry* e = entries(); e->name; ++e)
    if (!strcmp(e->name, name)) return e->kernel;
  fprintf(stderr, "there is no %s\n", name);
  exit(1);
}

static void* scratch;
static const size_t kScratchBytes = 3 << 20;

template <class T>
static void check(const char* name, bool across_a, bool across_b, bool by_rows, i64 m, i64 n, i64 k) {
  const bool fence_after = below(2), adds = below(2), has_bias = below(2), sums_too = !by_rows && !across_b && below(2);
  const i64 wide_a = across_a ? m : k, high_a = across_a ? k : m, wide_b = across_b ? k : n, high_b = across_b ? n : k;
  const i64 lda = wide_a + below(2) * below(40) + !below(8) * 1024;
  const i64 ldb = wide_b + below(2) * below(40), ldc = n + below(2) * below(40);
  // The last row ends with its last column: what a stride leaves after it does not belong to the matrix.
  Fenced<T> a(high_a ? (high_a - 1) * lda + wide_a : 0, fence_after), b(high_b ? (high_b - 1) * ldb + wide_b : 0, fence_after);
  Fenced<T> bias(n, fence_after), c((m - 1) * ldc + n, fence_after), sums(n, fence_after);
  T* const old = static_cast<T*>(malloc(size_t((m - 1) * ldc + n) * sizeof(T)));
  T* const old_sums = static_cast<T*>(malloc(size_t(n) * sizeof(T)));
  memcpy(old, c.data, size_t((m - 1) * ldc + n) * sizeof(T));
  memcpy(old_sums, sums.data, size_t(n) * sizeof(T));

  void* const columns[] = {a.data, b.data, has_bias ? bias.data : nullptr, c.data, sums_too ? sums.data : nullptr};
  void* const rows[] = {b.data, has_bias ? bias.data : nullptr, a.data, c.data};
  const i64 integers[] = {m, n, k, lda, ldb, ldc, adds, adds};
  bnengine::Worker worker{scratch, kScratchBytes};
  const Kernel kernel = find(name);
  const i64 width = by_rows ? m : n, most = below(3) ? width : 1 + below(width);
  for (i64 begin = 0, end; begin < width; begin = end) {
    end = begin + most < width ? begin + most : width;
    kernel(bnengine::Arguments{by_rows ? rows : columns, integers, nullptr}, begin, end, worker);
  }

  const i64 some = m * n * k > (1 << 26) ? 101 : 1;
  for (i64 i = 0; i < m; ++i) {
    for (i64 j = 0; j < ldc && i * ldc + j < (m - 1) * ldc + n; ++j) {
      T sum = 0;
      if (j < n) {
        if (i * j % some) continue;  // of a large product
        const auto left = [&](i64 l) { return a.data[across_a ? l * lda + i : i * lda + l]; };
        const auto right = [&](i64 l) { return b.data[across_b ? j * ldb + l : l * ldb + j]; };
        sum = element<T>(k, left, right, adds, old[i * ldc + j], has_bias ? &bias.data[j] : nullptr);
      } else {
        sum = old[i * ldc + j];
      }
      if (memcmp(&sum, &c.data[i * ldc + j], sizeof sum)) {
        fprintf(stderr, "%s m %ld n %ld k %ld strides %ld %ld %ld block %ld: (%ld, %ld) is %.17g, not %.17g\n", name,
                long(m), long(n), long(k), long(lda), long(ldb), long(ldc), long(most), long(i), long(j),
                double(c.data[i * ldc + j]), double(sum));
        exit(1);
      }
    }
  }
  for (i64 j = 0; sums_too && j < n; ++j) {
    double sum = 0;
    for (i64 l = 0; l < k; ++l) sum += double(b.data[l * ldb + j]);
    const T expected = adds ? old_sums[j] + T(sum) : T(sum);
    if (memcmp(&expected, &sums.data[j], sizeof expected)) {
      fprintf(stderr, "%s: sum %ld is %.17g, not %.17g\n", name, long(j), double(sums.data[j]), double(expected));
      exit(1);
    }
  }
  free(old), free(old_sums);
}

int main(int count, char** arguments) {
  const int rounds = count > 1 ? atoi(arguments[1]) : 100;
  scratch = aligned_alloc(64, kScratchBytes);
  memset(scratch, 255, kScratchBytes);  // NaN
  const i64 sizes[] = {1,  2,  3,  5,  6,  7,  8,  9,  10, 12, 15, 16,  17,  24, 31,
                       33, 47, 48, 49, 63, 64, 65, 95, 96, 97, 100, 127, 144, 145};
  const i64 long_ones[] = {256, 257, 289, 300, 513, 700};
  const auto long_one = [&] { return long_ones[below(6)]; };
  const auto size = [&] { return below(8) ? sizes[below(sizeof sizes / sizeof *sizes)] : long_one(); };
  for (int round = 0; round < rounds; ++round)
    for (int which = 0; which < 6; ++which) {
      const bool across_a = which % 3 == 2, across_b = which % 3 == 1, by_rows = which >= 3;
      const i64 m = size(), n = size(), k = below(20) ? (below(3) ? size() : long_one()) : 0;
      static const char* const kinds[] = {"nn", "nt", "tn"};
      char name[40];
      snprintf(name, sizeof name, "gemm_%s%s<float>", kinds[which % 3], by_rows ? "_rows" : "");
      check<float>(name, across_a, across_b, by_rows, m, n, k);
      snprintf(name, sizeof name, "gemm_%s%s<double>", kinds[which % 3], by_rows ? "_rows" : "");
      check<double>(name, across_a, across_b, by_rows, m, n, k);
    }
  // So long that chains are added up in double, also in more parts than one.
  check<float>("gemm_nn<float>", false, false, false, 100, 40, 20000);
  check<double>("gemm_nt<double>", false, true, false, 100, 40, 20000);
  check<float>("gemm_tn_rows<float>", true, false, true, 100, 40, 20000);
  check<float>("gemm_tn<float>", true, false, false, 100, 9, 4097);
  check<double>("gemm_tn<double>", true, false, false, 400, 1000, 4200);
  return 0;
}
