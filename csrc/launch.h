// How a kernel is called, whoever calls: by the best instruction set of this CPU, after its checks, with its scratch.
#pragma once
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <new>

#include "checks.h"

namespace skimba {

inline std::vector<const Kernels*> runnable() {  // best last
  std::vector<const Kernels*> found = {&baseline::kernels};
#if defined(SKIMBA_X86)
  __builtin_cpu_init();
  bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (fma) found.push_back(&avx2::kernels);
  if (fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    found.push_back(&avx512::kernels);
#endif
  return found;
}

inline std::atomic<const Kernels*> in_use{runnable().back()};

// Threads that call kernels at once share the cores: each takes its share.
inline std::atomic<int> running{0};
struct Turn {
  explicit Turn(Team& team) {
    int share = team.parts / ++running;
    team.parts = share > 1 ? share : 1;
  }
  ~Turn() { --running; }
  Turn(const Turn&) = delete;
};

struct Free {
  void operator()(char* p) const { ::operator delete(p, std::align_val_t(64)); }
};

// Scratch of the calling thread, kept from call to call: mapping it anew would cost more than many kernels.
inline char* workspace(size_t size) {
  thread_local std::unique_ptr<char, Free> memory;
  thread_local size_t capacity = 0;
  if (size > capacity) {
    memory.reset();
    capacity = 0;
    memory.reset(static_cast<char*>(::operator new(size, std::align_val_t(64))));
    capacity = size;
  }
  return memory.get();
}

inline void check_scan(const ScanArgs& a) {
  check_given("u", a.u.data, a.b);
  check_given("delta", a.delta.data, a.b);
  check_given("A", a.A, a.b);
  check_given("B", a.B.data, a.b);
  check_given("C", a.C.data, a.b);
  if (a.order) check_order(a.order, a.order_batch ? a.b : 1, a.l);
  const float largest = std::numeric_limits<float>::max();
  check_times("gap", a.gap, a.b, a.l, a.gap_per_channel ? a.e : 1, INFINITY);
  check_times("step", a.step, a.b, a.l, 1, largest);
  check_times("missing", a.missing, a.b, a.l, 1, largest);
  check_times("hold", a.hold, a.b, a.l, 1, largest);
}

inline void run_scan(ScanArgs a) {
  check_given("y", a.y, a.b);
  Turn turn(a.team);
  const Kernels* k = in_use;
  k->scan(a, workspace(k->scan_workspace(a)));
}

inline void check_conv(const ConvArgs& a) {
  check_given("x", a.x, a.b);
  check_given("weight", a.weight, a.b);
  check_given("bias", a.bias, a.b);
  for (int64_t i = 0; a.source && i < a.b * a.h * a.w; ++i)
    if (a.source[i] < -1 || a.source[i] >= a.tokens)
      throw std::out_of_range("source must be -1 ... " + std::to_string(a.tokens - 1) + ", got " +
                              std::to_string(a.source[i]));
}

inline void run_conv(ConvArgs a) {
  check_given("y", a.y, a.b);
  Turn turn(a.team);
  const Kernels* k = in_use;
  k->conv(a, workspace(k->conv_workspace(a)));
}

inline void run_norm(NormArgs a) {
  for (const void* p : {a.x, (const void*)a.weight, (const void*)a.y, (const void*)a.total})
    check_given("an operand", p, a.rows);
  Turn turn(a.team);
  in_use.load()->norm(a);
}

}  // namespace skimba
