// The kernels, compiled once per instruction set. Vectors run over the channels e, with unit stride in memory, so that
// nothing is ever shuffled but in the sums over channels of the backward scan. Only this header and compiler builtins:
// an inline function of the standard library compiled here for AVX-512 could be the copy that the linker keeps for all.
#include "kernels.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(_OPENMP)
extern "C" int omp_get_thread_num();
#else
static int omp_get_thread_num() { return 0; }
#endif

namespace skimba {
namespace SKIMBA_ISA {
namespace {

constexpr int W = SKIMBA_LANES;
constexpr int N = 16;        // states that one pass over time keeps in registers; other n are padded to a multiple
constexpr int GROUPS = 8;    // channel groups whose parts of dB and dC are summed in order, whatever the thread count
constexpr int CHUNK = 128;   // steps whose states a backward pass keeps, sized for the second-level cache

typedef float vf __attribute__((vector_size(W * 4)));
typedef int32_t vi __attribute__((vector_size(W * 4)));
typedef uint32_t vu __attribute__((vector_size(W * 4)));
typedef uint16_t vh __attribute__((vector_size(W * 2)));
typedef float vf_any __attribute__((vector_size(W * 4), aligned(4), may_alias));
typedef uint16_t vh_any __attribute__((vector_size(W * 2), aligned(2), may_alias));

struct bf16 { uint16_t bits; };

inline vf splat(float x) { return vf{} + x; }
inline vf load(const float* p) { return *reinterpret_cast<const vf_any*>(p); }
inline void store(float* p, vf x) { *reinterpret_cast<vf_any*>(p) = x; }
inline vf load(const bf16* p) {
  vh bits = *reinterpret_cast<const vh_any*>(p);
  return (vf)(__builtin_convertvector(bits, vu) << 16);
}
inline void store(bf16* p, vf x) {  // to nearest, ties to even
  vu bits = (vu)x;
  vu rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  rounded = (x != x) ? (vu{} + 0x7fc0u) : rounded;
  *reinterpret_cast<vh_any*>(p) = __builtin_convertvector(rounded, vh);
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
  union { uint32_t u; float f; } x = {(uint32_t)p->bits << 16};
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

// ---- functions ----

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

struct Expm1 { vf exp, minus_1; };  // e^x, and e^x - 1 to full relative accuracy

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

// ---- memory ----

struct Arena {  // hands out aligned pieces of the workspace; with base null it only measures
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

// ---- the scan ----

struct Scan {  // one channel vector of one sample
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
};

Times take_times(const ScanArgs& a, Arena& arena, int64_t steps) {
  Times times = {arena.take<float>(steps * W), arena.take<float>(steps * W), nullptr, nullptr, !a.gap.data && !a.missing.data};
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

// A for one channel vector, times a factor: [block][N][W]. What pads it is -1, not 0: an infinite time passes there too.
void pack_A(const ScanArgs& a, int64_t channel, int count, float factor, float* out) {
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

// The rows of a channel vector lie pages apart, where no hardware prefetcher follows.
constexpr int64_t AHEAD = 12;
template <class T> inline void prefetch(const Scan& k, const Rows& rows, int64_t step, bool placed) {
  if (!rows.data || step >= k.a.l) return;
  int64_t t = k.token(step);
  __builtin_prefetch(at<T>(rows, k.b, placed ? k.place(t) : t) + k.channel);
}

// Time that passes before a step where tokens are missing: each lets the time of the token before them pass once more.
inline vf missing_time(const Scan& k, int64_t t, vf previous) { return previous * *at<float>(k.a.missing, k.b, t); }

// An infinite gap empties the state; as the largest number it does so without a NaN in 0 · infinity.
inline vf finite(vf time) { return (time > 3.40282347e38f) ? splat(3.40282347e38f) : time; }

template <class T> void discretise(const Scan& k, int64_t start, int64_t count, Times times) {
  const ScanArgs& a = k.a;
  vf previous = {};  // Δ of the step before, without its factor
  if (a.missing.data && start > 0) previous = softplus(raw_delta<T>(k, k.token(start - 1)));
  for (int64_t s = 0; s < count; ++s) {
    int64_t t = k.token(start + s);
    prefetch<T>(k, a.delta, start + s + AHEAD, false);
    prefetch<T>(k, a.u, start + s + AHEAD, true);
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
    store(times.decay + s * W, finite(dt));
  }
}

// A step that stands for `held` positions, each of Δ and with the same input: the sum 1 + a + … + a^(held-1) of its
// decay a = exp(q), q = Δ A < 0. As expm1(held q) / expm1(q) it is defined between whole numbers too.
inline vf held_sum(vf q, float held) {
  vf sum = expm1(q * held).minus_1 / expm1(q).minus_1;
  return (q == 0.0f) ? splat(held) : sum;
}

constexpr float DOUBLED = 16;  // up to here the sum is found by doubling, with the error of its few products
inline bool doubled(float held) { return held >= 2 && held <= DOUBLED && held == (float)(int)held; }

struct Repeated { vf decay, sum; };  // a^held and 1 + a + … + a^(held-1)
inline Repeated repeat(vf a, int held) {
  Repeated r = {a, splat(1.0f)};
  for (int bit = 1 << (30 - __builtin_clz(held)); bit; bit >>= 1) {
    r.sum += r.sum * r.decay;
    r.decay *= r.decay;
    if (held & bit) {
      r.sum = r.sum * a + 1.0f;
      r.decay *= a;
    }
  }
  return r;
}

constexpr float LN2 = 0.693147181f;

// Decays and sums of N states at a step that stands for `held` positions. A is premultiplied by log2(e).
void hold_step(const float* A, Times times, int64_t s, float* decay, float* sum) {
  vf time = load(times.decay + s * W), step = load(times.step + s * W);
  float held = times.held[s];
  if (doubled(held)) {
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      Repeated r = repeat(exp2(step * load(A + i * W)), (int)held);
      store(decay + i * W, times.only_held ? r.decay : exp2(time * load(A + i * W)));
      store(sum + i * W, r.sum);
    }
  } else {
    for (int i = 0; i < N; ++i) {
      store(decay + i * W, exp2(time * load(A + i * W)));
      store(sum + i * W, held_sum(step * load(A + i * W) * LN2, held));
    }
  }
}

// One block of N states through `count` steps. A is premultiplied by log2(e). Adds to y, and keeps what backward needs.
template <bool KEEP, bool HOLD>
void advance(const float* A, const float* B, const float* C, Times times, float* h, float* y, int64_t count, float* kept_h,
             float* kept_decay) {
  vf state[N];
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) state[i] = load(h + i * W);
  for (int64_t s = 0; s < count; ++s) {
    vf time = load(times.decay + s * W), input = load(times.input + s * W);
    vf partial[4] = {load(y + s * W), vf{}, vf{}, vf{}};  // four chains, to hide the latency of the additions
    if (HOLD && times.held[s] != 1.0f) {
      float scratch[2 * N * W];
      float *decay = KEEP ? kept_decay + s * N * W : scratch, *sum = scratch + N * W;
      hold_step(A, times, s, decay, sum);
#pragma GCC unroll 16
      for (int i = 0; i < N; ++i) {
        state[i] = load(decay + i * W) * state[i] + input * load(sum + i * W) * B[s * N + i];
        partial[i & 3] += state[i] * C[s * N + i];
        if (KEEP) store(kept_h + (s * N + i) * W, state[i]);
      }
    } else {
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
    }
    store(y + s * W, (partial[0] + partial[1]) + (partial[2] + partial[3]));
  }
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) store(h + i * W, state[i]);
}

// The same for the states of block i from step `start` on.
template <bool KEEP>
void advance_block(const Scan& k, const float* A, Times times, float* h, float* y, int64_t start, int64_t count, int64_t i,
                   float* kept_h = nullptr, float* kept_decay = nullptr) {
  int64_t row = (i * k.a.l + start) * N, own = i * N * W;
  auto run = k.a.hold.data ? advance<KEEP, true> : advance<KEEP, false>;
  run(A + own, k.B + row, k.C + row, times, h + own, y, count, kept_h, kept_decay);
}

template <class T> void write_output(const Scan& k, int64_t start, int64_t count, const float* y) {
  const ScanArgs& a = k.a;
  vf skip = a.D ? load(a.D + k.channel, k.count) : vf{};
  for (int64_t s = 0; s < count; ++s) {
    int64_t t = k.place(k.token(start + s));
    prefetch<T>(k, a.z, start + s + AHEAD, true);
    vf out = load(y + s * W);
    if (a.D) out += skip * load(at<T>(a.u, k.b, t) + k.channel, k.count);
    if (a.z.data) out *= silu(load(at<T>(a.z, k.b, t) + k.channel, k.count));
    store(static_cast<T*>(a.y) + (k.b * a.l + t) * a.e + k.channel, out, k.count);
  }
}

constexpr int FORWARD_CHUNK = 64;  // steps whose times stay in the first-level cache

struct ScanMemory {  // of a forward pass
  float *B, *C;      // [b][block][l][N]
  float *A, *h, *y;  // of each thread
  Times times;
};

ScanMemory scan_memory(const ScanArgs& a, Arena& arena, int64_t thread) {
  int64_t states = ceil_div(a.n, N) * N;
  ScanMemory m;
  m.B = arena.take<float>(a.b * states * a.l);
  m.C = arena.take<float>(a.b * states * a.l);
  for (int64_t i = 0; i <= thread; ++i) {
    m.A = arena.take<float>(states * W);
    m.h = arena.take<float>(states * W);
    m.y = arena.take<float>(FORWARD_CHUNK * W);
    m.times = take_times(a, arena, FORWARD_CHUNK);
  }
  return m;
}

template <class T> void scan_channels(const Scan& k, const ScanMemory& m) {
  const ScanArgs& a = k.a;
  pack_A(a, k.channel, k.count, 1.44269504f, m.A);
  clear(m.h, k.blocks * N * W);
  for (int64_t start = 0; start < a.l; start += FORWARD_CHUNK) {
    int64_t count = smaller(FORWARD_CHUNK, a.l - start);
    discretise<T>(k, start, count, m.times);
    clear(m.y, count * W);
    for (int64_t i = 0; i < k.blocks; ++i) advance_block<false>(k, m.A, m.times, m.h, m.y, start, count, i);
    write_output<T>(k, start, count, m.y);
  }
}

template <class T> void scan_typed(const ScanArgs& a, char* workspace) {
  int64_t blocks = ceil_div(a.n, N), vectors = ceil_div(a.e, W), per_sample = blocks * a.l * N;
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
  {
    Arena arena{workspace, 0};
    ScanMemory m = scan_memory(a, arena, omp_get_thread_num());
#pragma omp for schedule(static)
    for (int64_t i = 0; i < 2 * a.b; ++i)
      pack_states<T>(a, i % 2 ? a.C : a.B, i / 2, (i % 2 ? m.C : m.B) + i / 2 * per_sample);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < a.b * vectors; ++i) {
      int64_t b = i / vectors, channel = i % vectors * W;
      scan_channels<T>({a, b, channel, (int)smaller(W, a.e - channel), blocks, m.B + b * per_sample, m.C + b * per_sample}, m);
    }
  }
}

// ---- the scan's backward ----

struct BackMemory {
  float *B, *C;                                  // [b][block][l][N], shared
  float *group_B, *group_C;                      // [b][group][block][l][N]: sums over the channels of a group
  float *group_gap, *group_step, *group_hold;    // [b][group][l]
  float *sample_A, *sample_D, *sample_bias;      // [b][e n], [b][e], [b][e]
  float *A, *A_log2, *dA;                        // of each thread: [block][N][W]
  float *h, *carry, *starts;                     // [block][N][W]; starts: one such for each chunk
  float *kept_h, *kept_decay;                    // [block][step][N][W]
  float *y, *grad_y, *grad_input, *grad_time;    // [step][W]
  float *grad_step, *grad_hold;                  // [step][W]: what reaches Δ and the number held through the sum held
  Times times;
};

inline int64_t chunk_of(const ScanArgs& a) {
  int64_t blocks = ceil_div(a.n, N);
  return smaller(a.l, blocks < 8 ? CHUNK / blocks : 16);
}

BackMemory back_memory(const ScanArgs& a, Arena& arena, int64_t thread) {
  int64_t blocks = ceil_div(a.n, N), states = blocks * N, chunk = chunk_of(a);
  BackMemory m;
  m.B = arena.take<float>(a.b * states * a.l);
  m.C = arena.take<float>(a.b * states * a.l);
  m.group_B = arena.take<float>(a.b * GROUPS * states * a.l);
  m.group_C = arena.take<float>(a.b * GROUPS * states * a.l);
  m.group_gap = arena.take<float>(a.b * GROUPS * a.l);
  m.group_step = arena.take<float>(a.b * GROUPS * a.l);
  m.group_hold = arena.take<float>(a.b * GROUPS * a.l);
  m.sample_A = arena.take<float>(a.b * a.e * a.n);
  m.sample_D = arena.take<float>(a.b * a.e);
  m.sample_bias = arena.take<float>(a.b * a.e);
  for (int64_t i = 0; i <= thread; ++i) {
    float** states_of_thread[] = {&m.A, &m.A_log2, &m.dA, &m.h, &m.carry};
    for (float** p : states_of_thread) *p = arena.take<float>(states * W);
    m.starts = arena.take<float>(states * W * ceil_div(a.l, chunk));
    m.kept_h = arena.take<float>(states * W * chunk);
    m.kept_decay = arena.take<float>(states * W * chunk);
    float** steps_of_thread[] = {&m.y, &m.grad_y, &m.grad_input, &m.grad_time, &m.grad_step, &m.grad_hold};
    for (float** p : steps_of_thread) *p = arena.take<float>(chunk * W);
    m.times = take_times(a, arena, chunk);
  }
  return m;
}

// d/dx of log(expm1(x) / x), from x, e^x and expm1(x); by its series where the difference would cancel.
inline vf log_slope(vf x, Expm1 e) {
  vf square = x * x;
  vf series = 0.5f + x * (1.0f / 12 + square * (-1.0f / 720 + square * (1.0f / 30240 - square * (1.0f / 1209600))));
  return (square < 1.0f) ? series : e.exp / e.minus_1 - 1.0f / x;
}

struct HeldSlopes { vf sum, by_exponent, by_count; };  // held_sum, and its derivatives by q and by the number held

inline HeldSlopes held_slopes(vf q, float held) {
  Expm1 one = expm1(q), all = expm1(q * held);
  vf sum = (q == 0.0f) ? splat(held) : all.minus_1 / one.minus_1;
  vf by_count = all.exp * ((q == 0.0f) ? splat(1.0f) : q / one.minus_1);
  return {sum, sum * (held * log_slope(q * held, all) - log_slope(q, one)), by_count};
}

struct BlockGrads { float *A, *B, *C, *time, *input, *step, *hold, *carry; };  // hold is null if it is not wanted

// What reaches A, Δ and the number held through the sums of step s, which are put into `sum`. Reads carry from memory.
void retreat_held(const float* A, const float* B, const float* C, Times times, const float* grad_y, int64_t s, BlockGrads g,
                  float* sum) {
  vf gy = load(grad_y + s * W), input = load(times.input + s * W), step = load(times.step + s * W);
  vf to_step = load(g.step + s * W), to_hold = {};
  for (int i = 0; i < N; ++i) {
    vf rate = load(A + i * W);
    HeldSlopes slopes = held_slopes(step * rate, times.held[s]);
    vf to_sum = (load(g.carry + i * W) + gy * C[s * N + i]) * input * B[s * N + i];
    vf to_exponent = to_sum * slopes.by_exponent;
    to_step += to_exponent * rate;
    to_hold += to_sum * slopes.by_count;
    store(g.A + i * W, load(g.A + i * W) + to_exponent * step);
    store(sum + i * W, slopes.sum);
  }
  store(g.step + s * W, to_step);
  if (g.hold) store(g.hold + s * W, load(g.hold + s * W) + to_hold);
}

// Back through the steps of one block of N states, from the kept states: adds to the gradients of A, B and C, of the
// step's time and of its input, and moves carry, the gradient that reaches the state from later steps.
template <bool HOLD>
void retreat(const float* A, const float* B, const float* C, Times times, const float* start, const float* kept_h,
             const float* kept_decay, const float* grad_y, int64_t count, BlockGrads g) {
  vf carry[N];
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) carry[i] = load(g.carry + i * W);
  for (int64_t s = count - 1; s >= 0; --s) {
    bool held = HOLD && (g.hold || times.held[s] != 1.0f);
    float sum[HOLD ? N * W : 1];
    if (held) {
#pragma GCC unroll 16
      for (int i = 0; i < N; ++i) store(g.carry + i * W, carry[i]);
      retreat_held(A, B, C, times, grad_y, s, g, sum);
    }
    vf gy = load(grad_y + s * W), time = load(times.decay + s * W), input = load(times.input + s * W);
    vf to_input = load(g.input + s * W), to_time = load(g.time + s * W);
    const float* before = s ? kept_h + (s - 1) * N * W : start;
    vf to_B[N], to_C[N];
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) {
      int64_t at = (s * N + i) * W;
      vf grad_h = carry[i] + gy * C[s * N + i];
      vf to_source = grad_h;
      if (held) to_source *= load(sum + i * W);
      to_C[i] = gy * load(kept_h + at);
      to_B[i] = to_source * input;
      to_input += to_source * B[s * N + i];
      carry[i] = grad_h * load(kept_decay + at);
      vf to_exponent = carry[i] * load(before + i * W);
      to_time += to_exponent * load(A + i * W);
      store(g.A + i * W, load(g.A + i * W) + to_exponent * time);
    }
    add_lane_sums(g.C + s * N, to_C);
    add_lane_sums(g.B + s * N, to_B);
    store(g.input + s * W, to_input);
    store(g.time + s * W, to_time);
  }
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) store(g.carry + i * W, carry[i]);
}

