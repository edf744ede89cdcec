// A convolution along a sequence, on rows that are read where they lie: several channel vectors at a time, so that
// whole cache lines are used, and several steps at a time, so that each row is read once for all taps.
#pragma once
#include "memory.h"

namespace skimba {
namespace SKIMBA_ISA {
namespace {

constexpr int BLOCK = 4;       // channel vectors of a block
constexpr int STEPS = 4;       // neighbouring outputs
constexpr int FORESIGHT = 16;  // steps from a row that is asked for to that which is worked on
constexpr int TAPS = 4;        // the width that Mamba has; others take the way of a grid

template <class T> constexpr T NO_ROW[BLOCK * W] = {};  // zeros, where there is none

// The channels of a block
struct Channels {
  int vectors, last;  // how many vectors, and how many lanes of the last are in use
  int lanes(int v) const { return v + 1 < vectors ? W : last; }
};

// STEPS neighbouring sums of one vector; with all lanes in use nothing is asked for each load.
template <bool FULL, class T>
inline void convolve_steps(const T* const* rows, int64_t channel, int lanes, const float* weight, vf* out) {
#pragma GCC unroll 8
  for (int i = 0; i < STEPS + TAPS - 1; ++i) {
    vf x = FULL ? load(rows[i] + channel) : load(rows[i] + channel, lanes);
#pragma GCC unroll 4
    for (int s = 0; s < STEPS; ++s)
      if (i >= s && i - s < TAPS) out[s] += x * load(weight + (i - s) * W);
  }
}

// `row(q)`: where the block's channels stand at position q, which may lie outside of the sequence. `finish(p, v, sum)`
// takes the result of vector v at position p. `weight`: [vector][TAPS][W].
template <class T, class Row, class Finish>
void convolve_rows(int64_t length, int64_t pad, const float* weight, const float* bias, Channels channels, Row row,
                   Finish finish) {
  for (int64_t p = 0; p < length; p += STEPS) {
    const T* rows[STEPS + TAPS - 1];
    for (int i = 0; i < STEPS + TAPS - 1; ++i) rows[i] = row(p + i - pad);
    for (int i = 0; i < STEPS; ++i) {  // no hardware prefetcher follows rows that lie pages apart
      const T* ahead = row(p + FORESIGHT + i);
      for (int v = 0; v < channels.vectors; ++v) __builtin_prefetch(ahead + v * W);
    }
    int count = (int)smaller(STEPS, length - p);
    for (int v = 0; v < channels.vectors; ++v) {
      int lanes = channels.lanes(v);
      vf initial = load(bias + v * W, lanes), out[STEPS] = {initial, initial, initial, initial};
      if (lanes == W)
        convolve_steps<true>(rows, v * W, W, weight + v * TAPS * W, out);
      else
        convolve_steps<false>(rows, v * W, lanes, weight + v * TAPS * W, out);
      for (int s = 0; s < count; ++s) finish(p + s, v, out[s]);
    }
  }
}

}  // namespace
}  // namespace SKIMBA_ISA
}  // namespace skimba
