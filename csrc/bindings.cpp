// The only file that knows Python. Arguments are addresses, sizes and strides of tensors that the Python layer has
// checked: an nb::ndarray goes through DLPack, which costs microseconds per tensor, and a Vim forward makes a hundred
// such calls.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <array>
#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "launch.h"
#include "threads.h"

namespace nb = nanobind;
using namespace skimba;

namespace {

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

using Operand = std::tuple<uintptr_t, int64_t, int64_t>;  // address, batch stride, token stride
template <class T> T* pointer(uintptr_t address) { return reinterpret_cast<T*>(address); }
Rows rows(const Operand& x) { return {pointer<void>(std::get<0>(x)), std::get<1>(x), std::get<2>(x)}; }

using Sizes = std::tuple<int64_t, int64_t, int64_t, int64_t>;  // b l e n
using Order = std::tuple<uintptr_t, int64_t>;                  // address, batch stride (0: shared)
using Flags = std::tuple<bool, bool, bool, bool, int>;         // bf16, reverse, gap_per_channel, log_A, threads

using ScanRows = std::array<Operand, 9>;          // u delta B C z gap step hold missing
using ScanParameters = std::array<uintptr_t, 3>;  // A D delta_bias

ScanArgs scan_args(const Sizes& s, const Flags& f, const ScanRows& given, const ScanParameters& parameters,
                   const Order& order) {
  ScanArgs a = {};
  std::tie(a.b, a.l, a.e, a.n) = s;
  int threads;
  std::tie(a.bf16, a.reverse, a.gap_per_channel, a.log_A, threads) = f;
  a.team = openmp_team(threads);
  Rows* to[] = {&a.u, &a.delta, &a.B, &a.C, &a.z, &a.gap, &a.step, &a.hold, &a.missing};
  for (size_t i = 0; i < given.size(); ++i) *to[i] = rows(given[i]);
  a.A = pointer<float>(parameters[0]);
  a.D = pointer<float>(parameters[1]);
  a.delta_bias = pointer<float>(parameters[2]);
  a.order = pointer<int32_t>(std::get<0>(order));
  a.order_batch = std::get<1>(order);
  check_scan(a);
  return a;
}

void scan(const Sizes& s, const Flags& f, const ScanRows& given, const ScanParameters& parameters, const Order& order,
          uintptr_t y) {
  ScanArgs args = scan_args(s, f, given, parameters, order);
  args.y = pointer<void>(y);
  run_scan(args);
}

using ScanOutputs = std::array<uintptr_t, 11>;  // u delta A B C D z delta_bias gap step hold; 0 where there is none

void scan_backward(const Sizes& s, const Flags& f, const ScanRows& given, const ScanParameters& parameters,
                   const Order& order, const Operand& grad, const ScanOutputs& out) {
  ScanArgs args = scan_args(s, f, given, parameters, order);
  auto [gu, gdelta, gA, gB, gC, gD, gz, gbias, ggap, gstep, ghold] = out;
  ScanGrads grads = {rows(grad),           pointer<void>(gu),     pointer<void>(gdelta),
                     pointer<void>(gB),    pointer<void>(gC),     pointer<void>(gz),
                     pointer<float>(gA),   pointer<float>(gD),    pointer<float>(gbias),
                     pointer<float>(ggap), pointer<float>(gstep), pointer<float>(ghold)};
  check_given("the gradient of y", grads.grad.data, args.b);
  for (const void* p : {grads.u, grads.delta, (void*)grads.A, grads.B, grads.C}) check_given("a gradient", p, args.b);
  if (args.z.data) check_given("the gradient of z", grads.z, args.b);
  if (args.gap.data) check_given("the gradient of gap", grads.gap, args.b);
  if (args.step.data) check_given("the gradient of step", grads.step, args.b);
  Turn turn(args.team);
  const Kernels* k = in_use;
  k->scan_backward(args, grads, workspace(k->scan_backward_workspace(args)));
}

using Grid = std::tuple<int64_t, int64_t, int64_t, int64_t>;     // b h w e
using Taps = std::tuple<int64_t, int64_t, int64_t, int64_t>;     // kh kw pad_top pad_left
using ConvFlags = std::tuple<bool, bool, int>;                   // bf16, reverse, threads
using Image = std::tuple<uintptr_t, int64_t, int64_t, int64_t>;  // address, batch, row and column stride
using Shown = std::tuple<int64_t, uintptr_t>;                    // tokens, source; zeros without
using ConvParameters = std::tuple<uintptr_t, uintptr_t>;         // weight, bias

ConvArgs conv_args(const Grid& grid, const Taps& taps, const ConvFlags& flags, const Image& x, const Shown& shown,
                   const ConvParameters& parameters) {
  ConvArgs a = {};
  int threads;
  uintptr_t data, source, weight, bias;
  std::tie(a.b, a.h, a.w, a.e) = grid;
  std::tie(a.kh, a.kw, a.pad_top, a.pad_left) = taps;
  std::tie(a.bf16, a.reverse, threads) = flags;
  a.team = openmp_team(threads);
  std::tie(data, a.x_batch, a.x_row, a.x_col) = x;
  std::tie(a.tokens, source) = shown;
  std::tie(weight, bias) = parameters;
  a.x = pointer<void>(data);
  a.source = pointer<int32_t>(source);
  a.weight = pointer<float>(weight);
  a.bias = pointer<float>(bias);
  check_conv(a);
  return a;
}

void conv(const Grid& grid, const Taps& taps, const ConvFlags& flags, const Image& x, const Shown& shown,
          const ConvParameters& parameters, uintptr_t y) {
  ConvArgs args = conv_args(grid, taps, flags, x, shown, parameters);
  args.y = pointer<void>(y);
  run_conv(args);
}

using ConvOutputs = std::tuple<uintptr_t, uintptr_t, uintptr_t>;  // gradients of x, weight, bias

void conv_backward(const Grid& grid, const Taps& taps, const ConvFlags& flags, const Image& x, const Shown& shown,
                   const ConvParameters& parameters, const Image& grad, const ConvOutputs& out) {
  ConvArgs args = conv_args(grid, taps, flags, x, shown, parameters);
  auto [data, batch, row, col] = grad;
  auto [gx, gweight, gbias] = out;
  ConvGrads grads = {pointer<void>(data),  batch, row, col, pointer<void>(gx), pointer<float>(gweight),
                     pointer<float>(gbias)};
  for (const void* p : {grads.grad, (const void*)grads.x, (const void*)grads.weight, (const void*)grads.bias})
    check_given("a gradient", p, args.b);
  Turn turn(args.team);
  const Kernels* k = in_use;
  k->conv_backward(args, grads, workspace(k->conv_backward_workspace(args)));
}

using Sampled = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>;  // b q m heads c maps points

void sample(const Sampled& sizes, const std::tuple<bool, int>& flags, const std::vector<int64_t>& grids,
            uintptr_t value, uintptr_t locations, uintptr_t weights, uintptr_t y) {
  SampleArgs a = {};
  std::tie(a.b, a.q, a.m, a.heads, a.c, a.maps, a.points) = sizes;
  a.bf16 = std::get<0>(flags);
  a.team = openmp_team(std::get<1>(flags));
  a.grids = grids.data();
  a.value = pointer<void>(value);
  a.locations = pointer<float>(locations);
  a.weights = pointer<float>(weights);
  a.y = pointer<void>(y);
  for (const void* p : {a.value, (const void*)a.locations, (const void*)a.weights, (const void*)a.y})
    check_given("an operand", p, a.b);
  check_grids(grids, a.maps, a.m);
  Turn turn(a.team);
  const Kernels* k = in_use;
  k->sample(a, workspace(k->sample_workspace(a)));
}

using Normed = std::tuple<int64_t, int64_t, bool, int, float>;  // rows, d, bf16, threads, eps

NormArgs norm_args(const Normed& sizes, uintptr_t x, uintptr_t residual, uintptr_t weight, uintptr_t y,
                   uintptr_t total) {
  auto [rows, d, bf16, threads, eps] = sizes;
  return {rows,
          d,
          bf16,
          openmp_team(threads),
          eps,
          pointer<void>(x),
          pointer<float>(residual),
          pointer<float>(weight),
          pointer<void>(y),
          pointer<float>(total)};
}

void norm(const Normed& sizes, uintptr_t x, uintptr_t residual, uintptr_t weight, uintptr_t y, uintptr_t total) {
  run_norm(norm_args(sizes, x, residual, weight, y, total));
}

void norm_backward(const Normed& sizes, uintptr_t total, uintptr_t weight, uintptr_t grad_y, uintptr_t grad_total,
                   uintptr_t gx, uintptr_t gweight) {
  NormArgs args = norm_args(sizes, 0, 0, weight, 0, total);
  for (uintptr_t p : {total, weight, grad_y, gx, gweight}) check_given("an operand", pointer<void>(p), args.rows);
  Turn turn(args.team);
  const Kernels* k = in_use;
  k->norm_backward(args,
                   {pointer<void>(grad_y), pointer<float>(grad_total), pointer<float>(gx), pointer<float>(gweight)},
                   workspace(k->norm_backward_workspace(args)));
}

using Quantized = std::tuple<int64_t, int64_t, int64_t, bool, int>;  // b l d, bf16, threads

void quantize_rows(const Quantized& sizes, const Operand& x, uintptr_t values, uintptr_t scales) {
  auto [b, l, d, bf16, threads] = sizes;
  Int8Args args = {b, l, d, bf16, openmp_team(threads), rows(x), pointer<int8_t>(values), pointer<float>(scales)};
  for (const void* p : {args.x.data, (const void*)args.values, (const void*)args.scales})
    check_given("an operand", p, b);
  Turn turn(args.team);
  in_use.load()->quantize_rows(args);
}

using Products = std::tuple<int64_t, int64_t, bool, int>;  // rows, e, bf16, threads

void scale_products(const Products& sizes, uintptr_t products, uintptr_t scales, uintptr_t columns, uintptr_t bias,
                    uintptr_t y) {
  auto [count, e, bf16, threads] = sizes;
  ScaleArgs args = {count,
                    e,
                    bf16,
                    openmp_team(threads),
                    pointer<int32_t>(products),
                    pointer<float>(scales),
                    pointer<float>(columns),
                    pointer<float>(bias),
                    pointer<void>(y)};
  for (const void* p : {(const void*)args.products, (const void*)args.rows, (const void*)args.columns, (const void*)y})
    check_given("an operand", p, count);
  Turn turn(args.team);
  in_use.load()->scale_products(args);
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
  check_given("x", pointer<void>(x), count);
  check_given("y", pointer<void>(y), count);
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
  m.def("sample", &sample, Release());
  m.def("norm", &norm, Release());
  m.def("norm_backward", &norm_backward, Release());
  m.def("quantize_rows", &quantize_rows, Release());
  m.def("scale_products", &scale_products, Release());
  m.def("keep_freed_memory", &keep_freed_memory);
  m.def("map", &map, Release());
}
