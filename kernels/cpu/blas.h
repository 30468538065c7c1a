// Another library's threads beside ours: the jobs of an OpenBLAS are run by the pool.
//
// An OpenBLAS that is built for pthreads has workers of its own, which stay awake for a while behind a call. Where a
// program takes turns between products of that library and steps of ours, two sets of threads that wait awake want the
// same cores. OpenBLAS lets a caller run its jobs instead (openblas_set_threads_callback_function of its cblas.h, from
// 0.3.28 on); all that is called here is found by dlsym at run time and handed over.
#pragma once
#include <stddef.h>

#include "replay.h"

namespace bnengine {

// One job, `job`, in the thread of this number: the numbers of jobs that run at the same time must differ, and be below
// `room`. `more` is handed on.
using BlasJob = void (*)(int number, void* job, int more);
using BlasCallback = void (*)(int wait, BlasJob run, int jobs, size_t bytes, void* first, int more);

struct bnengine_blas_functions {
  void (*set_callback)(BlasCallback);    // openblas_set_threads_callback_function
  int (*begin)(long position, void*);    // exec_blas_async: the library's own workers take a list of jobs
  int (*end)(long count, void*);         // exec_blas_async_wait: they have done so many
  const int* threads;                    // blas_num_threads: its own workers have the numbers from 0 to two below this
  int room;                              // MAX_THREADS of its configuration
};

// From now on the pool runs the jobs of this library whenever it has threads; null: of none any more. What they point to
// stays loaded.
BNENGINE_EXPORT int bnengine_blas(const bnengine_blas_functions* functions);
// How many calls the pool has run, and (`own`) how many of those that came here the library's own workers have run.
BNENGINE_EXPORT index bnengine_blas_calls(int own);

}  // namespace bnengine