// The output's gradient before the gate, and those of z and D.
template <class T>
vf backward_output(const Scan& k, const ScanGrads& g, int64_t start, int64_t count, const BackMemory& m) {
  const ScanArgs& a = k.a;
  vf skip = a.D ? load(a.D + k.channel, k.count) : vf{}, to_D = {};
  for (int64_t s = 0; s < count; ++s) {
    int64_t t = k.place(k.token(start + s));
    vf grad = load(at<T>(g.grad, k.b, t) + k.channel, k.count);
    vf u = load(at<T>(a.u, k.b, t) + k.channel, k.count);
    if (a.z.data) {
      vf z = load(at<T>(a.z, k.b, t) + k.channel, k.count), open = sigmoid(z);
      vf to_z = grad * (load(m.y + s * W) + skip * u) * silu_slope(z, open);
      store(static_cast<T*>(g.z) + (k.b * a.l + t) * a.e + k.channel, to_z, k.count);
      grad *= z * open;
    }
    to_D += grad * u;
    store(m.grad_y + s * W, grad);
  }
  return to_D;
}

// From the gradients of each step's time and input to those of u, delta, gap, step and delta_bias (returned). `from_next` is what
// the time of the step after reaches this one's Δ with, through missing tokens; it is left for the chunk before.
template <class T>
vf backward_times(const Scan& k, const ScanGrads& g, int64_t start, int64_t count, const BackMemory& m, int64_t part,
                  vf& from_next) {
  const ScanArgs& a = k.a;
  float *to_gap = m.group_gap + part * a.l, *to_step = m.group_step + part * a.l, *to_hold = m.group_hold + part * a.l;
  vf skip = a.D ? load(a.D + k.channel, k.count) : vf{}, to_bias = {};
  for (int64_t s = count - 1; s >= 0; --s) {
    int64_t t = k.token(start + s), place = k.place(t), out = (k.b * a.l + t) * a.e + k.channel;
    vf raw = raw_delta<T>(k, t), factor = splat(step_factor(k, t)), plain = softplus(raw);
    vf u = load(at<T>(a.u, k.b, place) + k.channel, k.count);
    vf grad_input = load(m.grad_input + s * W), grad_time = load(m.grad_time + s * W);
    store(static_cast<T*>(g.u) + (k.b * a.l + place) * a.e + k.channel, grad_input * plain * factor + skip * load(m.grad_y + s * W), k.count);
    if (a.gap.data && a.gap_per_channel) store(g.gap + out, grad_time, k.count);
    if (a.gap.data && !a.gap_per_channel) to_gap[t] += sum(grad_time);
    if (g.hold) to_hold[t] += sum(grad_time * plain * factor + load(m.grad_hold + s * W));
    vf grad_step = grad_time;
    if (a.hold.data) grad_step = grad_time * held_by(k, t) + load(m.grad_step + s * W);
    vf grad_dt = grad_step + grad_input * u;
    if (a.step.data) to_step[t] += sum(grad_dt * plain);
    vf slope = (raw > 20.0f) ? splat(1.0f) : sigmoid(raw);
    vf grad_delta = (grad_dt * factor + from_next) * slope;
    if (a.missing.data) from_next = missing_time(k, t, grad_time);
    store(static_cast<T*>(g.delta) + out, grad_delta, k.count);
    to_bias += grad_delta;
  }
  return to_bias;
}

