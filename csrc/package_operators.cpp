// The operators as a package of AOTInductor calls them: C functions under the names that its compiler gives to calls of
// skimba's operators. They are linked into the package, which then needs torch alone. What torch promises to keep of
// its C interface (torch/csrc/inductor/aoti_torch/c/shim.h) is declared here, so that this file is built without torch.
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <vector>

#include "launch.h"
#include "threads.h"

extern "C" {
struct AtenTensorOpaque;
using AtenTensorHandle = AtenTensorOpaque*;
using AOTITorchError = int32_t;  // 0: it went well
AOTITorchError aoti_torch_get_data_ptr(AtenTensorHandle, void** address);
AOTITorchError aoti_torch_get_dim(AtenTensorHandle, int64_t* axes);
AOTITorchError aoti_torch_get_sizes(AtenTensorHandle, int64_t** sizes);
AOTITorchError aoti_torch_get_strides(AtenTensorHandle, int64_t** strides);
AOTITorchError aoti_torch_get_dtype(AtenTensorHandle, int32_t* dtype);
AOTITorchError aoti_torch_delete_tensor_object(AtenTensorHandle);
AOTITorchError aoti_torch_copy_(AtenTensorHandle to, AtenTensorHandle from, int32_t non_blocking);
AOTITorchError aoti_torch_empty_strided(int64_t axes, const int64_t* sizes, const int64_t* strides, int32_t dtype,
                                        int32_t device_type, int32_t device_index, AtenTensorHandle* out);
int32_t aoti_torch_dtype_float32();
int32_t aoti_torch_dtype_bfloat16();
int32_t aoti_torch_dtype_int32();
int32_t aoti_torch_device_type_cpu();
}

namespace {

using namespace skimba;

void must(AOTITorchError error) {
  if (error) throw std::runtime_error("torch could not do what the operator needs");
}

struct Tensor {
  AtenTensorHandle handle;
  int64_t axes, *sizes, *strides;
  int32_t dtype;

  explicit Tensor(AtenTensorHandle given) : handle(given) {
    must(aoti_torch_get_dim(handle, &axes));
    must(aoti_torch_get_sizes(handle, &sizes));
    must(aoti_torch_get_strides(handle, &strides));
    must(aoti_torch_get_dtype(handle, &dtype));
  }
  void* data() const {
    void* address;
    must(aoti_torch_get_data_ptr(handle, &address));
    return address;
  }
  bool contiguous() const {
    int64_t expected = 1;
    for (int64_t i = axes - 1; i >= 0; --i) {
      if (sizes[i] != 1 && strides[i] != expected) return false;
      expected *= sizes[i];
    }
    return true;
  }
};

AtenTensorHandle empty_like(const Tensor& x, int32_t dtype) {
  std::vector<int64_t> strides(x.axes, 1);
  for (int64_t i = x.axes - 2; i >= 0; --i) strides[i] = strides[i + 1] * x.sizes[i + 1];
  AtenTensorHandle made;
  must(aoti_torch_empty_strided(x.axes, x.sizes, strides.data(), dtype, aoti_torch_device_type_cpu(), 0, &made));
  return made;
}

// The tensors of a call as the kernels take them; copies, cast or contiguous, live as long as the call.
class Call {
 public:
  ~Call() {
    for (AtenTensorHandle copy : copies) aoti_torch_delete_tensor_object(copy);
  }
  Tensor whole(AtenTensorHandle given, int32_t dtype) {
    Tensor x(given);
    return x.dtype == dtype && x.contiguous() ? x : copied(x, dtype);
  }
  Rows rows(AtenTensorHandle given, int32_t dtype) {  // (b l e) with unit stride on e, or (b l)
    Tensor x(given);
    if (x.dtype != dtype || (x.axes == 3 && x.strides[2] != 1)) x = copied(x, dtype);
    return {x.data(), x.strides[0], x.strides[1]};
  }
  Rows rows(AtenTensorHandle* given, int32_t dtype) { return given ? rows(*given, dtype) : Rows{}; }
  const float* floats(AtenTensorHandle given) {
    return static_cast<const float*>(whole(given, aoti_torch_dtype_float32()).data());
  }
  const float* floats(AtenTensorHandle* given) { return given ? floats(*given) : nullptr; }
  const int32_t* integers(AtenTensorHandle given) {
    return static_cast<const int32_t*>(whole(given, aoti_torch_dtype_int32()).data());
  }

 private:
  Tensor copied(const Tensor& x, int32_t dtype) {
    copies.push_back(empty_like(x, dtype));
    must(aoti_torch_copy_(copies.back(), x.handle, 0));
    return Tensor(copies.back());
  }
  std::vector<AtenTensorHandle> copies;
};

// The caller only learns that it failed; why is said here, as torch does in its own functions of this kind.
template <class Body> AOTITorchError answered(Body body) {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "skimba: %s\n", error.what());
    return 1;
  }
}

bool is_bf16(const Tensor& x) {
  if (x.dtype == aoti_torch_dtype_bfloat16()) return true;
  if (x.dtype == aoti_torch_dtype_float32()) return false;
  throw std::invalid_argument("the operators of a package take float32 and bfloat16");
}

void shape_of_conv(ConvArgs& a, Call& call, const Tensor& x, AtenTensorHandle weight, AtenTensorHandle bias,
                   AtenTensorHandle* source) {
  a.bf16 = is_bf16(x);
  a.team = openmp_team();
  a.b = x.sizes[0];
  a.e = x.sizes[x.axes - 1];
  a.x = x.data();
  a.x_batch = x.strides[0];
  a.x_row = x.axes == 4 ? x.strides[1] : 0;
  a.x_col = x.strides[x.axes - 2];
  a.weight = call.floats(weight);
  a.bias = call.floats(bias);
  int64_t axes = x.axes - 2, *grid = x.sizes + 1;
  if (source) {
    Tensor shown(*source);
    a.tokens = x.sizes[1];
    a.source = call.integers(*source);
    axes = shown.axes - 1;
    grid = shown.sizes + 1;
  }
  a.h = axes == 2 ? grid[0] : 1;
  a.w = grid[axes - 1];
}

