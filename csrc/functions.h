// Elementary functions of vectors, to about 2e-7; what is tested of them is in tests/ops/test_native.py.
#pragma once
#include "vector.h"

namespace skimba {
namespace SKIMBA_ISA {
namespace {

inline vf scale(vf x, vi power) {  // x * 2^power in two steps, so that denormal results round once
  vi half = power >> 1;
  return x * (vf)((half + 127) << 23) * (vf)((power - half + 127) << 23);
}

inline vf exp2_fraction(vf f) {  // 2^f for f in [0, 1]: relative minimax, error 8.2e-8, exactly 1 at 0
  vf p = f * 0.00186713022f + 0.00901703002f;
  p = p * f + 0.0557999133f;
  p = p * f + 0.240164450f;
  p = p * f + 0.693151312f;
  return p * f + 1.0f;
}

inline vf exp2(vf x) {
#if defined(__AVX512F__)
  vf f = (vf)_mm512_reduce_ps((__m512)x, 0x09);  // x - floor(x); scalef takes the floor itself
  return (vf)_mm512_scalef_ps((__m512)exp2_fraction(f), (__m512)x);
#else
  x = (x < -160.0f) ? splat(-160.0f) : x;  // so written, NaN passes
  x = (x > 129.0f) ? splat(129.0f) : x;
  vi power = __builtin_convertvector(x, vi);
  power += __builtin_convertvector(power, vf) > x;
  return scale(exp2_fraction(x - __builtin_convertvector(power, vf)), power);
#endif
}

inline vf exp(vf x) {  // Cody and Waite's reduction, then the series to degree 7 on |r| <= ln(2)/2
  x = (x < -110.0f) ? splat(-110.0f) : x;
  x = (x > 89.0f) ? splat(89.0f) : x;
  vf power = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
  vf r = (x - power * 0.693359375f) + power * 2.12194440e-4f;
  vf p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return scale(p, __builtin_convertvector(power, vi));
}

// Both e^x, and e^x - 1 to full relative accuracy
struct Expm1 {
  vf exp, minus_1;
};

inline Expm1 expm1(vf x) {  // the reduction of exp; what is close to 0 is never subtracted from 1
  x = (x < -110.0f) ? splat(-110.0f) : x;
  x = (x > 88.0f) ? splat(88.0f) : x;
  vf power = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
  vf r = (x - power * 0.693359375f) + power * 2.12194440e-4f;
  vf p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r;
  vi whole = __builtin_convertvector(power, vi);
  return {scale(p + 1.0f, whole), scale(p, whole) + (scale(splat(1.0f), whole) - 1.0f)};
}

inline vf log1p_unit(vf t) {  // t in [0, 1], by 2 artanh(t / (2 + t))
  vf s = t / (t + 2.0f), q = s * s;
  vf p = q * 0.121447794f + 0.107153703f;
  p = p * q + 0.143082984f;
  p = p * q + 0.199994442f;
  p = p * q + 0.333333378f;
  return 2.0f * (s * q * p + s);
}

inline vf softplus(vf x) {  // torch's: the identity above 20
  vf magnitude = (x < 0.0f) ? -x : x;
  vf y = ((x > 0.0f) ? x : vf{}) + log1p_unit(exp(-magnitude));
  y = (x > 20.0f) ? x : y;
  return (x != x) ? x : y;
}
inline vf sigmoid(vf x) { return 1.0f / (1.0f + exp(-x)); }
inline vf silu(vf x) { return x / (1.0f + exp(-x)); }
inline vf silu_slope(vf x, vf s) { return s * (1.0f + x * (1.0f - s)); }  // s = sigmoid(x)

}  // namespace
}  // namespace SKIMBA_ISA
}  // namespace skimba