// By A, or by log(-A): A times that.
void store_grad_A(const Scan& k, const float* dA, const float* A, float* out) {
  for (int lane = 0; lane < k.count; ++lane)
    for (int64_t i = 0; i < k.a.n; ++i)
      out[(k.channel + lane) * k.a.n + i] = dA[i * W + lane] * (k.a.log_A ? A[i * W + lane] : 1.0f);
}

// The states at the start of every chunk, without keeping those between.
template <class T> void find_starts(const Scan& k, const BackMemory& m, int64_t chunk) {
  const ScanArgs& a = k.a;
  int64_t states = k.blocks * N * W;
  clear(m.h, states);
  for (int64_t start = 0;; start += chunk) {
    __builtin_memcpy(m.starts + start / chunk * states, m.h, states * sizeof(float));
    if (start + chunk >= a.l) return;
    discretise<T>(k, start, chunk, m.times);
    clear(m.y, chunk * W);
    for (int64_t i = 0; i < k.blocks; ++i) advance_block<false>(k, m.A_log2, m.times, m.h, m.y, start, chunk, i);
  }
}

template <class T>
void scan_channels_backward(const Scan& k, const ScanGrads& g, const BackMemory& m, int64_t group) {
  const ScanArgs& a = k.a;
  int64_t chunk = chunk_of(a), states = k.blocks * N * W, part = k.b * GROUPS + group;
  pack_A(a, k.channel, k.count, 1.0f, m.A);
  pack_A(a, k.channel, k.count, 1.44269504f, m.A_log2);
  find_starts<T>(k, m, chunk);
  clear(m.carry, states);
  clear(m.dA, states);
  vf to_D = {}, to_bias = {}, from_next = {};
  for (int64_t start = (a.l - 1) / chunk * chunk; start >= 0; start -= chunk) {
    int64_t count = smaller(chunk, a.l - start);
    const float* h = m.starts + start / chunk * states;
    __builtin_memcpy(m.h, h, states * sizeof(float));
    discretise<T>(k, start, count, m.times);
    clear(m.y, count * W);
    clear(m.grad_input, count * W);
    clear(m.grad_time, count * W);
    clear(m.grad_step, count * W);
    clear(m.grad_hold, count * W);
    for (int64_t i = 0; i < k.blocks; ++i) {
      int64_t kept = i * chunk * N * W;
      advance_block<true>(k, m.A_log2, m.times, m.h, m.y, start, count, i, m.kept_h + kept, m.kept_decay + kept);
    }
    to_D += backward_output<T>(k, g, start, count, m);
    for (int64_t i = 0; i < k.blocks; ++i) {
      int64_t row = (i * a.l + start) * N, kept = i * chunk * N * W, own = i * N * W;
      int64_t sums = (part * k.blocks + i) * a.l * N + start * N;
      auto run = a.hold.data ? retreat<true> : retreat<false>;
      run(m.A + own, k.B + row, k.C + row, m.times, h + own, m.kept_h + kept, m.kept_decay + kept, m.grad_y, count,
          {m.dA + own, m.group_B + sums, m.group_C + sums, m.grad_time, m.grad_input, m.grad_step,
           g.hold ? m.grad_hold : nullptr, m.carry + own});
    }
    to_bias += backward_times<T>(k, g, start, count, m, part, from_next);
  }
  store_grad_A(k, m.dA, m.A, m.sample_A + k.b * a.e * a.n);
  store(m.sample_D + k.b * a.e + k.channel, to_D, k.count);
  store(m.sample_bias + k.b * a.e + k.channel, to_bias, k.count);
}

