#include "orrery/schedule.hpp"

namespace orrery {

ProgramCost cost(const RankProgram& program, const AttentionProblem& problem) {
  ProgramCost total;
  total.steps = static_cast<std::int64_t>(program.steps.size());
  for (const Buffer& buffer : program.buffers) {
    const std::int64_t bytes = buffer.tokens * buffer.heads * row_bytes(buffer, problem);
    if (buffer.role == BufferRole::workspace) total.workspace_bytes += bytes;
    if (buffer.role == BufferRole::kept) total.kept_bytes += bytes;
  }
  const auto bytes_of = [&](const std::vector<Transfer>& transfers) {
    std::int64_t bytes = 0;
    for (const Transfer& t : transfers) {
      bytes += t.slice.tokens * t.slice.heads * row_bytes(program.buffers[t.slice.buffer], problem);
    }
    return bytes;
  };
  const auto pairs_of = [&](const auto& attend) {
    return pairs(problem.mask, attend.query_spans, attend.key_spans) * attend.query.heads;
  };
  for (const Step& step : program.steps) {
    if (const auto* exchange = std::get_if<Exchange>(&step)) {
      total.rounds += 1;
      total.bytes_sent += bytes_of(exchange->sends);
      total.bytes_received += bytes_of(exchange->receives);
    } else if (const auto* forward = std::get_if<Attend>(&step)) {
      total.pairs += pairs_of(*forward);
    } else if (const auto* backward = std::get_if<AttendBackward>(&step)) {
      total.pairs += pairs_of(*backward);
    }
  }
  return total;
}

}  // namespace orrery
