// skimba's operators for onnxruntime: `session_options.register_custom_ops_library(path)`. An operator of a file is
// then run by these kernels, and not by its function in the file. Each set of inputs is an operator of its own, as in
// skimba/export/functions.py; the names of those sets are made here as they are made there.
//
// Kernels run on the session's own threads. Others beside them, OpenMP's say, would wait in a loop for the next kernel
// and so take the cores from onnxruntime's operators.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "launch.h"
#include "onnxruntime.h"

#if defined(_WIN32)
#define SKIMBA_EXPORT __declspec(dllexport)
#else
#define SKIMBA_EXPORT __attribute__((visibility("default")))
#endif

namespace {

using namespace skimba;

struct Failure {  // what onnxruntime said
  Status status;
};

struct Tensor {
  void* data;
  std::vector<int64_t> sizes;
  int64_t size(size_t axis) const { return sizes[axis]; }
};

// The table that lends the session's threads; null before version 17, where nothing does and a kernel has one thread.
const OrtApi* lender = nullptr;

// One run of one node.
class Run {
 public:
  Run(const OrtApi* given, void* where) : api(given), context(where) {}
  // A session does not say how many threads it has. Whichever is done takes the next part: twice as many parts as the
  // machine has threads keep any number of them about equally busy.
  Team team() {
    static const int cores = (int)std::thread::hardware_concurrency();
    return {lender ? 2 * cores : 1, run_parts, this};
  }
  Status status() const { return failed; }
  Tensor input(size_t i) const {
    const void* value = nullptr;
    must(call(api, INPUT, (const void*)context, i, &value));
    Tensor x = {data(const_cast<void*>(value)), {}};
    void* shape = nullptr;
    must(call(api, TENSOR_SHAPE, value, &shape));
    size_t count = 0;
    Status status = call(api, AXES_COUNT, (const void*)shape, &count);
    x.sizes.resize(count);
    if (!status) status = call(api, AXES, (const void*)shape, x.sizes.data(), count);
    reinterpret_cast<void (*)(void*)>(api->functions[RELEASE_SHAPE])(shape);
    must(status);
    return x;
  }
  void* output(size_t i, const std::vector<int64_t>& sizes) const {
    void* value = nullptr;
    must(call(api, OUTPUT, context, i, sizes.data(), sizes.size(), &value));
    return data(value);
  }

