// One channel vector of a scan through its steps, as the forward and the backward pass take it.
#pragma once
#include "hold.h"
#include "parallel.h"

namespace skimba {
namespace SKIMBA_ISA {
namespace {

// One channel vector of one sample
struct Scan {
  const ScanArgs& a;
  int64_t b, channel;
  int count;           // of its lanes in use
  int64_t blocks;      // of N states
  const float *B, *C;  // [block][step][N], in the order of the steps

  int64_t token(int64_t step) const { return a.reverse ? a.l - 1 - step : step; }
  int64_t place(int64_t token) const { return a.order ? a.order[b * a.order_batch + token] : token; }  // of u, z and y
};

struct Times {
  float *decay, *input;  // [step][W]: the exponent's time, and Δ u
  float *step, *held;    // [step][W]: Δ; [step]: the number of positions that a step stands for
  bool only_held;        // nothing else adds to the exponent's time

  Times from(int64_t s) const { return {decay + s * W, input + s * W, step + s * W, held + s, only_held}; }
};

inline Times take_times(const ScanArgs& a, Arena& arena, int64_t steps) {
  Times times = {arena.take<float>(steps * W), arena.take<float>(steps * W), nullptr, nullptr,
                 !a.gap.data && !a.missing.data};
  if (a.hold.data) {
    times.step = arena.take<float>(steps * W);
    times.held = arena.take<float>(steps);
  }
  return times;
}

// B or C as float, padded with zeros to whole blocks of N states, in the order of the steps.
template <class T> void pack_states(const ScanArgs& a, const Rows& rows, int64_t b, float* out) {
  int64_t blocks = ceil_div(a.n, N);
  for (int64_t block = 0; block < blocks; ++block)
    for (int64_t s = 0; s < a.l; ++s) {
      const T* row = at<T>(rows, b, a.reverse ? a.l - 1 - s : s) + block * N;
      int64_t count = smaller(N, a.n - block * N);
      float* to = out + (block * a.l + s) * N;
      for (int64_t i = 0; i < count; ++i) to[i] = scalar(row + i);
      for (int64_t i = count; i < N; ++i) to[i] = 0;
    }
}

// B and C of all samples, each [b][block][l][N].
template <class T> void pack_all_states(const ScanArgs& a, float* B, float* C) {
  int64_t per_sample = ceil_div(a.n, N) * a.l * N;
  in_parts(a.team, a.b, [&](int64_t, int64_t from, int64_t to) {
    for (int64_t b = from; b < to; ++b) {
      pack_states<T>(a, a.B, b, B + b * per_sample);
      pack_states<T>(a, a.C, b, C + b * per_sample);
    }
  });
}

// A for one channel vector, times a factor: [block][N][W]. What pads it is -1, not 0: an infinite time passes there
// too.
inline void pack_A(const ScanArgs& a, int64_t channel, int count, float factor, float* out) {
  int64_t padded = ceil_div(a.n, N) * N;
  for (int64_t i = 0; i < padded; ++i)
    for (int lane = 0; lane < W; ++lane)
      out[i * W + lane] = i < a.n && lane < count ? a.A[(channel + lane) * a.n + i] : a.log_A ? 0.0f : -1.0f;
  for (int64_t i = 0; i < padded; ++i) {
    vf given = load(out + i * W);
    store(out + i * W, (a.log_A ? -exp(given) : given) * factor);
  }
}

template <class T> inline vf raw_delta(const Scan& k, int64_t t) {
  vf x = load(at<T>(k.a.delta, k.b, t) + k.channel, k.count);
  return k.a.delta_bias ? x + load(k.a.delta_bias + k.channel, k.count) : x;
}
inline float held_by(const Scan& k, int64_t t) { return k.a.hold.data ? *at<float>(k.a.hold, k.b, t) : 1.0f; }
inline float step_factor(const Scan& k, int64_t t) { return k.a.step.data ? *at<float>(k.a.step, k.b, t) : 1.0f; }

// The rows of a channel vector lie pages apart, where no hardware prefetcher follows. Beyond what a second-level cache
// holds it pays to ask for them early. Inlined in any case: a function that only prefetches counts as one without
// effect.
constexpr int64_t AHEAD = 12, NEAR = 1 << 20;  // steps; bytes of one operand
template <class T> inline bool is_far(const ScanArgs& a) { return a.b * a.l * a.e * (int64_t)sizeof(T) > NEAR; }
template <class T>
__attribute__((always_inline)) inline void prefetch(const Scan& k, const Rows& rows, int64_t step, bool placed) {
  int64_t t = k.token(step);  // beyond the end too: a prefetch never faults
  if (placed && k.a.order) t = step < k.a.l ? k.place(t) : 0;
  __builtin_prefetch(at<T>(rows, k.b, t) + k.channel);
}

// Time that passes before a step where tokens are missing: each lets the time of the token before them pass once more.
inline vf missing_time(const Scan& k, int64_t t, vf previous) { return previous * *at<float>(k.a.missing, k.b, t); }

// An infinite gap empties the state; as the largest number it does so without a NaN in 0 · infinity.
inline vf finite(vf time) { return (time > 3.40282347e38f) ? splat(3.40282347e38f) : time; }

template <class T> void discretise(const Scan& k, int64_t start, int64_t count, Times times) {
  const ScanArgs& a = k.a;
  const bool far = is_far<T>(a);
  vf previous = {};  // Δ of the step before, without its factor
  if (a.missing.data && start > 0) previous = softplus(raw_delta<T>(k, k.token(start - 1)));
  for (int64_t s = 0; s < count; ++s) {
    int64_t t = k.token(start + s);
    if (far) {
      prefetch<T>(k, a.delta, start + s + AHEAD, false);
      prefetch<T>(k, a.u, start + s + AHEAD, true);
    }
    vf plain = softplus(raw_delta<T>(k, t)), dt = plain * step_factor(k, t);
    store(times.input + s * W, dt * load(at<T>(a.u, k.b, k.place(t)) + k.channel, k.count));
    if (a.hold.data) {
      float held = held_by(k, t);
      store(times.step + s * W, dt);
      times.held[s] = held;
      dt *= held;
    }
    if (a.gap.data)
      dt += a.gap_per_channel ? load(at<float>(a.gap, k.b, t) + k.channel, k.count) : splat(*at<float>(a.gap, k.b, t));
    if (a.missing.data) dt += missing_time(k, t, previous);
    previous = plain;
    store(times.decay + s * W, dt);
  }
  if (a.gap.data || a.missing.data || a.hold.data)
    for (int64_t s = 0; s < count; ++s) store(times.decay + s * W, finite(load(times.decay + s * W)));
}

// One block of N states through `count` steps. A is premultiplied by log2(e). Adds to y, and keeps what backward needs.
template <bool KEEP>
void advance(const float* A, const float* B, const float* C, Times times, float* h, float* y, int64_t count,
             float* kept_h, float* kept_decay) {
  vf state[N];
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) state[i] = load(h + i * W);
  for (int64_t s = 0; s < count; ++s) {
    vf time = load(times.decay + s * W), input = load(times.input + s * W);
    vf partial[4] = {load(y + s * W), vf{}, vf{}, vf{}};  // four chains, to hide the latency of the additions
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) {
      vf decay = exp2(time * load(A + i * W));
      state[i] = decay * state[i] + input * B[s * N + i];
      partial[i & 3] += state[i] * C[s * N + i];
      if (KEEP) {
        store(kept_h + (s * N + i) * W, state[i]);
        store(kept_decay + (s * N + i) * W, decay);
      }
    }
    store(y + s * W, (partial[0] + partial[1]) + (partial[2] + partial[3]));
  }
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) store(h + i * W, state[i]);
}

