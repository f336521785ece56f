// A range of host time that profilers show by name, with whatever is put on streams meanwhile (NVTX). Costs next to
// nothing when none listens.
#pragma once

#include <nvtx3/nvToolsExt.h>

namespace orrery::device {

class NamedRange {
 public:
  explicit NamedRange(const char* name) { nvtxRangePushA(name); }
  ~NamedRange() { nvtxRangePop(); }
  NamedRange(const NamedRange&) = delete;
  NamedRange& operator=(const NamedRange&) = delete;
};

}  // namespace orrery::device
