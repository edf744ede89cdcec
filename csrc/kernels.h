// What the kernels take: pointers, sizes, strides in elements. Plain data only, so that every instruction set's copy of
// the kernels may include it. Axis letters: b batch, l tokens, e channels, n states, h w grid, k kernel.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace skimba {

// A (b, tokens, channels) operand with unit stride on the channels; data is null when it is not given
struct Rows {
  const void* data;
  int64_t batch, token;
};

// Whose threads run a kernel's parts, and how many parts there may be. `run` calls part(work, i) for every i below
// count, on any threads and in any order, and returns when all have ended; with one part nobody calls it. No result
// depends on the number of parts.
struct Team {
  int parts;
  void (*run)(void* owner, void (*part)(void* work, size_t i), size_t count, void* work);
  void* owner;
};

struct ScanArgs {
  int64_t b, l, e, n;
  bool bf16, reverse, gap_per_channel, log_A;  // log_A: A holds log(-A)
  Team team;
  Rows u, delta, B, C, z;         // float or bfloat16
  Rows gap, step, missing, hold;  // float
  const float *A, *D, *delta_bias;
  const int32_t* order;  // the token whose u, z and y a step is for; null: its own
  int64_t order_batch;
  void* y;  // (b l e), float or bfloat16
};

struct ScanGrads {
  Rows grad;                                      // of y
  void *u, *delta, *B, *C, *z;                    // contiguous, in the dtype of u
  float *A, *D, *delta_bias, *gap, *step, *hold;  // hold is null if its gradient is not wanted
};

// SiLU of a depthwise convolution over a channels-last grid; a sequence is a grid of one row. With `source`, the grid
// shows at each position one of `tokens` rows of x (x_col apart) or zeros, and a token gets the mean over the positions
// that show it.
struct ConvArgs {
  int64_t b, h, w, e, kh, kw, pad_top, pad_left;
  bool bf16, reverse;  // reverse: the taps are mirrored
  Team team;
  const void* x;
  int64_t x_batch, x_row, x_col;
  const float *weight, *bias;  // (e kh kw), (e)
  int64_t tokens;
  const int32_t* source;  // (b h*w), -1 for zeros; null without
  void* y;                // (b h w e), or (b tokens e) with source
};

struct ConvGrads {
  const void* grad;
  int64_t batch, row, col;
  void* x;
  float *weight, *bias;
};

// Weighted sums of values read bilinearly at any places of several maps, whose cells are rows of heads·c contiguous
// channels, one map after the other.
struct SampleArgs {
  int64_t b, q, m, heads, c, maps, points;
  bool bf16;
  Team team;
  const int64_t* grids;              // height and width of each map
  const void* value;                 // (b m heads c)
  const float *locations, *weights;  // (b q heads maps points 2): x and y in shares of the map; without the last axis
  void* y;                           // (b q heads c)
};

// Residual sum and its RMSNorm; rows of d contiguous channels
struct NormArgs {
  int64_t rows, d;
  bool bf16;
  Team team;
  float eps;
  const void* x;
  const float *residual, *weight;  // residual is null where x begins it
  void* y;
  float* total;
};

struct NormGrads {
  const void* y;       // the gradients that arrive
  const float* total;  // null if none does
  float *x, *weight;
};

// Rows of x as 8-bit integers, each with its own scale
struct Int8Args {
  int64_t b, l, d;
  bool bf16;
  Team team;
  Rows x;
  int8_t* values;  // (b l d)
  float* scales;   // (b l)
};

// products · rows · columns + bias: products of rows of 8-bit integers as numbers
struct ScaleArgs {
  int64_t count, e;
  bool bf16;
  Team team;
  const int32_t* products;             // (count e)
  const float *rows, *columns, *bias;  // (count), (e), (e) or null
  void* y;                             // (count e), float or bfloat16
};

struct Kernels {
  const char* name;
  size_t (*scan_workspace)(const ScanArgs&);
  void (*scan)(const ScanArgs&, char* workspace);
  size_t (*scan_backward_workspace)(const ScanArgs&);
  void (*scan_backward)(const ScanArgs&, const ScanGrads&, char* workspace);
  size_t (*conv_workspace)(const ConvArgs&);
  void (*conv)(const ConvArgs&, char* workspace);
  size_t (*conv_backward_workspace)(const ConvArgs&);
  void (*conv_backward)(const ConvArgs&, const ConvGrads&, char* workspace);
  size_t (*sample_workspace)(const SampleArgs&);
  void (*sample)(const SampleArgs&, char* workspace);
  void (*norm)(const NormArgs&);
  size_t (*norm_backward_workspace)(const NormArgs&);
  void (*norm_backward)(const NormArgs&, const NormGrads&, char* workspace);
  void (*quantize_rows)(const Int8Args&);
  void (*scale_products)(const ScaleArgs&);
  void (*map)(int function, const float* x, float* y, int64_t count);  // for tests: exp2, exp, softplus, silu
};

namespace baseline {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}

}  // namespace skimba
