// Values read bilinearly at any places of several maps, and their weighted sums.
#include "parallel.h"
#include "table.h"

namespace skimba {
namespace SKIMBA_ISA {
namespace {

// A cell that is read: where in an image its row begins, and how much of it.
struct Corner {
  int64_t row;
  float weight;
};

// The cells around one place, those outside of the map left out; x and y count cells from the centre of the first one.
inline int64_t add_corners(const SampleArgs& a, int64_t first, int64_t height, int64_t width, float x, float y,
                           float weight, Corner* to) {
  if (!(x - x == 0 && y - y == 0)) {  // not finite: neither is what it reads
    *to = {first * a.heads * a.c, __builtin_nanf("")};
    return 1;
  }
  if (!(x > -1.0f && x < width && y > -1.0f && y < height)) return 0;
  int64_t left = (int64_t)(x + 1.0f) - 1, top = (int64_t)(y + 1.0f) - 1, found = 0;
  float right_share = x - left, bottom_share = y - top;
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t j = 0; j < 2; ++j) {
      int64_t row = top + i, column = left + j;
      if (row < 0 || row >= height || column < 0 || column >= width) continue;
      float share = (i ? bottom_share : 1.0f - bottom_share) * (j ? right_share : 1.0f - right_share);
      to[found++] = {(first + row * width + column) * a.heads * a.c, weight * share};
    }
  return found;
}

// All cells that one head of one query reads, of all maps.
inline int64_t find_corners(const SampleArgs& a, int64_t query_head, Corner* to) {
  const float* weight = a.weights + query_head * a.maps * a.points;
  const float* place = a.locations + 2 * query_head * a.maps * a.points;
  int64_t found = 0, first = 0;
  for (int64_t map = 0; map < a.maps; ++map) {
    int64_t height = a.grids[2 * map], width = a.grids[2 * map + 1];
    for (int64_t point = 0; point < a.points; ++point, place += 2, ++weight) {
      // As torch's grid_sample rounds: shares to -1 ... 1, then to cells
      float x = ((2 * place[0] - 1 + 1) * width - 1) / 2, y = ((2 * place[1] - 1 + 1) * height - 1) / 2;
      found += add_corners(a, first, height, width, x, y, *weight, to + found);
    }
    first += height * width;
  }
  return found;
}

template <class T> inline void read_channels(const T* value, const Corner* corners, int64_t found, T* y, int count) {
  vf total = {};
  for (int64_t i = 0; i < found; ++i) total += load(value + corners[i].row, count) * corners[i].weight;
  store(y, total, count);
}

template <class T> void sample_query(const SampleArgs& a, int64_t query, Corner* corners) {
  const T* image = static_cast<const T*>(a.value) + query / a.q * a.m * a.heads * a.c;
  for (int64_t head = 0; head < a.heads; ++head) {
    int64_t query_head = query * a.heads + head, found = find_corners(a, query_head, corners);
    const T* value = image + head * a.c;
    T* y = static_cast<T*>(a.y) + query_head * a.c;
    for (int64_t i = 0; i < a.c; i += W) {
      int64_t channel = a.c < W ? 0 : smaller(i, a.c - W);  // the last vector overlaps the one before
      read_channels(value + channel, corners, found, y + channel, (int)smaller(W, a.c));
    }
  }
}

Corner* corners_of(const SampleArgs& a, Arena& arena, int64_t part) {
  Corner* corners = nullptr;
  for (int64_t i = 0; i <= part; ++i) corners = arena.take<Corner>(4 * a.maps * a.points);
  return corners;
}

template <class T> void sample_typed(const SampleArgs& a, char* workspace) {
  in_parts(a.team, a.b * a.q, [&](int64_t part, int64_t from, int64_t to) {
    Arena arena = {workspace, 0};
    Corner* corners = corners_of(a, arena, part);
    for (int64_t query = from; query < to; ++query) sample_query<T>(a, query, corners);
  });
}

}  // namespace

size_t sample_workspace(const SampleArgs& a) {
  Arena arena = {nullptr, 0};
  corners_of(a, arena, parts_of(a.team, a.b * a.q) - 1);
  return arena.used;
}
void sample(const SampleArgs& a, char* workspace) {
  a.bf16 ? sample_typed<bf16>(a, workspace) : sample_typed<float>(a, workspace);
}

}  // namespace SKIMBA_ISA
}  // namespace skimba