inline float sum_strided(const float* p, int64_t count, int64_t stride) {
  float total = 0;
  for (int64_t i = 0; i < count; ++i) total += p[i * stride];
  return total;
}

template <class T> void sum_groups(const ScanArgs& a, const ScanGrads& g, const BackMemory& m, int64_t row) {
  int64_t b = row / a.l, t = row % a.l, s = a.reverse ? a.l - 1 - t : t, per_group = ceil_div(a.n, N) * a.l * N;
  for (int64_t i = 0; i < a.n; ++i) {
    int64_t from = b * GROUPS * per_group + (i / N * a.l + s) * N + i % N;
    put(static_cast<T*>(g.B) + row * a.n + i, sum_strided(m.group_B + from, GROUPS, per_group));
    put(static_cast<T*>(g.C) + row * a.n + i, sum_strided(m.group_C + from, GROUPS, per_group));
  }
  int64_t from = b * GROUPS * a.l + t;
  if (a.gap.data && !a.gap_per_channel) g.gap[row] = sum_strided(m.group_gap + from, GROUPS, a.l);
  if (a.step.data) g.step[row] = sum_strided(m.group_step + from, GROUPS, a.l);
  if (g.hold) g.hold[row] = sum_strided(m.group_hold + from, GROUPS, a.l);
}

