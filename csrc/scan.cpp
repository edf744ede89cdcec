// The selective scan.
#include "scan.h"
#include "table.h"

namespace skimba {
namespace SKIMBA_ISA {
namespace {

// Not inlined: with it the loop over chunks needs more registers than there are.
template <class T>
__attribute__((noinline)) void write_output(const Scan& k, int64_t start, int64_t count, const float* y) {
  const ScanArgs& a = k.a;
  const bool far = a.z.data && is_far<T>(a);
  vf skip = a.D ? load(a.D + k.channel, k.count) : vf{};
  for (int64_t s = 0; s < count; ++s) {
    int64_t t = k.place(k.token(start + s));
    if (far) prefetch<T>(k, a.z, start + s + AHEAD, true);
    vf out = load(y + s * W);
    if (a.D) out += skip * load(at<T>(a.u, k.b, t) + k.channel, k.count);
    if (a.z.data) out *= silu(load(at<T>(a.z, k.b, t) + k.channel, k.count));
    store(static_cast<T*>(a.y) + (k.b * a.l + t) * a.e + k.channel, out, k.count);
  }
}

constexpr int FORWARD_CHUNK = 64;  // steps whose times stay in the first-level cache

// of a forward pass
struct ScanMemory {
  float *B, *C;      // [b][block][l][N]
  float *A, *h, *y;  // of each part
  Times times;
};

ScanMemory scan_memory(const ScanArgs& a, Arena& arena, int64_t part) {
  int64_t states = ceil_div(a.n, N) * N;
  ScanMemory m;
  m.B = arena.take<float>(a.b * states * a.l);
  m.C = arena.take<float>(a.b * states * a.l);
  for (int64_t i = 0; i <= part; ++i) {
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
  Arena arena{workspace, 0};
  ScanMemory shared = scan_memory(a, arena, 0);
  pack_all_states<T>(a, shared.B, shared.C);
  in_parts(a.team, a.b * vectors, [&](int64_t part, int64_t from, int64_t to) {
    Arena own{workspace, 0};
    ScanMemory m = scan_memory(a, own, part);
    for (int64_t i = from; i < to; ++i) {
      int64_t b = i / vectors, channel = i % vectors * W;
      scan_channels<T>(
          {a, b, channel, (int)smaller(W, a.e - channel), blocks, m.B + b * per_sample, m.C + b * per_sample}, m);
    }
  });
}

}  // namespace

size_t scan_workspace(const ScanArgs& a) {
  Arena arena{nullptr, 0};
  scan_memory(a, arena, parts_of(a.team, a.b * ceil_div(a.e, W)) - 1);
  return arena.used;
}
void scan(const ScanArgs& a, char* workspace) {
  a.bf16 ? scan_typed<bf16>(a, workspace) : scan_typed<float>(a, workspace);
}

}  // namespace SKIMBA_ISA
}  // namespace skimba
