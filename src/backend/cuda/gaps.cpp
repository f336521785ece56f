#include "backend/cuda/gaps.hpp"

#include <optional>

#include "schedule/row_map.hpp"

namespace orrery::cuda {

std::vector<Slice> gaps(const RankProgram& program) {
  std::vector<std::optional<RowMap<bool>>> written(program.buffers.size());  // of the buffers that may have gaps
  for (const Step& step : program.steps) {
    const Attending* const s = attending(step);
    if (s == nullptr) continue;
    const auto keys = static_cast<std::size_t>(s->key_value.buffer);
    const Buffer& b = program.buffers[keys];
    // What is kept was written by the forward pass, and its gaps cleared.
    const bool fresh = b.role == BufferRole::workspace || (b.role == BufferRole::kept && program.pass == Pass::forward);
    if (fresh && !written[keys]) written[keys].emplace(b.tokens, b.heads);
  }
  std::vector<Slice> found;
  for (const Step& step : program.steps) {
    const bool attends = attending(step) != nullptr;
    for_each_access(step, [&](const Access& access) {
      auto& rows = written[static_cast<std::size_t>(access.slice.buffer)];
      if (!rows || (!attends && access.mode == AccessMode::read)) return;
      if (attends) {
        for (const auto& cell : rows->read(access.slice)) {
          if (cell.value) continue;
          found.push_back({access.slice.buffer, cell.token_begin, cell.tokens().size(), cell.head_begin,
                           cell.head_end - cell.head_begin});
        }
      }
      rows->write(access.slice, true);
    });
  }
  return found;
}

}  // namespace orrery::cuda
