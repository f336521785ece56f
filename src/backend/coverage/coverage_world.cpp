#include "backend/coverage/coverage_world.hpp"

#include <map>

namespace orrery::coverage {

CoverageWorld::CoverageWorld(Context& context, const std::vector<RankProgram>& programs)
    : context_(context), walk_(programs, {kProgramOrder}, *this) {
  for (const RankProgram& program : programs) {
    Rank& rank = ranks_.emplace_back(Rank{Effects(context, program), {}});
    for (int step = 0; step < static_cast<int>(program.steps.size()); ++step) {
      const auto* exchange = std::get_if<Exchange>(&program.steps[static_cast<std::size_t>(step)]);
      if (exchange == nullptr) {
        rank.nodes.push_back(context.lineage.add({program.pass, program.rank, step, -1}));
        continue;
      }
      rank.nodes.push_back(static_cast<int>(context.lineage.nodes().size()));
      for (int i = 0; i < static_cast<int>(exchange->receives.size()); ++i) {
        context.lineage.add({program.pass, program.rank, step, i});
      }
    }
  }
}

bool CoverageWorld::run() {
  walk_.advance();
  if (!walk_.complete()) report_deadlock();
  return walk_.complete();
}

void CoverageWorld::begin(int rank, int step) {
  Rank& r = ranks_[static_cast<std::size_t>(rank)];
  if (std::holds_alternative<Exchange>(r.effects.step(step))) return;  // done when its messages have met
  r.effects.apply(step, r.nodes[static_cast<std::size_t>(step)]);
  walk_.done(rank, step);
}

void CoverageWorld::meet(const Walk::Message& message) {
  transfer(message);
  walk_.done(message);
}

void CoverageWorld::transfer(const Walk::Message& message) {
  const auto& [send, receive] = message;
  Effects& from = rank(send.rank);
  Effects& to = rank(receive.rank);
  const auto& sending = std::get<Exchange>(from.step(send.step));
  const auto& receiving = std::get<Exchange>(to.step(receive.step));
  const Slice& source = sending.sends[send.index].slice;
  const Slice& target = receiving.receives[receive.index].slice;
  const RankProgram& sender = from.program();
  const RankProgram& receiver = to.program();
  const Buffer& sent = sender.buffers[static_cast<std::size_t>(source.buffer)];
  const Buffer& received = receiver.buffers[static_cast<std::size_t>(target.buffer)];
  const bool same_order = sending.order == receiving.order;
  if (source.tokens != target.tokens || source.heads != target.heads || sent.kind != received.kind ||
      sent.dtype != received.dtype || !same_order) {
    to.report(Fault::mismatch, receive.step, to_text(receiver, target), " meets ", to_text(sender, source),
              " from step ", send.step, " of rank ", send.rank, same_order ? "" : ", with its rows in another order");
    return;
  }
  const int node = ranks_[static_cast<std::size_t>(receive.rank)].nodes[static_cast<std::size_t>(receive.step)] +
                   static_cast<int>(receive.index);
  for (Cell& cell : from.memory(source).read(source)) {
    if (!cell.value.written) {
      from.report(Fault::unwritten, send.step, "sends rows ", cell.token_begin, " to ", cell.token_end,
                  " that nothing wrote");
    }
    if (cell.value.identity.known()) cell.value.identity = shifted(cell.value.identity, target, source);
    context_.lineage.used(cell.value.writer, node);
    cell.value.writer = node;
    to.memory(target).write(corresponding(target, source, cell), cell.value);
  }
}

void CoverageWorld::report_deadlock() {
  std::map<int, std::string> waits;  // by rank
  for (const auto& [from, to, lane, sends] : walk_.waiting()) {
    if (sends) {
      waits[from] += concat(", for rank ", to, whereabouts(to), " to receive on lane ", lane);
    } else {
      waits[to] += concat(", for rank ", from, whereabouts(from), " to send on lane ", lane);
    }
  }
  for (const auto& [r, text] : waits) {
    rank(r).report(Fault::deadlock, walk_.stands_at(r).value_or(-1), "waits for ever", text);
  }
}

std::string CoverageWorld::whereabouts(int rank) const {
  const std::optional<int> step = walk_.stands_at(rank);
  return step ? concat(" (at step ", *step, ")") : std::string(" (at its end)");
}

}  // namespace orrery::coverage