 private:
  static void run_parts(void* owner, void (*part)(void*, size_t), size_t count, void* work) {
    Run& run = *static_cast<Run*>(owner);
    constexpr size_t EACH = 0;  // each part by itself, not in batches
    if (!run.failed) run.failed = call(lender, PARALLEL_FOR, (const void*)run.context, part, count, EACH, work);
  }
  static void must(Status status) {
    if (status) throw Failure{status};
  }
  void* data(void* value) const {
    void* address = nullptr;
    must(call(api, TENSOR_DATA, value, &address));
    return address;
  }
  const OrtApi* api;
  void* context;
  Status failed = nullptr;  // of threads that could not be had
};

Rows rows(const Tensor& x) {  // (b l e) or (b l)
  int64_t width = x.sizes.size() == 3 ? x.size(2) : 1;
  return {x.data, x.size(1) * width, width};
}
const float* floats(const Tensor& x) { return static_cast<const float*>(x.data); }

enum Option { Z, GAP, STEP, HOLD, MISSING, ORDER, OPTIONS };
const char* const OPTION_NAMES[OPTIONS] = {"z", "gap", "step", "hold", "missing", "order"};

void scan(Run& run, unsigned options, bool reverse, float) {
  std::vector<Tensor> given;  // u delta A B C D delta_bias
  for (size_t i = 0; i < 7; ++i) given.push_back(run.input(i));
  ScanArgs a = {};
  a.b = given[0].size(0), a.l = given[0].size(1), a.e = given[0].size(2), a.n = given[2].size(1);
  a.reverse = reverse, a.team = run.team();
  a.u = rows(given[0]), a.delta = rows(given[1]), a.B = rows(given[3]), a.C = rows(given[4]);
  a.A = floats(given[2]), a.D = floats(given[5]), a.delta_bias = floats(given[6]);
  Rows* to[] = {&a.z, &a.gap, &a.step, &a.hold, &a.missing};
  size_t next = 7;
  for (int option = 0; option < OPTIONS; ++option) {
    if (!(options >> option & 1)) continue;
    Tensor x = run.input(next++);
    if (option == ORDER) {
      a.order = static_cast<const int32_t*>(x.data);
      a.order_batch = x.size(0) == 1 ? 0 : a.l;
      continue;
    }
    *to[option] = rows(x);
    if (option == GAP) a.gap_per_channel = x.size(2) != 1;
  }
  check_scan(a);
  a.y = run.output(0, given[0].sizes);
  run_scan(a);
}

ConvArgs convolution(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  ConvArgs a = {};
  a.b = x.size(0), a.e = x.sizes.back();
  a.x = x.data, a.x_col = a.e;
  a.weight = floats(weight), a.bias = floats(bias);
  return a;
}

void finish(Run& run, ConvArgs& a, const Tensor& x, bool source) {
  if (source) {
    Tensor shown = run.input(3);
    a.tokens = x.size(1), a.source = static_cast<const int32_t*>(shown.data);
    a.h = shown.sizes.size() == 3 ? shown.size(1) : 1, a.w = shown.sizes.back();
    a.x_batch = a.tokens * a.e, a.x_row = 0;
  } else {
    a.h = x.sizes.size() == 4 ? x.size(1) : 1, a.w = x.size(x.sizes.size() - 2);
    a.x_batch = a.h * a.w * a.e, a.x_row = a.w * a.e;
  }
  check_conv(a);
  a.team = run.team();
  a.y = run.output(0, x.sizes);
  run_conv(a);
}

void conv1d(Run& run, unsigned source, bool reverse, float) {
  Tensor x = run.input(0), weight = run.input(1);
  ConvArgs a = convolution(x, weight, run.input(2));
  a.kh = 1, a.kw = weight.size(1), a.pad_left = reverse ? 0 : a.kw - 1, a.reverse = reverse;
  finish(run, a, x, source);
}

void conv2d(Run& run, unsigned source, bool, float) {
  Tensor x = run.input(0), weight = run.input(1);
  ConvArgs a = convolution(x, weight, run.input(2));
  a.kh = weight.size(1), a.kw = weight.size(2), a.pad_top = a.kh / 2, a.pad_left = a.kw / 2;
  finish(run, a, x, source);
}

void norm(Run& run, unsigned residual, bool, float eps) {
  Tensor x = run.input(0), weight = run.input(1);
  NormArgs a = {};
  a.d = x.sizes.back(), a.rows = 1, a.eps = eps, a.team = run.team();
  for (size_t i = 0; i + 1 < x.sizes.size(); ++i) a.rows *= x.size(i);
  a.x = x.data, a.weight = floats(weight);
  if (residual) a.residual = floats(run.input(2));
  a.y = run.output(0, x.sizes);
  a.total = static_cast<float*>(run.output(1, x.sizes));
  run_norm(a);
}

struct Operator : Description {
  std::string text;
  std::vector<ElementType> inputs;
  size_t outputs = 1;
  void (*body)(Run&, unsigned options, bool reverse, float eps);
  unsigned options = 0;
  bool reverse = false, has_eps = false;

