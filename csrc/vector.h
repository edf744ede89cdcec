// Vectors of SKIMBA_LANES floats, and what is loaded into them. Vectors run over the channels, with unit stride in
// memory, so that nothing is ever shuffled but in sums over channels. Only our headers and compiler builtins: an inline
// function of the standard library compiled here for AVX-512 could be the copy that the linker keeps for all
// instruction sets.
#pragma once
#include "kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace skimba {
namespace SKIMBA_ISA {
namespace {

constexpr int W = SKIMBA_LANES;
constexpr int N = 16;  // states that one pass over time keeps in registers; other n are padded to a multiple

typedef float vf __attribute__((vector_size(W * 4)));
typedef int32_t vi __attribute__((vector_size(W * 4)));
typedef uint32_t vu __attribute__((vector_size(W * 4)));
typedef uint16_t vh __attribute__((vector_size(W * 2)));
typedef float vf_any __attribute__((vector_size(W * 4), aligned(4), may_alias));
typedef uint16_t vh_any __attribute__((vector_size(W * 2), aligned(2), may_alias));

struct bf16 {
  uint16_t bits;
};

inline vf splat(float x) { return vf{} + x; }
inline vf load(const float* p) { return *reinterpret_cast<const vf_any*>(p); }
inline void store(float* p, vf x) { *reinterpret_cast<vf_any*>(p) = x; }
// Of __builtin_convertvector compilers make halves, by way of the stack.
inline vu widened(const bf16* p) {
#if defined(__AVX512F__)
  return (vu)_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
  return (vu)_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  return __builtin_convertvector(*reinterpret_cast<const vh_any*>(p), vu);
#endif
}
inline vh narrowed(vu x) {
#if defined(__AVX512F__)
  return (vh)_mm512_cvtepi32_epi16((__m512i)x);
#else
  return __builtin_convertvector(x, vh);
#endif
}
inline vf load(const bf16* p) { return (vf)(widened(p) << 16); }
inline void store(bf16* p, vf x) {  // to nearest, ties to even
  vu bits = (vu)x;
  vu rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  rounded = (x != x) ? (vu{} + 0x7fc0u) : rounded;
  *reinterpret_cast<vh_any*>(p) = narrowed(rounded);
}
template <class T> inline vf load(const T* p, int count) {
  if (count == W) return load(p);
  T buffer[W] = {};
  for (int i = 0; i < count; ++i) buffer[i] = p[i];
  return load(buffer);
}
template <class T> inline void store(T* p, vf x, int count) {
  if (count == W) return store(p, x);
  T buffer[W];
  store(buffer, x);
  for (int i = 0; i < count; ++i) p[i] = buffer[i];
}
inline float scalar(const float* p) { return *p; }
inline float scalar(const bf16* p) {
  union {
    uint32_t u;
    float f;
  } x = {(uint32_t)p->bits << 16};
  return x.f;
}
inline void put(float* p, float x) { *p = x; }
inline void put(bf16* p, float x) {
  bf16 buffer[W];
  store(buffer, splat(x));
  *p = buffer[0];
}
inline float sum(vf x) {
  float total = 0;
  for (int i = 0; i < W; ++i) total += x[i];
  return total;
}

// Sums over the lanes of W vectors, one per lane of the result. Each step halves the vectors and the lanes left to add.
template <int HALF> inline vf fold(vf a, vf b) {  // blocks of 2·HALF lanes: a's halves added, then b's
  vi low, high;
  for (int i = 0; i < W; ++i) {
    int block = i / (2 * HALF) * 2 * HALF, lane = i % (2 * HALF);
    low[i] = block + lane % HALF + (lane >= HALF ? W : 0);
    high[i] = low[i] + HALF;
  }
  return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
}
template <int HALF> inline void fold_all(vf* v) {
  if constexpr (HALF > 0) {
#pragma GCC unroll 8
    for (int i = 0; i < HALF; ++i) v[i] = fold<HALF>(v[i], v[i + HALF]);
    fold_all<HALF / 2>(v);
  }
}
inline void add_lane_sums(float* out, vf* v) {  // out[i] += sum(v[i]) for the N vectors v, which are overwritten
#pragma GCC unroll 4
  for (int i = 0; i < N; i += W) {
    fold_all<W / 2>(v + i);
    store(out + i, load(out + i) + v[i]);
  }
}

}  // namespace
}  // namespace SKIMBA_ISA
}  // namespace skimba
