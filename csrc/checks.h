// What the kernels do not survive is refused here, whoever calls: null pointers, indices out of range, negative times.
#pragma once
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

namespace skimba {

// No negative value and no NaN in the `width` floats of every row; no infinity either, but in a gap.
inline void check_times(const std::string& name, const Rows& x, int64_t b, int64_t l, int64_t width, float most) {
  if (!x.data) return;
  for (int64_t i = 0; i < b; ++i)
    for (int64_t j = 0; j < l; ++j) {
      const float* row = static_cast<const float*>(x.data) + i * x.batch + j * x.token;
      bool good = true;
      for (int64_t q = 0; q < width; ++q) good &= row[q] >= 0.0f && row[q] <= most;
      if (!good)
        throw std::invalid_argument((name + " must be >= 0" + (most < INFINITY ? ", finite" : "") +
                                     " and not NaN, unlike in image " + std::to_string(i) + ", step " +
                                     std::to_string(j)));
    }
}

// Every row must hold each of 0 ... l-1 once: else memory would be left unwritten, or written beyond its end.
inline void check_order(const int32_t* order, int64_t rows, int64_t l) {
  std::vector<bool> seen(l);
  for (int64_t i = 0; i < rows * l; ++i) {
    if (i % l == 0) seen.assign(l, false);
    if (order[i] < 0 || order[i] >= l || seen[order[i]]) throw std::invalid_argument("order must hold each token once");
    seen[order[i]] = true;
  }
}

// The maps must have all the cells and no more: else what lies beyond them would be read.
inline void check_grids(const std::vector<int64_t>& grids, int64_t maps, int64_t cells) {
  bool good = (int64_t)grids.size() == 2 * maps;
  for (size_t i = 0; good && i < grids.size(); i += 2) {
    good = grids[i] > 0 && grids[i + 1] > 0 && grids[i] <= cells / grids[i + 1];
    if (good) cells -= grids[i] * grids[i + 1];
  }
  if (!good || cells) throw std::invalid_argument("grids must be height and width of maps that have all the cells");
}

// An empty batch has no memory; all else that an operator cannot do without must have an address.
inline void check_given(const char* name, const void* address, int64_t batch) {
  if (batch > 0 && !address) throw std::invalid_argument((std::string(name) + " is not given"));
}

}  // namespace skimba
