// The workspace, rows of operands, and sums whose order does not depend on the number of parts.
#pragma once
#include "vector.h"

namespace skimba {
namespace SKIMBA_ISA {
namespace {

// Hands out aligned pieces of the workspace; with base null it only measures
struct Arena {
  char* base;
  size_t used;
  template <class T> T* take(int64_t count) {
    size_t start = used;
    used += ((size_t)count * sizeof(T) + 63) / 64 * 64;
    return base ? reinterpret_cast<T*>(base + start) : nullptr;
  }
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
template <class T> inline const T* at(const Rows& rows, int64_t b, int64_t t) {
  return static_cast<const T*>(rows.data) + b * rows.batch + t * rows.token;
}
inline void clear(float* p, int64_t count) { __builtin_memset(p, 0, count * sizeof(float)); }

inline float sum_strided(const float* p, int64_t count, int64_t stride) {
  float total = 0;
  for (int64_t i = 0; i < count; ++i) total += p[i * stride];
  return total;
}

}  // namespace
}  // namespace SKIMBA_ISA
}  // namespace skimba