void sum_samples(const ScanArgs& a, const ScanGrads& g, const BackMemory& m, int64_t channel) {
  for (int64_t i = channel * a.n; i < (channel + 1) * a.n; ++i) g.A[i] = sum_strided(m.sample_A + i, a.b, a.e * a.n);
  if (g.D) g.D[channel] = sum_strided(m.sample_D + channel, a.b, a.e);
  if (g.delta_bias) g.delta_bias[channel] = sum_strided(m.sample_bias + channel, a.b, a.e);
}

template <class T> void scan_backward_typed(const ScanArgs& a, const ScanGrads& g, char* workspace) {
  int64_t blocks = ceil_div(a.n, N), vectors = ceil_div(a.e, W), per_sample = blocks * a.l * N;
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
  {
    Arena arena{workspace, 0};
    BackMemory m = back_memory(a, arena, omp_get_thread_num());
#pragma omp for schedule(static)
    for (int64_t i = 0; i < 2 * a.b; ++i)
      pack_states<T>(a, i % 2 ? a.C : a.B, i / 2, (i % 2 ? m.C : m.B) + i / 2 * per_sample);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < a.b * GROUPS; ++i) {
      int64_t b = i / GROUPS, group = i % GROUPS;
      clear(m.group_B + i * per_sample, per_sample);
      clear(m.group_C + i * per_sample, per_sample);
      clear(m.group_gap + i * a.l, a.l);
      clear(m.group_step + i * a.l, a.l);
      clear(m.group_hold + i * a.l, a.l);
      for (int64_t v = group * vectors / GROUPS; v < (group + 1) * vectors / GROUPS; ++v)
        scan_channels_backward<T>({a, b, v * W, (int)smaller(W, a.e - v * W), blocks, m.B + b * per_sample, m.C + b * per_sample},
                                  g, m, group);
    }
#pragma omp for schedule(static) nowait
    for (int64_t row = 0; row < a.b * a.l; ++row) sum_groups<T>(a, g, m, row);
#pragma omp for schedule(static)
    for (int64_t channel = 0; channel < a.e; ++channel) sum_samples(a, g, m, channel);
  }
}

