// How many threads a kernel may use where no caller says it: what OpenMP allows, which is also what torch allows
// itself.
#pragma once
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace skimba {

inline int threads_allowed() {
#if defined(_OPENMP)
  return omp_get_max_threads();
#else
  return 1;
#endif
}

}  // namespace skimba
