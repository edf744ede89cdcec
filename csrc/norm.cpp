// A residual addition and the RMSNorm of the sum, and its gradients.
#include "parallel.h"
#include "table.h"

namespace skimba {
namespace SKIMBA_ISA {
namespace {

constexpr int GROUPS = 32;  // of rows whose weight gradients are summed in order, whatever the number of parts

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
  in_parts(a.team, a.rows, [&](int64_t, int64_t from, int64_t to) {
    for (int64_t row = from; row < to; ++row) norm_row<T>(a, row);
  });
}

template <class T> void norm_backward_typed(const NormArgs& a, const NormGrads& g, float* to_weight) {
  in_parts(a.team, GROUPS, [&](int64_t, int64_t from, int64_t to) {
    for (int64_t group = from; group < to; ++group) {
      clear(to_weight + group * a.d, a.d);
      for (int64_t row = group * a.rows / GROUPS; row < (group + 1) * a.rows / GROUPS; ++row)
        norm_row_backward<T>(a, g, row, to_weight + group * a.d);
    }
  });
  for (int64_t i = 0; i < a.d; ++i) g.weight[i] = sum_strided(to_weight + i, GROUPS, a.d);
}

}  // namespace

void norm(const NormArgs& a) { a.bf16 ? norm_typed<bf16>(a) : norm_typed<float>(a); }
size_t norm_backward_workspace(const NormArgs& a) { return (size_t)GROUPS * a.d * sizeof(float); }
void norm_backward(const NormArgs& a, const NormGrads& g, char* workspace) {
  float* to_weight = reinterpret_cast<float*>(workspace);
  a.bf16 ? norm_backward_typed<bf16>(a, g, to_weight) : norm_backward_typed<float>(a, g, to_weight);
}

}  // namespace SKIMBA_ISA
}  // namespace skimba