// ---- depthwise convolution + SiLU ----

struct ConvMemory { float *sample_weight, *sample_bias, *share, *image, *weight, *grad, *sums; };

// One channel vector of one image, with its border of zeros, is copied into `image`: no bounds to check afterwards.
ConvMemory conv_memory(const ConvArgs& a, Arena& arena, int64_t thread, bool backward) {
  int64_t padded = (a.h + a.kh - 1) * (a.w + a.kw - 1) * W, taps = a.kh * a.kw;
  ConvMemory m = {};
  if (backward) {
    m.sample_weight = arena.take<float>(a.b * a.e * taps);
    m.sample_bias = arena.take<float>(a.b * a.e);
  }
  m.share = arena.take<float>(a.source ? a.b * (a.tokens + 1) : 0);
  for (int64_t i = 0; i <= thread; ++i) {
    m.image = arena.take<float>(padded);
    m.weight = arena.take<float>(taps * W);
    m.sums = arena.take<float>(a.source ? a.tokens * W : 0);
    if (backward) m.grad = arena.take<float>(padded);
  }
  return m;
}

inline int64_t source_at(const ConvArgs& a, int64_t b, int64_t i, int64_t j) { return a.source[(b * a.h + i) * a.w + j]; }

// Where in image b the row of x for a position of the grid begins; negative: zeros.
inline int64_t x_offset(const ConvArgs& a, int64_t b, int64_t i, int64_t j) {
  if (!a.source) return i * a.x_row + j * a.x_col;
  int64_t token = source_at(a, b, i, j);
  return token < 0 ? -1 : token * a.x_col;
}

template <class T> void copy_padded(const ConvArgs& a, int64_t b, int64_t channel, int count, float* image) {
  int64_t width = a.w + a.kw - 1;
  clear(image, (a.h + a.kh - 1) * width * W);
  for (int64_t i = 0; i < a.h; ++i)
    for (int64_t j = 0; j < a.w; ++j)
      if (int64_t from = x_offset(a, b, i, j); from >= 0)
        store(image + ((i + a.pad_top) * width + j + a.pad_left) * W,
              load(static_cast<const T*>(a.x) + b * a.x_batch + from + channel, count));
}

// One result of the grid: to its place, or to that of the token that is shown there, or to that token's sum.
template <class T>
inline void deliver(const ConvArgs& a, const ConvMemory& m, T* to, int64_t b, int64_t i, int64_t j, vf x, int count, bool sum) {
  if (!a.source) return store(to + ((b * a.h + i) * a.w + j) * a.e, x, count);
  int64_t token = source_at(a, b, i, j);
  if (!sum) return store(to + (b * a.tokens + token) * a.e, x, count);
  float* total = m.sums + token * W;
  store(total, load(total) + x);
}
inline bool shown(const ConvArgs& a, int64_t b, int64_t i, int64_t j) { return !a.source || source_at(a, b, i, j) >= 0; }

// What is known of image b's tokens: for each 1 / the number of positions that show it, then whether all are shown just once.
inline float* shares(const ConvArgs& a, const ConvMemory& m, int64_t b) { return m.share + b * (a.tokens + 1); }
inline bool summed(const ConvArgs& a, const ConvMemory& m, int64_t b) { return a.source && shares(a, m, b)[a.tokens] == 0; }

void find_shares(const ConvArgs& a, int64_t b, float* share) {
  clear(share, a.tokens);
  for (int64_t p = 0; p < a.h * a.w; ++p)
    if (int64_t token = a.source[b * a.h * a.w + p]; token >= 0) share[token] += 1;
  bool once = true;
  for (int64_t k = 0; k < a.tokens; ++k) {
    once &= share[k] == 1;
    share[k] = share[k] > 0 ? 1 / share[k] : 0;
  }
  share[a.tokens] = once;
}

template <class T> void write_sums(const ConvArgs& a, const ConvMemory& m, const float* factor, T* to, int64_t b, int count) {
  for (int64_t k = 0; k < a.tokens; ++k)
    store(to + (b * a.tokens + k) * a.e, load(m.sums + k * W) * (factor ? factor[k] : 1.0f), count);
}

// Where a tap's weight stands in memory.
inline int64_t tap(const ConvArgs& a, int64_t i) { return a.reverse ? a.kh * a.kw - 1 - i : i; }

