// What one instruction set has: every file that is compiled once per instruction set gives its part, kernels.cpp the
// table.
#pragma once
#include "kernels.h"

namespace skimba {
namespace SKIMBA_ISA {

size_t scan_workspace(const ScanArgs&);
void scan(const ScanArgs&, char* workspace);
size_t scan_backward_workspace(const ScanArgs&);
void scan_backward(const ScanArgs&, const ScanGrads&, char* workspace);
size_t conv_workspace(const ConvArgs&);
void conv(const ConvArgs&, char* workspace);
size_t conv_backward_workspace(const ConvArgs&);
void conv_backward(const ConvArgs&, const ConvGrads&, char* workspace);
size_t sample_workspace(const SampleArgs&);
void sample(const SampleArgs&, char* workspace);
void norm(const NormArgs&);
size_t norm_backward_workspace(const NormArgs&);
void norm_backward(const NormArgs&, const NormGrads&, char* workspace);
void quantize_rows(const Int8Args&);
void scale_products(const ScaleArgs&);

}  // namespace SKIMBA_ISA
}  // namespace skimba
