// A depthwise convolution and SiLU, and its gradients.
#include "functions.h"
#include "parallel.h"
#include "sequence.h"
#include "table.h"

namespace skimba {
namespace SKIMBA_ISA {
namespace {

struct ConvMemory {
  float *sample_weight, *sample_bias, *share, *image, *weight, *grad, *sums;
};

// One channel vector of one image, with its border of zeros, is copied into `image`: no bounds to check afterwards.
ConvMemory conv_memory(const ConvArgs& a, Arena& arena, int64_t part, bool backward) {
  int64_t padded = (a.h + a.kh - 1) * (a.w + a.kw - 1) * W, taps = a.kh * a.kw;
  ConvMemory m = {};
  if (backward) {
    m.sample_weight = arena.take<float>(a.b * a.e * taps);
    m.sample_bias = arena.take<float>(a.b * a.e);
  }
  m.share = arena.take<float>(a.source ? a.b * (a.tokens + 1) : 0);
  for (int64_t i = 0; i <= part; ++i) {
    m.image = arena.take<float>(padded);
    m.weight = arena.take<float>(taps * W * BLOCK);
    m.sums = arena.take<float>(a.source ? a.tokens * W * BLOCK : 0);
    if (backward) m.grad = arena.take<float>(padded);
  }
  return m;
}

inline int64_t source_at(const ConvArgs& a, int64_t b, int64_t i, int64_t j) {
  return a.source[(b * a.h + i) * a.w + j];
}

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
inline void deliver(const ConvArgs& a, const ConvMemory& m, T* to, int64_t b, int64_t i, int64_t j, vf x, int count,
                    bool sum) {
  if (!a.source) return store(to + ((b * a.h + i) * a.w + j) * a.e, x, count);
  int64_t token = source_at(a, b, i, j);
  if (!sum) return store(to + (b * a.tokens + token) * a.e, x, count);
  float* total = m.sums + token * W;
  store(total, load(total) + x);
}
inline bool shown(const ConvArgs& a, int64_t b, int64_t i, int64_t j) {
  return !a.source || source_at(a, b, i, j) >= 0;
}

// What is known of image b's tokens: for each 1 / the number of positions that show it, then whether all are shown just
// once.
inline float* shares(const ConvArgs& a, const ConvMemory& m, int64_t b) { return m.share + b * (a.tokens + 1); }
inline bool summed(const ConvArgs& a, const ConvMemory& m, int64_t b) {
  return a.source && shares(a, m, b)[a.tokens] == 0;
}

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

template <class T>
void write_sums(const ConvArgs& a, const ConvMemory& m, const float* factor, T* to, int64_t b, int count) {
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
template <int P, int KW>
inline void correlate(const float* from, int64_t row, const float* weight, int64_t kh, int64_t kw, vf* out) {
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

template <class T> void conv_grid(const ConvArgs& a, ConvMemory m, int64_t b, int64_t channel) {
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

// The same for a block of channels of a sequence.
template <class T> void conv_sequence(const ConvArgs& a, ConvMemory m, int64_t b, int64_t channel) {
  int64_t vectors = smaller(BLOCK, ceil_div(a.e - channel, W));
  Channels channels = {(int)vectors, (int)smaller(W, a.e - channel - (vectors - 1) * W)};
  for (int v = 0; v < vectors; ++v) pack_weight(a, channel + v * W, channels.lanes(v), m.weight + v * TAPS * W);
  const T* x = static_cast<const T*>(a.x) + b * a.x_batch + channel;
  T* to = static_cast<T*>(a.y) + channel;
  const bool sum = summed(a, m, b);
  if (sum) clear(m.sums, a.tokens * W * vectors);
  auto from = [&](int64_t q) { return q < 0 || q >= a.w ? -1 : x_offset(a, b, 0, q); };
  auto row = [&](int64_t q) { return from(q) < 0 ? NO_ROW<T> : x + from(q); };
  ConvMemory part = m;
  convolve_rows<T>(a.w, a.pad_left, m.weight, a.bias + channel, channels, row, [&](int64_t q, int v, vf out) {
    part.sums = m.sums + v * a.tokens * W;
    if (shown(a, b, 0, q)) deliver(a, part, to + v * W, b, 0, q, silu(out), channels.lanes(v), sum);
  });
  for (int v = 0; sum && v < vectors; ++v) {
    part.sums = m.sums + v * a.tokens * W;
    write_sums(a, part, shares(a, m, b), to + v * W, b, channels.lanes(v));
  }
}

void find_all_shares(const ConvArgs& a, const ConvMemory& m) {
  if (!a.source) return;
  in_parts(a.team, a.b, [&](int64_t, int64_t from, int64_t to) {
    for (int64_t b = from; b < to; ++b) find_shares(a, b, shares(a, m, b));
  });
}

template <class T> void conv_typed(const ConvArgs& a, char* workspace) {
  bool sequence = a.h == 1 && a.kh == 1 && a.kw == TAPS;
  int64_t width = sequence ? BLOCK * W : W, blocks = ceil_div(a.e, width);
  Arena arena{workspace, 0};
  find_all_shares(a, conv_memory(a, arena, 0, false));
  in_parts(a.team, a.b * blocks, [&](int64_t part, int64_t from, int64_t to) {
    Arena own{workspace, 0};
    ConvMemory m = conv_memory(a, own, part, false);
    for (int64_t task = from; task < to; ++task)
      (sequence ? conv_sequence<T> : conv_grid<T>)(a, m, task / blocks, task % blocks * width);
  });
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
  Arena arena{workspace, 0};
  ConvMemory shared = conv_memory(a, arena, 0, true);
  find_all_shares(a, shared);
  in_parts(a.team, a.b * vectors, [&](int64_t part, int64_t from, int64_t to) {
    Arena own{workspace, 0};
    ConvMemory m = conv_memory(a, own, part, true);
    for (int64_t task = from; task < to; ++task) conv_channels_backward<T>(a, g, m, task / vectors, task % vectors * W);
  });
  in_parts(a.team, a.e, [&](int64_t, int64_t from, int64_t to) {
    for (int64_t i = from * taps; i < to * taps; ++i)
      g.weight[i] = sum_strided(shared.sample_weight + i, a.b, a.e * taps);
    for (int64_t i = from; i < to; ++i) g.bias[i] = sum_strided(shared.sample_bias + i, a.b, a.e);
  });
}

}  // namespace

size_t conv_workspace(const ConvArgs& a) {
  Arena arena{nullptr, 0};
  conv_memory(a, arena, parts_of(a.team, a.b * ceil_div(a.e, W)) - 1, false);
  return arena.used;
}
void conv(const ConvArgs& a, char* workspace) {
  a.bf16 ? conv_typed<bf16>(a, workspace) : conv_typed<float>(a, workspace);
}
size_t conv_backward_workspace(const ConvArgs& a) {
  Arena arena{nullptr, 0};
  conv_memory(a, arena, parts_of(a.team, a.b * ceil_div(a.e, W)) - 1, true);
  return arena.used;
}
void conv_backward(const ConvArgs& a, const ConvGrads& g, char* workspace) {
  a.bf16 ? conv_backward_typed<bf16>(a, g, workspace) : conv_backward_typed<float>(a, g, workspace);
}

}  // namespace SKIMBA_ISA
}  // namespace skimba