void pack_weight(const ConvArgs& a, int64_t channel, int count, float* out) {
  for (int64_t i = 0; i < a.kh * a.kw; ++i)
    for (int lane = 0; lane < W; ++lane)
      out[i * W + lane] = lane < count ? a.weight[(channel + lane) * a.kh * a.kw + tap(a, i)] : 0.0f;
}

// P neighbouring outputs at once: each weight is loaded once for all. KW = 0: any kernel width.
template <int P, int KW> inline void correlate(const float* from, int64_t row, const float* weight, int64_t kh, int64_t kw, vf* out) {
  for (int64_t i = 0; i < kh; ++i) {
    const float* x = from + i * row;
    if constexpr (KW > 0) {
#pragma GCC unroll 8
      for (int j = 0; j < KW; ++j)
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) out[p] += load(x + (j + p) * W) * load(weight + (i * KW + j) * W);
    } else {
      for (int64_t j = 0; j < kw; ++j)
        for (int p = 0; p < P; ++p) out[p] += load(x + (j + p) * W) * load(weight + (i * kw + j) * W);
    }
  }
}

// correlate over the whole grid; `finish(row, column, sum)` takes each result.
template <int KW, class Finish>
void each_position(const ConvArgs& a, const float* image, const float* weight, vf initial, Finish finish) {
  constexpr int P = 4;
  int64_t row = (a.w + a.kw - 1) * W;
  for (int64_t i = 0; i < a.h; ++i) {
    int64_t j = 0;
    for (; j + P <= a.w; j += P) {
      vf out[P] = {initial, initial, initial, initial};
      correlate<P, KW>(image + i * row + j * W, row, weight, a.kh, a.kw, out);
      for (int p = 0; p < P; ++p) finish(i, j + p, out[p]);
    }
    for (; j < a.w; ++j) {
      vf out = initial;
      correlate<1, KW>(image + i * row + j * W, row, weight, a.kh, a.kw, &out);
      finish(i, j, out);
    }
  }
}
template <class Finish>
void convolve(const ConvArgs& a, const float* image, const float* weight, vf initial, Finish finish) {
  if (a.kw == 4) return each_position<4>(a, image, weight, initial, finish);
  if (a.kw == 7) return each_position<7>(a, image, weight, initial, finish);
  each_position<0>(a, image, weight, initial, finish);
}

template <class T> void conv_typed(const ConvArgs& a, char* workspace) {
  int64_t vectors = ceil_div(a.e, W);
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
  {
    Arena arena{workspace, 0};
    ConvMemory m = conv_memory(a, arena, omp_get_thread_num(), false);
    if (a.source) {
#pragma omp for schedule(static)
      for (int64_t b = 0; b < a.b; ++b) find_shares(a, b, shares(a, m, b));
    }
#pragma omp for schedule(static)
    for (int64_t task = 0; task < a.b * vectors; ++task) {
      int64_t b = task / vectors, channel = task % vectors * W;
      int count = (int)smaller(W, a.e - channel);
      copy_padded<T>(a, b, channel, count, m.image);
      pack_weight(a, channel, count, m.weight);
      T* to = static_cast<T*>(a.y) + channel;
      bool sum = summed(a, m, b);
      if (sum) clear(m.sums, a.tokens * W);
      convolve(a, m.image, m.weight, load(a.bias + channel, count), [&](int64_t i, int64_t j, vf x) {
        if (shown(a, b, i, j)) deliver(a, m, to, b, i, j, silu(x), count, sum);
      });
      if (sum) write_sums(a, m, shares(a, m, b), to, b, count);
    }
  }
}

// Sums of grad times input for one row of taps.
template <int KW> void tap_sums(const ConvArgs& a, const float* image, const float* grad, int64_t row, vf* out) {
  vf total[KW] = {};
  for (int64_t i = 0; i < a.h; ++i)
    for (int64_t j = 0; j < a.w; ++j) {
      vf g = load(grad + i * row + j * W);
#pragma GCC unroll 8
      for (int q = 0; q < KW; ++q) total[q] += g * load(image + i * row + (j + q) * W);
    }
  for (int q = 0; q < KW; ++q) out[q] = total[q];
}

void weight_grad(const ConvArgs& a, const float* image, const float* grad, int count, float* out) {
  int64_t row = (a.w + a.kw - 1) * W, taps = a.kh * a.kw;
  for (int64_t i = 0; i < a.kh; ++i)
    for (int64_t j = 0; j < a.kw;) {
      vf sums[7];
      const float* from = image + i * row + j * W;
      int wide = a.kw - j >= 7 ? 7 : a.kw - j >= 4 ? 4 : 1;
      if (wide == 7) tap_sums<7>(a, from, grad, row, sums);
      if (wide == 4) tap_sums<4>(a, from, grad, row, sums);
      if (wide == 1) tap_sums<1>(a, from, grad, row, sums);
      for (int q = 0; q < wide; ++q)
        for (int lane = 0; lane < count; ++lane) out[lane * taps + tap(a, i * a.kw + j + q)] = sums[q][lane];
      j += wide;
    }
}

