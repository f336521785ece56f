#include "backend/cuda/gaps.hpp"

#include <optional>
#include <variant>

#include "schedule/row_map.hpp"

namespace orrery::cuda {

std::vector<Slice> gaps(const RankProgram& program) {
  std::vector<std::optional<RowMap<bool>>> written(program.buffers.size());  // of the buffers that may have gaps
  for (std::size_t i = 0; i < program.buffers.size(); ++i) {
    const Buffer& b = program.buffers[i];
    // What is kept was written by the forward pass, and its gaps cleared.
    const bool fresh = b.role == BufferRole::workspace || (b.role == BufferRole::kept && program.pass == Pass::forward);
    if (b.kind == BufferKind::key_value && fresh) written[i].emplace(b.tokens, b.heads);
  }
  std::vector<Slice> found;
  for (const Step& step : program.steps) {
    const bool attends = std::holds_alternative<Attend>(step) || std::holds_alternative<AttendBackward>(step);
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
