// A token that stands for several positions: the sum of its decays, and the derivatives of that sum.
#pragma once
#include "functions.h"

namespace skimba {
namespace SKIMBA_ISA {
namespace {

// A step that stands for `held` positions, each of Δ and with the same input: the sum 1 + a + … + a^(held-1) of its
// decay a = exp(q), q = Δ A < 0. As expm1(held q) / expm1(q) it is defined between whole numbers too.
inline vf held_sum(vf q, float held) {
  vf sum = expm1(q * held).minus_1 / expm1(q).minus_1;
  return (q == 0.0f) ? splat(held) : sum;
}

// A whole number up to here is taken step by step: cheaper than the sum, and its few roundings are those of a dense
// scan.
constexpr float REPEATED = 32;
inline bool repeated(float held) { return held <= REPEATED && held == (float)(int)held; }

constexpr float LN2 = 0.693147181f;

// d/dx of log(expm1(x) / x), from x, e^x and expm1(x); by its series where the difference would cancel.
inline vf log_slope(vf x, Expm1 e) {
  vf square = x * x;
  vf series = 0.5f + x * (1.0f / 12 + square * (-1.0f / 720 + square * (1.0f / 30240 - square * (1.0f / 1209600))));
  return (square < 1.0f) ? series : e.exp / e.minus_1 - 1.0f / x;
}

// The sum held_sum, and its derivatives by q and by the number held
struct HeldSlopes {
  vf sum, by_exponent, by_count;
};

inline HeldSlopes held_slopes(vf q, float held) {
  Expm1 one = expm1(q), all = expm1(q * held);
  vf sum = (q == 0.0f) ? splat(held) : all.minus_1 / one.minus_1;
  vf by_count = all.exp * ((q == 0.0f) ? splat(1.0f) : q / one.minus_1);
  return {sum, sum * (held * log_slope(q * held, all) - log_slope(q, one)), by_count};
}

}  // namespace
}  // namespace SKIMBA_ISA
}  // namespace skimba
