// Elementary functions of vectors, to about 2e-7; what is tested of them is in tests/ops/test_native.py.
#pragma once
#include "vector.h"

namespace skimba {
namespace SKIMBA_ISA {
namespace {

// AVX-512 has instructions for what the other instruction sets put together: the larger of two (NaN of x passes),
// 2^power, and a reciprocal to 14 bits.
#if defined(__AVX512F__)
inline vf at_least(vf x, float low) { return (vf)_mm512_max_ps((__m512)splat(low), (__m512)x); }
inline vf at_most(vf x, float high) { return (vf)_mm512_min_ps((__m512)splat(high), (__m512)x); }
inline vf scale(vf x, vf power) { return (vf)_mm512_scalef_ps((__m512)x, (__m512)power); }
inline vf reciprocal(vf x) {  // of 1 ... 2^126; one step of Newton's
  vf y = (vf)_mm512_rcp14_ps((__m512)x);
  return y + y * (1.0f - x * y);
}
#else
inline vf at_least(vf x, float low) { return (x < low) ? splat(low) : x; }
inline vf at_most(vf x, float high) { return (x > high) ? splat(high) : x; }
inline vf scale(vf x, vf power) {  // x * 2^power in two steps, so that denormal results round once
  vi whole = __builtin_convertvector(power, vi), half = whole >> 1;
  return x * (vf)((half + 127) << 23) * (vf)((whole - half + 127) << 23);
}
inline vf reciprocal(vf x) { return 1.0f / x; }
#endif

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
  return scale(exp2_fraction(f), x);
#else
  x = at_most(at_least(x, -160.0f), 129.0f);
  vi whole = __builtin_convertvector(x, vi);
  whole += __builtin_convertvector(whole, vf) > x;
  vf power = __builtin_convertvector(whole, vf);
  return scale(exp2_fraction(x - power), power);
#endif
}

// Cody and Waite's reduction: x = power · ln(2) + rest, the rest within ±ln(2)/2
struct Reduced {
  vf power, rest;
};
inline Reduced reduced(vf x) {
  vf power = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
  return {power, (x - power * 0.693359375f) + power * 2.12194440e-4f};
}

inline vf exp_within(vf x) {  // of -110 ... 89; e^rest = 1 + rest + ... is minimax, relative error 3e-9
  auto [power, r] = reduced(x);
  vf p = r * 0.00138145987f + 0.00836871658f;
  p = p * r + 0.0416683904f;
  p = p * r + 0.166665211f;
  p = p * r + 0.499999940f;
  p = p * r + 1.0f;
  return scale(p * r + 1.0f, power);
}
inline vf exp(vf x) { return exp_within(at_most(at_least(x, -110.0f), 89.0f)); }

// Both e^x, and e^x - 1 to full relative accuracy
struct Expm1 {
  vf exp, minus_1;
};

inline Expm1 expm1(vf x) {  // what is close to 0 is never subtracted from 1
  auto [power, r] = reduced(at_most(at_least(x, -110.0f), 88.0f));
  vf p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r;
  return {scale(p + 1.0f, power), scale(p, power) + (scale(splat(1.0f), power) - 1.0f)};
}

inline vf log1p_unit(vf t) {  // t in [0, 1], by 2 artanh(t / (2 + t))
  vf s = t * reciprocal(t + 2.0f), q = s * s;
  vf p = q * 0.121447794f + 0.107153703f;
  p = p * q + 0.143082984f;
  p = p * q + 0.199994442f;
  p = p * q + 0.333333378f;
  return 2.0f * (s * q * p + s);
}

inline vf softplus(vf x) {  // torch's: the identity above 20
  vf magnitude = (x < 0.0f) ? -x : x;
  vf y = at_least(x, 0.0f) + log1p_unit(exp_within(at_least(-magnitude, -110.0f)));
  return (x > 20.0f) ? x : y;
}
inline vf sigmoid(vf x) { return reciprocal(1.0f + exp_within(at_most(at_least(-x, -87.0f), 87.0f))); }
inline vf silu(vf x) { return x * sigmoid(x); }
inline vf silu_slope(vf x, vf s) { return s * (1.0f + x * (1.0f - s)); }  // s = sigmoid(x)

}  // namespace
}  // namespace SKIMBA_ISA
}  // namespace skimba
