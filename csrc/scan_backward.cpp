// Gradients of the selective scan. Chunk by chunk from the last: the states of a chunk are computed again and kept.
#include "scan.h"
#include "table.h"

namespace skimba {
namespace SKIMBA_ISA {
namespace {

constexpr int GROUPS = 8;   // channel groups whose parts of dB and dC are summed in order, whatever the number of parts
constexpr int CHUNK = 128;  // steps whose states are kept, sized for the second-level cache

struct BackMemory {
  float *B, *C;                                // [b][block][l][N], shared
  float *group_B, *group_C;                    // [b][group][block][l][N]: sums over the channels of a group
  float *group_gap, *group_step, *group_hold;  // [b][group][l]
  float *sample_A, *sample_D, *sample_bias;    // [b][e n], [b][e], [b][e]
  float *A, *A_log2, *dA;                      // of each part: [block][N][W]
  float *h, *carry, *starts;                   // [block][N][W]; starts: one such for each chunk
  float *kept_h, *kept_decay;                  // [block][step][N][W]
  float *y, *grad_y, *grad_input, *grad_time;  // [step][W]
  float *grad_step, *grad_hold;                // [step][W]: what reaches Δ and the number held through the sum held
  Times times;
};

inline int64_t chunk_of(const ScanArgs& a) {
  int64_t blocks = ceil_div(a.n, N);
  return smaller(a.l, blocks < 8 ? CHUNK / blocks : 16);
}

BackMemory back_memory(const ScanArgs& a, Arena& arena, int64_t part) {
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
  for (int64_t i = 0; i <= part; ++i) {
    float** states_of_part[] = {&m.A, &m.A_log2, &m.dA, &m.h, &m.carry};
    for (float** p : states_of_part) *p = arena.take<float>(states * W);
    m.starts = arena.take<float>(states * W * ceil_div(a.l, chunk));
    m.kept_h = arena.take<float>(states * W * chunk);
    m.kept_decay = arena.take<float>(states * W * chunk);
    float** steps_of_part[] = {&m.y, &m.grad_y, &m.grad_input, &m.grad_time, &m.grad_step, &m.grad_hold};
    for (float** p : steps_of_part) *p = arena.take<float>(chunk * W);
    m.times = take_times(a, arena, chunk);
  }
  return m;
}

// hold is null if it is not wanted
struct BlockGrads {
  float *A, *B, *C, *time, *input, *step, *hold, *carry;
};

// What reaches A, Δ and the number held through the sums of step s, which are put into `sum`. Reads carry from memory.
void retreat_held(const float* A, const float* B, const float* C, Times times, const float* grad_y, int64_t s,
                  BlockGrads g, float* sum) {
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

// From the gradients of each step's time and input to those of u, delta, gap, step and delta_bias (returned).
// `from_next` is what the time of the step after reaches this one's Δ with, through missing tokens; it is left for the
// chunk before.
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
    store(static_cast<T*>(g.u) + (k.b * a.l + place) * a.e + k.channel,
          grad_input * plain * factor + skip * load(m.grad_y + s * W), k.count);
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

template <class T> void scan_channels_backward(const Scan& k, const ScanGrads& g, const BackMemory& m, int64_t group) {
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
  Arena arena{workspace, 0};
  BackMemory shared = back_memory(a, arena, 0);
  pack_all_states<T>(a, shared.B, shared.C);
  in_parts(a.team, a.b * GROUPS, [&](int64_t part, int64_t from, int64_t to) {
    Arena own{workspace, 0};
    BackMemory m = back_memory(a, own, part);
    for (int64_t i = from; i < to; ++i) {
      int64_t b = i / GROUPS, group = i % GROUPS;
      clear(m.group_B + i * per_sample, per_sample);
      clear(m.group_C + i * per_sample, per_sample);
      clear(m.group_gap + i * a.l, a.l);
      clear(m.group_step + i * a.l, a.l);
      clear(m.group_hold + i * a.l, a.l);
      for (int64_t v = group * vectors / GROUPS; v < (group + 1) * vectors / GROUPS; ++v)
        scan_channels_backward<T>(
            {a, b, v * W, (int)smaller(W, a.e - v * W), blocks, m.B + b * per_sample, m.C + b * per_sample}, g, m,
            group);
    }
  });
  in_parts(a.team, a.b * a.l, [&](int64_t, int64_t from, int64_t to) {
    for (int64_t row = from; row < to; ++row) sum_groups<T>(a, g, shared, row);
  });
  in_parts(a.team, a.e, [&](int64_t, int64_t from, int64_t to) {
    for (int64_t channel = from; channel < to; ++channel) sum_samples(a, g, shared, channel);
  });
}

}  // namespace

size_t scan_backward_workspace(const ScanArgs& a) {
  Arena arena{nullptr, 0};
  back_memory(a, arena, parts_of(a.team, a.b * GROUPS) - 1);
  return arena.used;
}
void scan_backward(const ScanArgs& a, const ScanGrads& g, char* workspace) {
  a.bf16 ? scan_backward_typed<bf16>(a, g, workspace) : scan_backward_typed<float>(a, g, workspace);
}

}  // namespace SKIMBA_ISA
}  // namespace skimba