Tensor channels_last(Call& call, AtenTensorHandle given) {
  Tensor x(given);
  return x.strides[x.axes - 1] == 1 ? x : call.whole(given, x.dtype);
}

void convolve(ConvArgs& a, const Tensor& x, AtenTensorHandle* result) {
  check_conv(a);
  *result = empty_like(x, x.dtype);
  a.y = Tensor(*result).data();
  run_conv(a);
}

}  // namespace

extern "C" {

AOTITorchError aoti_torch_cpu_selective_scan(AtenTensorHandle u, AtenTensorHandle delta, AtenTensorHandle A,
                                             AtenTensorHandle B, AtenTensorHandle C, AtenTensorHandle* D,
                                             AtenTensorHandle* z, AtenTensorHandle* delta_bias, AtenTensorHandle* gap,
                                             AtenTensorHandle* step, AtenTensorHandle* hold, AtenTensorHandle* missing,
                                             AtenTensorHandle* order, int32_t reverse, int32_t log_A,
                                             AtenTensorHandle* result) {
  return answered([&] {
    Call call;
    Tensor x(u);
    ScanArgs a = {};
    a.bf16 = is_bf16(x);
    // float32 if they are mixed
    for (AtenTensorHandle other : {delta, B, C, z ? *z : u}) a.bf16 = a.bf16 && is_bf16(Tensor(other));
    int32_t narrow = a.bf16 ? aoti_torch_dtype_bfloat16() : aoti_torch_dtype_float32();
    int32_t wide = aoti_torch_dtype_float32();
    a.b = x.sizes[0], a.l = x.sizes[1], a.e = x.sizes[2], a.n = Tensor(A).sizes[1];
    a.reverse = reverse, a.log_A = log_A, a.team = openmp_team();
    a.gap_per_channel = gap && Tensor(*gap).axes == 3;
    a.u = call.rows(u, narrow), a.delta = call.rows(delta, narrow), a.B = call.rows(B, narrow);
    a.C = call.rows(C, narrow), a.z = call.rows(z, narrow);
    a.gap = call.rows(gap, wide), a.step = call.rows(step, wide), a.hold = call.rows(hold, wide);
    a.missing = call.rows(missing, wide);
    a.A = call.floats(A), a.D = call.floats(D), a.delta_bias = call.floats(delta_bias);
    if (order) {
      a.order = call.integers(*order);
      a.order_batch = Tensor(*order).axes == 2 ? a.l : 0;
    }
    check_scan(a);
    *result = empty_like(x, x.dtype);
    if (x.dtype == narrow) {
      a.y = Tensor(*result).data();
      return run_scan(a);
    }
    Tensor whole = call.whole(u, wide);  // room for the result, in float32
    AtenTensorHandle y = empty_like(whole, wide);
    a.y = Tensor(y).data();
    run_scan(a);
    AOTITorchError error = aoti_torch_copy_(*result, y, 0);
    aoti_torch_delete_tensor_object(y);
    must(error);
  });
}

AOTITorchError aoti_torch_cpu_causal_conv1d(AtenTensorHandle x, AtenTensorHandle weight, AtenTensorHandle bias,
                                            AtenTensorHandle* source, int32_t reverse, AtenTensorHandle* result) {
  return answered([&] {
    Call call;
    ConvArgs a = {};
    Tensor rows = channels_last(call, x);
    shape_of_conv(a, call, rows, weight, bias, source);
    a.kh = 1, a.kw = Tensor(weight).sizes[1];
    a.pad_left = reverse ? 0 : a.kw - 1;
    a.reverse = reverse;
    convolve(a, rows, result);
  });
}

AOTITorchError aoti_torch_cpu_depthwise_conv2d(AtenTensorHandle x, AtenTensorHandle weight, AtenTensorHandle bias,
                                               AtenTensorHandle* source, AtenTensorHandle* result) {
  return answered([&] {
    Call call;
    ConvArgs a = {};
    Tensor rows = channels_last(call, x);
    shape_of_conv(a, call, rows, weight, bias, source);
    a.kh = Tensor(weight).sizes[1], a.kw = Tensor(weight).sizes[2];
    a.pad_top = a.kh / 2, a.pad_left = a.kw / 2;
    convolve(a, rows, result);
  });
}

AOTITorchError aoti_torch_cpu_add_rms_norm(AtenTensorHandle x, AtenTensorHandle* residual, AtenTensorHandle weight,
                                           double eps, AtenTensorHandle* result, AtenTensorHandle* total) {
  return answered([&] {
    Call call;
    Tensor rows = call.whole(x, Tensor(x).dtype);
    NormArgs a = {};
    a.bf16 = is_bf16(rows);
    a.d = rows.sizes[rows.axes - 1], a.rows = 1;
    for (int64_t i = 0; i < rows.axes - 1; ++i) a.rows *= rows.sizes[i];
    a.team = openmp_team(), a.eps = static_cast<float>(eps);
    a.x = rows.data(), a.residual = call.floats(residual), a.weight = call.floats(weight);
    *result = empty_like(rows, rows.dtype);
    *total = empty_like(rows, aoti_torch_dtype_float32());
    a.y = Tensor(*result).data(), a.total = static_cast<float*>(Tensor(*total).data());
    run_norm(a);
  });
}

}  // extern "C"
