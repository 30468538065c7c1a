// Jobs of an OpenBLAS on the pool.
//
// * They wait for each other, so they run at once, each on a thread of its own, or not here at all: where the pool is
//   busy, wanted by a step, or has too few threads, the library's own workers take them, as they do without us. So no
//   product waits for a step, and a step waits for one product at most.
// * A job's thread has a number, which stands for a buffer and a place in a table of the library. Its own workers, which
//   other calls of it use at the same time (the factors of a matrix, say), have the lowest numbers; ours are taken from
//   the top: `room - 1` for the caller that its own workers help, those below for the pool.
// * The callback is set while the pool has threads, and only then: it is null behind pool_release(), and in the child of
//   a fork until that has a pool of its own.
#include "blas.h"

#include <pthread.h>

#include <atomic>

#include "pool.h"

namespace bnengine {
namespace {

struct Call {
  BlasJob run;
  int jobs;
  size_t bytes;
  char* first;
  int more;
};

bnengine_blas_functions blas;  // it does not change once `known`
bool known = false;
pthread_mutex_t caller = PTHREAD_MUTEX_INITIALIZER;  // of the one that has the highest number
std::atomic<index> calls[2];

void run_job(const void* context, index, index job, Worker&) {
  const Call& call = *static_cast<const Call*>(context);
  call.run(blas.room - 1 - call.jobs + int(job), call.first + size_t(job) * call.bytes, call.more);
}

void run_by_its_own(const Call& call) {
  pthread_mutex_lock(&caller);
  if (call.jobs > 1) blas.begin(1, call.first + call.bytes);
  call.run(blas.room - 1, call.first, call.more);
  if (call.jobs > 1) blas.end(call.jobs - 1, call.first + call.bytes);
  pthread_mutex_unlock(&caller);
}

void run_jobs(int, BlasJob run, int jobs, size_t bytes, void* first, int more) {
  const Call call{run, jobs, bytes, static_cast<char*>(first), more};
  const bool numbers = *blas.threads + jobs <= blas.room;
  const bool ours = numbers && pool_run_at_once({run_job, &call, nullptr, 1, jobs, nullptr, true});
  if (!ours) run_by_its_own(call);
  calls[!ours].fetch_add(1, std::memory_order_relaxed);
}

void told(Threads now) {
  blas.set_callback(now == Threads::run ? run_jobs : nullptr);
  if (now == Threads::gone) caller = PTHREAD_MUTEX_INITIALIZER;  // a thread that is not here may have held it
}

}  // namespace

int bnengine_blas(const bnengine_blas_functions* functions) {
  if (!functions) return int(pool_watch(nullptr));
  if (known) return int(blas.set_callback == functions->set_callback ? pool_watch(told) : Outcome::range);
  blas = *functions;
  const Outcome outcome = pool_watch(told);
  known = outcome == Outcome::done;
  return int(outcome);
}

index bnengine_blas_calls(int own) { return calls[own != 0].load(std::memory_order_relaxed); }

}  // namespace bnengine
