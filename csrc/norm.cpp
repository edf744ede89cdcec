// A residual addition and the RMSNorm of the sum, and its gradients.
#include "memory.h"
#include "table.h"

namespace skimba {
namespace SKIMBA_ISA {
namespace {

constexpr int NORM_PARTS =
    32;  // parts of the rows whose weight gradients are summed in order, whatever the thread count

inline float inverse_rms(const float* row, int64_t d, float eps) {
  vf squares = {};
  for (int64_t i = 0; i < d; i += W) {
    vf x = load(row + i, (int)smaller(W, d - i));
    squares += x * x;
  }
  return 1.0f / __builtin_sqrtf(sum(squares) / d + eps);
}

template <class T> void norm_row(const NormArgs& a, int64_t row) {
  const T* x = static_cast<const T*>(a.x) + row * a.d;
  float* total = a.total + row * a.d;
  for (int64_t i = 0; i < a.d; i += W) {
    int count = (int)smaller(W, a.d - i);
    vf value = load(x + i, count);
    if (a.residual) value += load(a.residual + row * a.d + i, count);
    store(total + i, value, count);
  }
  float inverse = inverse_rms(total, a.d, a.eps);
  for (int64_t i = 0; i < a.d; i += W) {
    int count = (int)smaller(W, a.d - i);
    store(static_cast<T*>(a.y) + row * a.d + i, load(total + i, count) * inverse * load(a.weight + i, count), count);
  }
}

template <class T> void norm_row_backward(const NormArgs& a, const NormGrads& g, int64_t row, float* to_weight) {
  const float* total = a.total + row * a.d;
  const T* grad = static_cast<const T*>(g.y) + row * a.d;
  float inverse = inverse_rms(total, a.d, a.eps);
  vf along = {};
  for (int64_t i = 0; i < a.d; i += W) {
    int count = (int)smaller(W, a.d - i);
    vf unit = load(total + i, count) * inverse, gy = load(grad + i, count);
    along += gy * load(a.weight + i, count) * unit;
    store(to_weight + i, load(to_weight + i, count) + gy * unit, count);
  }
  float mean = sum(along) / a.d;
  for (int64_t i = 0; i < a.d; i += W) {
    int count = (int)smaller(W, a.d - i);
    vf unit = load(total + i, count) * inverse;
    vf out = (load(grad + i, count) * load(a.weight + i, count) - unit * mean) * inverse;
    if (g.total) out += load(g.total + row * a.d + i, count);
    store(g.x + row * a.d + i, out, count);
  }
}

template <class T> void norm_typed(const NormArgs& a) {
#pragma omp parallel for schedule(static) num_threads(a.threads) if (a.threads > 1)
  for (int64_t row = 0; row < a.rows; ++row) norm_row<T>(a, row);
}

template <class T> void norm_backward_typed(const NormArgs& a, const NormGrads& g, float* parts) {
#pragma omp parallel for schedule(static) num_threads(a.threads) if (a.threads > 1)
  for (int64_t part = 0; part < NORM_PARTS; ++part) {
    clear(parts + part * a.d, a.d);
    for (int64_t row = part * a.rows / NORM_PARTS; row < (part + 1) * a.rows / NORM_PARTS; ++row)
      norm_row_backward<T>(a, g, row, parts + part * a.d);
  }
  for (int64_t i = 0; i < a.d; ++i) g.weight[i] = sum_strided(parts + i, NORM_PARTS, a.d);
}

}  // namespace

void norm(const NormArgs& a) { a.bf16 ? norm_typed<bf16>(a) : norm_typed<float>(a); }
size_t norm_backward_workspace(const NormArgs& a) { return (size_t)NORM_PARTS * a.d * sizeof(float); }
void norm_backward(const NormArgs& a, const NormGrads& g, char* workspace) {
  float* parts = reinterpret_cast<float*>(workspace);
  a.bf16 ? norm_backward_typed<bf16>(a, g, parts) : norm_backward_typed<float>(a, g, parts);
}

}  // namespace SKIMBA_ISA
}  // namespace skimba
