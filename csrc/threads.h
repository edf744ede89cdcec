// OpenMP's threads for the kernels, where torch calls them: torch's own operators run on the same threads.
#pragma once
#include "kernels.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace skimba {

inline void run_by_openmp(void*, void (*part)(void*, size_t), size_t count, void* work) {
#if defined(_OPENMP)
#pragma omp parallel for schedule(static) num_threads((int)count)
#endif
  for (size_t i = 0; i < count; ++i) part(work, i);
}

inline Team openmp_team(int threads) { return {threads, run_by_openmp, nullptr}; }

// Of as many threads as OpenMP allows, which is also what torch allows itself.
inline Team openmp_team() {
#if defined(_OPENMP)
  return openmp_team(omp_get_max_threads());
#else
  return openmp_team(1);
#endif
}

}  // namespace skimba
