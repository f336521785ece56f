#include "backend/memory/exchanges.hpp"

#include "orrery/error.hpp"

namespace orrery {

ProgramExchanges exchanges_of(const RankProgram& program, const Dependencies& dependencies,
                              const std::vector<BufferMemory>& memory) {
  ProgramExchanges result;
  result.of_step.assign(program.steps.size(), -1);
  for (std::size_t i = 0; i < program.steps.size(); ++i) {
    const auto* exchange = std::get_if<Exchange>(&program.steps[i]);
    if (exchange == nullptr) continue;
    LinkExchange link_exchange;
    link_exchange.lane = exchange->lane;
    const auto messages = [&](const std::vector<Transfer>& transfers, std::vector<Message>& list) {
      for (const Transfer& t : transfers) {
        for (const TensorView& tensor : memory[static_cast<std::size_t>(t.slice.buffer)]) {
          list.push_back({t.peer, region(rows(tensor, t.slice), exchange->order)});
        }
      }
    };
    messages(exchange->sends, link_exchange.sends);
    messages(exchange->receives, link_exchange.receives);
    for (int earlier : dependencies.of(static_cast<int>(i))) {
      const int e = result.of_step[static_cast<std::size_t>(earlier)];
      if (e >= 0) link_exchange.after.push_back(e);
    }
    result.of_step[i] = static_cast<int>(result.exchanges.size());
    result.exchanges.push_back(std::move(link_exchange));
  }
  return result;
}

std::string exchange_error(const RankProgram& program, int step, const std::string& said) {
  const auto& exchange = std::get<Exchange>(program.steps[static_cast<std::size_t>(step)]);
  return concat("[rank ", program.rank, "/", program.world_size, "] ", to_string(program.pass), " step ", step,
                " exchange lane ", exchange.lane, ": ", said);
}

}  // namespace orrery
