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
  for (const Step& step : program.steps) {
    if (const auto* exchange = std::get_if<Exchange>(&step)) {
      total.rounds += 1;
      total.bytes_sent += bytes_of(exchange->sends);
      total.bytes_received += bytes_of(exchange->receives);
    } else if (const Attending* s = attending(step)) {
      total.pairs += pairs(mask_of(program, problem, s->mask), s->query_spans, s->key_spans) * s->query.heads;
    }
  }
  return total;
}

}  // namespace orrery