// M states through one step that stands for several positions: the step is taken so often, with one decay. What else
// passes comes before it.
template <int M>
inline void repeat_step(const float* A, const float* B, vf step, vf input, vf rest, bool only_held, int held,
                        float* h) {
  vf state[M], decay[M], added[M];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    decay[i] = exp2(step * load(A + i * W));
    added[i] = input * B[i];
    state[i] = load(h + i * W);
  }
  if (!only_held) {
    for (int i = 0; i < M; ++i) state[i] *= exp2(rest * load(A + i * W));
  }
  for (int k = 0; k < held; ++k) {
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) state[i] = decay[i] * state[i] + added[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) store(h + i * W, state[i]);
}

// As advance, by one step that stands for several positions.
template <bool KEEP>
void advance_held(const float* A, const float* B, const float* C, Times times, float* h, float* y, float* kept_h,
                  float* kept_decay) {
  vf time = load(times.decay), input = load(times.input), step = load(times.step);
  float held = *times.held;
  if (repeated(held)) {
    vf rest = time - step * held;
    for (int i = 0; i < N; i += N / 2)
      repeat_step<N / 2>(A + i * W, B + i, step, input, rest, times.only_held, (int)held, h + i * W);
  } else {
    for (int i = 0; i < N; ++i) {
      vf rate = load(A + i * W), sum = held_sum(step * rate * LN2, held);
      store(h + i * W, exp2(time * rate) * load(h + i * W) + input * sum * B[i]);
    }
  }
  vf partial[4] = {load(y), vf{}, vf{}, vf{}};
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) {
    vf state = load(h + i * W);
    partial[i & 3] += state * C[i];
    if (KEEP) {
      store(kept_h + i * W, state);
      store(kept_decay + i * W, exp2(time * load(A + i * W)));
    }
  }
  store(y, (partial[0] + partial[1]) + (partial[2] + partial[3]));
}

// The states of block i through `count` steps from `start` on, whatever they hold.
template <bool KEEP>
void advance_block(const Scan& k, const float* A, Times times, float* h, float* y, int64_t start, int64_t count,
                   int64_t i, float* kept_h = nullptr, float* kept_decay = nullptr) {
  const float *B = k.B + (i * k.a.l + start) * N, *C = k.C + (i * k.a.l + start) * N;
  A += i * N * W;
  h += i * N * W;
  if (!k.a.hold.data) return advance<KEEP>(A, B, C, times, h, y, count, kept_h, kept_decay);
  for (int64_t s = 0; s < count;) {
    int64_t from = s;
    while (s < count && times.held[s] == 1.0f) ++s;
    Times own = times.from(from);
    float *to_h = KEEP ? kept_h + from * N * W : nullptr, *to_decay = KEEP ? kept_decay + from * N * W : nullptr;
    if (s > from) {
      advance<KEEP>(A, B + from * N, C + from * N, own, h, y + from * W, s - from, to_h, to_decay);
    } else {
      advance_held<KEEP>(A, B + s * N, C + s * N, own, h, y + s * W, to_h, to_decay);
      ++s;
    }
  }
}

}  // namespace
}  // namespace SKIMBA_ISA
}  // namespace skimba
