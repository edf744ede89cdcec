// Rows as 8-bit integers with a scale of their own, and 32-bit products of such rows as numbers again.
#include "parallel.h"
#include "table.h"

namespace skimba {
namespace SKIMBA_ISA {
namespace {

constexpr float LARGEST = 127.0f;
constexpr float LEAST = 1e-30f;  // rows of nothing larger count as zeros: the inverse of their scale would overflow

typedef int8_t vb __attribute__((vector_size(W)));
typedef int8_t vb_any __attribute__((vector_size(W), aligned(1), may_alias));
typedef int32_t vi_any __attribute__((vector_size(W * 4), aligned(4), may_alias));

inline void store(int8_t* p, vb x, int count) {
  if (count == W) {
    *reinterpret_cast<vb_any*>(p) = x;
    return;
  }
  for (int i = 0; i < count; ++i) p[i] = x[i];
}

inline vf load_whole(const int32_t* p, int count) {
  if (count == W) return __builtin_convertvector((vi) * reinterpret_cast<const vi_any*>(p), vf);
  vi buffer = {};
  for (int i = 0; i < count; ++i) buffer[i] = p[i];
  return __builtin_convertvector(buffer, vf);
}

template <class T> float largest_magnitude(const T* x, int64_t d) {  // NaN where any value is not finite
  vf most = {}, odd = {};
  for (int64_t i = 0; i < d; i += W) {
    vf v = load(x + i, (int)smaller(W, d - i)), magnitude = (v < 0.0f) ? -v : v;
    most = (magnitude > most) ? magnitude : most;
    odd += v - v;
  }
  float found = 0;
  for (int i = 0; i < W; ++i) found = most[i] > found ? most[i] : found;
  return found + sum(odd);
}

template <class T> void quantize_row(const Int8Args& a, int64_t row) {
  const T* x = at<T>(a.x, row / a.l, row % a.l);
  float most = largest_magnitude(x, a.d);
  float inverse = most > LEAST ? LARGEST / most : 0.0f;  // NaN gives zeros, and a scale that is NaN
  a.scales[row] = most / LARGEST;
  for (int64_t i = 0; i < a.d; i += W) {
    int count = (int)smaller(W, a.d - i);
    vf v = load(x + i, count) * inverse;
    v = (v == v) ? v : vf{};
    v = (v + 12582912.0f) - 12582912.0f;  // to the nearest whole number, ties to even
    store(a.values + row * a.d + i, __builtin_convertvector(__builtin_convertvector(v, vi), vb), count);
  }
}

template <class T> void quantize_typed(const Int8Args& a) {
  in_parts(a.team, a.b * a.l, [&](int64_t, int64_t from, int64_t to) {
    for (int64_t row = from; row < to; ++row) quantize_row<T>(a, row);
  });
}

template <class T> void scale_row(const ScaleArgs& a, int64_t row) {
  for (int64_t i = 0; i < a.e; i += W) {
    int count = (int)smaller(W, a.e - i);
    vf v = load_whole(a.products + row * a.e + i, count) * (load(a.columns + i, count) * a.rows[row]);
    if (a.bias) v += load(a.bias + i, count);
    store(static_cast<T*>(a.y) + row * a.e + i, v, count);
  }
}

template <class T> void scale_typed(const ScaleArgs& a) {
  in_parts(a.team, a.count, [&](int64_t, int64_t from, int64_t to) {
    for (int64_t row = from; row < to; ++row) scale_row<T>(a, row);
  });
}

}  // namespace

void quantize_rows(const Int8Args& a) { a.bf16 ? quantize_typed<bf16>(a) : quantize_typed<float>(a); }
void scale_products(const ScaleArgs& a) { a.bf16 ? scale_typed<bf16>(a) : scale_typed<float>(a); }

}  // namespace SKIMBA_ISA
}  // namespace skimba