  Operator(const char* kind, size_t required, void (*run)(Run&, unsigned, bool, float))
      : text(kind), inputs(required, FLOAT32), body(run) {
    name = [](const Description* d) { return static_cast<const Operator*>(d)->text.c_str(); };
    provider = [](const Description*) -> const char* { return nullptr; };  // the CPU's
    input_type = [](const Description* d, size_t i) { return static_cast<const Operator*>(d)->inputs[i]; };
    input_count = [](const Description* d) { return static_cast<const Operator*>(d)->inputs.size(); };
    output_type = [](const Description*, size_t) { return FLOAT32; };
    output_count = [](const Description* d) { return static_cast<const Operator*>(d)->outputs; };
    input_kind = output_kind = [](const Description*, size_t) { return 0; };  // required
    input_memory = [](const Description*, size_t) { return 0; };              // the default
    for (auto& arity : variadic) arity = [](const Description*) { return 0; };
    create_with_status = create_kernel;
    compute_with_status = compute_kernel;
    destroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  }
  void add_input(const char* option, ElementType type) {
    text += std::string("_") + option;
    inputs.push_back(type);
  }
  void add_reverse() {
    text += "_reverse";
    reverse = true;
  }

 private:
  struct Kernel {
    const OrtApi* api;
    const Operator* op;
    float eps;
  };
  static Status create_kernel(const Description* d, const OrtApi* api, const void* info, void** made) {
    auto op = static_cast<const Operator*>(d);
    float eps = 0;
    if (op->has_eps)
      if (Status status = call(api, FLOAT_ATTRIBUTE, info, "eps", &eps)) return status;
    *made = new Kernel{api, op, eps};
    return nullptr;
  }
  static Status compute_kernel(void* kernel, void* context) {
    auto [api, op, eps] = *static_cast<Kernel*>(kernel);
    try {
      Run run(api, context);
      op->body(run, op->options, op->reverse, eps);
      return run.status();
    } catch (const Failure& failure) {
      return failure.status;
    } catch (const std::exception& error) {
      int failed = 1;  // ORT_FAIL
      return call(api, CREATE_STATUS, failed, (op->text + ": " + error.what()).c_str());
    }
  }
};

std::deque<Operator> all_operators() {
  std::deque<Operator> found;  // they keep their addresses
  for (bool reverse : {false, true}) {
    for (unsigned options = 0; options < 1u << OPTIONS; ++options) {
      Operator& op = found.emplace_back("SelectiveScan", 7, scan);
      op.options = options;
      for (int i = 0; i < OPTIONS; ++i)
        if (options >> i & 1) op.add_input(OPTION_NAMES[i], i == ORDER ? INT32 : FLOAT32);
      if (reverse) op.add_reverse();
    }
    for (unsigned source : {0, 1}) {
      Operator& op = found.emplace_back("CausalConv1d", 3, conv1d);
      op.options = source;
      if (source) op.add_input("source", INT32);
      if (reverse) op.add_reverse();
    }
  }
  for (unsigned option : {0, 1}) {
    Operator& grid = found.emplace_back("DepthwiseConv2d", 3, conv2d);
    if (option) grid.add_input("source", INT32);
    Operator& normed = found.emplace_back("AddRmsNorm", 2, norm);
    if (option) normed.add_input("residual", FLOAT32);
    normed.outputs = 2, normed.has_eps = true;
    grid.options = normed.options = option;
  }
  return found;
}

}  // namespace

extern "C" SKIMBA_EXPORT Status RegisterCustomOps(void* session_options, const OrtApiBase* base) {
  const OrtApi* api = base->get_api(ORT_VERSION);
  if (!api) return call(base->get_api(1), CREATE_STATUS, 1, "skimba's operators need onnxruntime 1.16 or later");
  static std::deque<Operator> operators = all_operators();
  static void* domain = nullptr;  // for all sessions of the process
  if (!domain) {
    lender = base->get_api(ORT_VERSION_OF_THREADS);
    if (Status status = call(api, CREATE_DOMAIN, "skimba", &domain)) return status;
    for (Operator& op : operators)
      if (Status status = call(api, ADD_OPERATOR, domain, static_cast<const Description*>(&op))) return status;
  }
  return call(api, ADD_DOMAIN, session_options, domain);
}
