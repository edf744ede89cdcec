// The only file that knows Python. Arguments are addresses, sizes and strides of tensors that the Python layer has checked:
// an nb::ndarray goes through DLPack, which costs microseconds per tensor, and a Vim forward makes a hundred such calls.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <atomic>
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "kernels.h"

namespace nb = nanobind;
using namespace skimba;

namespace {

std::vector<const Kernels*> runnable() {  // best last
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

std::atomic<const Kernels*> in_use{runnable().back()};

std::vector<std::string> variants() {
  std::vector<std::string> names;
  for (const Kernels* k : runnable()) names.emplace_back(k->name);
  return names;
}

void use_variant(const std::string& name) {
  for (const Kernels* k : runnable())
    if (name == k->name) return in_use.store(k);
  throw nb::value_error(("this CPU cannot run the variant '" + name + "'").c_str());
}

// Python threads that run kernels at once share the cores: each takes its part. Results do not depend on the number of threads.
std::atomic<int> running{0};
struct Turn {
  explicit Turn(int& threads) {
    int part = threads / ++running;
    threads = part > 1 ? part : 1;
  }
  ~Turn() { --running; }
  Turn(const Turn&) = delete;
};

struct Free { void operator()(char* p) const { ::operator delete(p, std::align_val_t(64)); } };

// Scratch of the calling thread, kept from call to call: mapping it anew would cost more than many kernels.
char* workspace(size_t size) {
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

using Operand = std::tuple<uintptr_t, int64_t, int64_t>;  // address, batch stride, token stride
template <class T> T* pointer(uintptr_t address) { return reinterpret_cast<T*>(address); }
Rows rows(const Operand& x) { return {pointer<void>(std::get<0>(x)), std::get<1>(x), std::get<2>(x)}; }

using Sizes = std::tuple<int64_t, int64_t, int64_t, int64_t>;  // b l e n
using Order = std::tuple<uintptr_t, int64_t>;                  // address, batch stride (0: shared)
using Flags = std::tuple<bool, bool, bool, bool, int>;         // bf16, reverse, gap_per_channel, log_A, threads

// No negative value and no NaN in the `width` floats of every row.
void check_nonnegative(const std::string& name, const Rows& x, int64_t b, int64_t l, int64_t width) {
  if (!x.data) return;
  for (int64_t i = 0; i < b; ++i)
    for (int64_t j = 0; j < l; ++j) {
      const float* row = static_cast<const float*>(x.data) + i * x.batch + j * x.token;
      bool good = true;
      for (int64_t q = 0; q < width; ++q) good &= row[q] >= 0.0f;
      if (!good)
        throw nb::value_error((name + " must be >= 0 and not NaN, unlike in image " + std::to_string(i) + ", step " +
                               std::to_string(j)).c_str());
    }
}

// Every row must hold each of 0 ... l-1 once: else memory would be left unwritten, or written beyond its end.
void check_order(const int32_t* order, int64_t rows, int64_t l) {
  std::vector<bool> seen(l);
  for (int64_t i = 0; i < rows * l; ++i) {
    if (i % l == 0) seen.assign(l, false);
    if (order[i] < 0 || order[i] >= l || seen[order[i]])
      throw nb::value_error("order must hold each token once");
    seen[order[i]] = true;
  }
}

ScanArgs scan_args(const Sizes& s, const Flags& f, const Operand& u, const Operand& delta, const Operand& B,
                   const Operand& C, const Operand& z, const Operand& gap, const Operand& step, const Operand& missing,
                   uintptr_t A, uintptr_t D, uintptr_t delta_bias, const Order& order) {
  auto [b, l, e, n] = s;
  auto [bf16, reverse, gap_per_channel, log_A, threads] = f;
  auto [address, order_batch] = order;
  const int32_t* visited = pointer<int32_t>(address);
  if (visited) check_order(visited, order_batch ? b : 1, l);
  check_nonnegative("gap", rows(gap), b, l, gap_per_channel ? e : 1);
  check_nonnegative("step", rows(step), b, l, 1);
  check_nonnegative("missing", rows(missing), b, l, 1);
  return {b,       l,       e,         n,          bf16,        reverse,           gap_per_channel, log_A,
          threads, rows(u), rows(delta), rows(B),  rows(C),     rows(z),           rows(gap),
          rows(step), rows(missing), pointer<float>(A), pointer<float>(D), pointer<float>(delta_bias), visited,
          order_batch, nullptr};
}

void scan(const Sizes& s, const Flags& f, const Operand& u, const Operand& delta, const Operand& B, const Operand& C,
          const Operand& z, const Operand& gap, const Operand& step, const Operand& missing, uintptr_t A, uintptr_t D,
          uintptr_t delta_bias, const Order& order, uintptr_t y) {
  ScanArgs args = scan_args(s, f, u, delta, B, C, z, gap, step, missing, A, D, delta_bias, order);
  args.y = pointer<void>(y);
  Turn turn(args.threads);
  const Kernels* k = in_use;
  k->scan(args, workspace(k->scan_workspace(args)));
}

using ScanOutputs = std::tuple<uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t,
                               uintptr_t, uintptr_t>;  // in the order of the operator's arguments

void scan_backward(const Sizes& s, const Flags& f, const Operand& u, const Operand& delta, const Operand& B,
                   const Operand& C, const Operand& z, const Operand& gap, const Operand& step, const Operand& missing,
                   uintptr_t A, uintptr_t D, uintptr_t delta_bias, const Order& order, const Operand& grad, const ScanOutputs& out) {
  ScanArgs args = scan_args(s, f, u, delta, B, C, z, gap, step, missing, A, D, delta_bias, order);
  auto [gu, gdelta, gA, gB, gC, gD, gz, gbias, ggap, gstep] = out;
  ScanGrads grads = {rows(grad),        pointer<void>(gu),  pointer<void>(gdelta), pointer<void>(gB),
                     pointer<void>(gC), pointer<void>(gz),  pointer<float>(gA),    pointer<float>(gD),
                     pointer<float>(gbias), pointer<float>(ggap), pointer<float>(gstep)};
  Turn turn(args.threads);
  const Kernels* k = in_use;
  k->scan_backward(args, grads, workspace(k->scan_backward_workspace(args)));
}

using Grid = std::tuple<int64_t, int64_t, int64_t, int64_t>;                // b h w e
using Taps = std::tuple<int64_t, int64_t, int64_t, int64_t>;                // kh kw pad_top pad_left
using Image = std::tuple<uintptr_t, int64_t, int64_t, int64_t>;             // address, batch, row and column stride
using Shown = std::tuple<int64_t, uintptr_t>;                               // tokens, source; zeros without

ConvArgs conv_args(const Grid& grid, const Taps& taps, bool bf16, bool reverse, int threads, const Image& x, const Shown& shown,
                   uintptr_t weight, uintptr_t bias) {
  auto [tokens, address] = shown;
  const int32_t* source = pointer<int32_t>(address);
  for (int64_t i = 0; source && i < std::get<0>(grid) * std::get<1>(grid) * std::get<2>(grid); ++i)
    if (source[i] < -1 || source[i] >= tokens)
      throw std::out_of_range("source must be -1 ... " + std::to_string(tokens - 1) + ", got " + std::to_string(source[i]));
  auto [b, h, w, e] = grid;
  auto [kh, kw, top, left] = taps;
  auto [data, batch, row, col] = x;
  return {b, h, w, e, kh, kw, top, left, bf16, reverse, threads, pointer<void>(data), batch, row, col,
          pointer<float>(weight), pointer<float>(bias), tokens, source, nullptr};
}

void conv(const Grid& grid, const Taps& taps, bool bf16, bool reverse, int threads, const Image& x, const Shown& shown,
          uintptr_t weight, uintptr_t bias, uintptr_t y) {
  ConvArgs args = conv_args(grid, taps, bf16, reverse, threads, x, shown, weight, bias);
  args.y = pointer<void>(y);
  Turn turn(args.threads);
  const Kernels* k = in_use;
  k->conv(args, workspace(k->conv_workspace(args)));
}

void conv_backward(const Grid& grid, const Taps& taps, bool bf16, bool reverse, int threads, const Image& x,
                   const Shown& shown, uintptr_t weight, uintptr_t bias, const Image& grad, uintptr_t gx, uintptr_t gweight,
                   uintptr_t gbias) {
  ConvArgs args = conv_args(grid, taps, bf16, reverse, threads, x, shown, weight, bias);
  auto [data, batch, row, col] = grad;
  ConvGrads grads = {pointer<void>(data), batch, row, col, pointer<void>(gx), pointer<float>(gweight),
                     pointer<float>(gbias)};
  Turn turn(args.threads);
  const Kernels* k = in_use;
  k->conv_backward(args, grads, workspace(k->conv_backward_workspace(args)));
}

using Normed = std::tuple<int64_t, int64_t, bool, int, float>;  // rows, d, bf16, threads, eps

NormArgs norm_args(const Normed& sizes, uintptr_t x, uintptr_t residual, uintptr_t weight, uintptr_t y, uintptr_t total) {
  auto [rows, d, bf16, threads, eps] = sizes;
  return {rows, d, bf16, threads, eps, pointer<void>(x), pointer<float>(residual), pointer<float>(weight), pointer<void>(y),
          pointer<float>(total)};
}

void norm(const Normed& sizes, uintptr_t x, uintptr_t residual, uintptr_t weight, uintptr_t y, uintptr_t total) {
  NormArgs args = norm_args(sizes, x, residual, weight, y, total);
  Turn turn(args.threads);
  in_use.load()->norm(args);
}

void norm_backward(const Normed& sizes, uintptr_t total, uintptr_t weight, uintptr_t grad_y, uintptr_t grad_total,
                   uintptr_t gx, uintptr_t gweight) {
  NormArgs args = norm_args(sizes, 0, 0, weight, 0, total);
  Turn turn(args.threads);
  const Kernels* k = in_use;
  k->norm_backward(args, {pointer<void>(grad_y), pointer<float>(grad_total), pointer<float>(gx), pointer<float>(gweight)},
                   workspace(k->norm_backward_workspace(args)));
}

// Without this, glibc returns large freed blocks to the system and maps them anew, page by page, at every layer.
bool keep_freed_memory() {
#if defined(__GLIBC__)
  return mallopt(M_MMAP_THRESHOLD, 32 << 20) && mallopt(M_TRIM_THRESHOLD, INT32_MAX) && mallopt(M_TOP_PAD, 64 << 20);
#else
  return false;
#endif
}

void map(int function, uintptr_t x, uintptr_t y, int64_t count) {
  in_use.load()->map(function, pointer<float>(x), pointer<float>(y), count);
}

}  // namespace

NB_MODULE(_native, m) {
  using Release = nb::call_guard<nb::gil_scoped_release>;
  m.def("variants", &variants);
  m.def("in_use", [] { return std::string(in_use.load()->name); });
  m.def("select", &use_variant);
#if defined(_OPENMP)
  m.attr("openmp") = true;
#else
  m.attr("openmp") = false;
#endif
  m.def("scan", &scan, Release());
  m.def("scan_backward", &scan_backward, Release());
  m.def("conv", &conv, Release());
  m.def("conv_backward", &conv_backward, Release());
  m.def("norm", &norm, Release());
  m.def("norm_backward", &norm_backward, Release());
  m.def("keep_freed_memory", &keep_freed_memory);
  m.def("map", &map, Release());
}
