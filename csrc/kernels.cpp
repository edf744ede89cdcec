// The table of kernels of one instruction set.
#include "functions.h"
#include "memory.h"
#include "table.h"

namespace skimba {
namespace SKIMBA_ISA {
namespace {

void map(int function, const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; i += W) {
    int lanes = (int)smaller(W, count - i);
    vf v = load(x + i, lanes);
    store(y + i, function == 0 ? exp2(v) : function == 1 ? exp(v) : function == 2 ? softplus(v) : silu(v), lanes);
  }
}

}  // namespace

#define SKIMBA_TEXT(name) #name
#define SKIMBA_NAME(name) SKIMBA_TEXT(name)

extern const Kernels kernels = {SKIMBA_NAME(SKIMBA_ISA),
                                scan_workspace,
                                scan,
                                scan_backward_workspace,
                                scan_backward,
                                conv_workspace,
                                conv,
                                conv_backward_workspace,
                                conv_backward,
                                sample_workspace,
                                sample,
                                norm,
                                norm_backward_workspace,
                                norm_backward,
                                quantize_rows,
                                scale_products,
                                map};

}  // namespace SKIMBA_ISA
}  // namespace skimba