template <class T>
void conv_channels_backward(const ConvArgs& a, const ConvGrads& g, const ConvMemory& m, int64_t b, int64_t channel) {
  int count = (int)smaller(W, a.e - channel);
  int64_t width = a.w + a.kw - 1, taps = a.kh * a.kw;
  int64_t top = a.kh - 1 - a.pad_top, left = a.kw - 1 - a.pad_left;  // the border of the transposed convolution
  float* inner = m.grad + (top * width + left) * W;
  copy_padded<T>(a, b, channel, count, m.image);
  pack_weight(a, channel, count, m.weight);
  clear(m.grad, (a.h + a.kh - 1) * width * W);
  vf to_bias = {};
  convolve(a, m.image, m.weight, load(a.bias + channel, count), [&](int64_t i, int64_t j, vf x) {
    if (!shown(a, b, i, j)) return;
    int64_t token = a.source ? source_at(a, b, i, j) : 0, from = a.source ? token * g.col : i * g.row + j * g.col;
    vf grad = load(static_cast<const T*>(g.grad) + b * g.batch + from + channel, count);
    if (a.source) grad *= shares(a, m, b)[token];
    grad *= silu_slope(x, sigmoid(x));
    to_bias += grad;
    store(inner + (i * width + j) * W, grad);
  });
  store(m.sample_bias + b * a.e + channel, to_bias, count);
  weight_grad(a, m.image, inner, count, m.sample_weight + (b * a.e + channel) * taps);
  for (int64_t i = 0; i < taps / 2; ++i) {
    vf first = load(m.weight + i * W);
    store(m.weight + i * W, load(m.weight + (taps - 1 - i) * W));
    store(m.weight + (taps - 1 - i) * W, first);
  }
  T* to = static_cast<T*>(g.x) + channel;
  bool sum = summed(a, m, b);
  if (sum) clear(m.sums, a.tokens * W);
  convolve(a, m.grad, m.weight, vf{}, [&](int64_t i, int64_t j, vf x) {
    if (shown(a, b, i, j)) deliver(a, m, to, b, i, j, x, count, sum);
  });
  if (sum) write_sums(a, m, nullptr, to, b, count);
}

template <class T> void conv_backward_typed(const ConvArgs& a, const ConvGrads& g, char* workspace) {
  int64_t vectors = ceil_div(a.e, W), taps = a.kh * a.kw;
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
  {
    Arena arena{workspace, 0};
    ConvMemory m = conv_memory(a, arena, omp_get_thread_num(), true);
    if (a.source) {
#pragma omp for schedule(static)
      for (int64_t b = 0; b < a.b; ++b) find_shares(a, b, shares(a, m, b));
    }
#pragma omp for schedule(static)
    for (int64_t task = 0; task < a.b * vectors; ++task)
      conv_channels_backward<T>(a, g, m, task / vectors, task % vectors * W);
#pragma omp for schedule(static) nowait
    for (int64_t i = 0; i < a.e * taps; ++i) g.weight[i] = sum_strided(m.sample_weight + i, a.b, a.e * taps);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < a.e; ++i) g.bias[i] = sum_strided(m.sample_bias + i, a.b, a.e);
  }
}

// ---- residual addition + RMSNorm ----

constexpr int NORM_PARTS = 32;  // parts of the rows whose weight gradients are summed in order, whatever the thread count

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

// ---- the table ----

size_t scan_workspace(const ScanArgs& a) {
  Arena arena{nullptr, 0};
  scan_memory(a, arena, a.threads - 1);
  return arena.used;
}
void scan(const ScanArgs& a, char* workspace) { a.bf16 ? scan_typed<bf16>(a, workspace) : scan_typed<float>(a, workspace); }
size_t scan_backward_workspace(const ScanArgs& a) {
  Arena arena{nullptr, 0};
  back_memory(a, arena, a.threads - 1);
  return arena.used;
}
void scan_backward(const ScanArgs& a, const ScanGrads& g, char* workspace) {
  a.bf16 ? scan_backward_typed<bf16>(a, g, workspace) : scan_backward_typed<float>(a, g, workspace);
}
size_t conv_workspace(const ConvArgs& a) {
  Arena arena{nullptr, 0};
  conv_memory(a, arena, a.threads - 1, false);
  return arena.used;
}
void conv(const ConvArgs& a, char* workspace) { a.bf16 ? conv_typed<bf16>(a, workspace) : conv_typed<float>(a, workspace); }
size_t conv_backward_workspace(const ConvArgs& a) {
  Arena arena{nullptr, 0};
  conv_memory(a, arena, a.threads - 1, true);
  return arena.used;
}
void conv_backward(const ConvArgs& a, const ConvGrads& g, char* workspace) {
  a.bf16 ? conv_backward_typed<bf16>(a, g, workspace) : conv_backward_typed<float>(a, g, workspace);
}

void norm(const NormArgs& a) { a.bf16 ? norm_typed<bf16>(a) : norm_typed<float>(a); }
size_t norm_backward_workspace(const NormArgs& a) { return (size_t)NORM_PARTS * a.d * sizeof(float); }
void norm_backward(const NormArgs& a, const NormGrads& g, char* workspace) {
  float* parts = reinterpret_cast<float*>(workspace);
  a.bf16 ? norm_backward_typed<bf16>(a, g, parts) : norm_backward_typed<float>(a, g, parts);
}

void map(int function, const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; i += W) {
    int lanes = (int)smaller(W, count - i);
    vf v = load(x + i, lanes);
    store(y + i, function == 0 ? exp2(v) : function == 1 ? exp(v) : function == 2 ? softplus(v) : silu(v), lanes);
  }
}

#define SKIMBA_TEXT(name) #name
#define SKIMBA_NAME(name) SKIMBA_TEXT(name)

}  // namespace

extern const Kernels kernels = {SKIMBA_NAME(SKIMBA_ISA), scan_workspace, scan, scan_backward_workspace, scan_backward,
                                conv_workspace, conv, conv_backward_workspace, conv_backward, norm, norm_backward_workspace, norm_backward, map};

}  // namespace SKIMBA_ISA
}  // namespace skimba
