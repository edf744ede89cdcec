// Work that is cut into parts, which the caller's threads may run at once.
#pragma once
#include "kernels.h"
#include "memory.h"

namespace skimba {
namespace SKIMBA_ISA {
namespace {

// How many parts `count` tasks are cut into; part numbers, and with them pieces of the workspace, are below it.
inline int64_t parts_of(const Team& team, int64_t count) {
  int64_t parts = smaller(team.parts, count);
  return parts > 1 ? parts : 1;
}

// work(part, from, to) for every part of the tasks 0 ... count-1; all of them have ended when it returns.
template <class Work> void in_parts(const Team& team, int64_t count, const Work& work) {
  int64_t parts = parts_of(team, count);
  if (parts == 1) return work(0, 0, count);
  struct Cut {
    const Work& work;
    int64_t count, parts;
  } cut = {work, count, parts};
  auto run_part = [](void* given, size_t number) {
    const Cut& cut = *static_cast<const Cut*>(given);
    int64_t part = (int64_t)number;
    cut.work(part, part * cut.count / cut.parts, (part + 1) * cut.count / cut.parts);
  };
  team.run(team.owner, run_part, (size_t)parts, &cut);
}

}  // namespace
}  // namespace SKIMBA_ISA
}  // namespace skimba
