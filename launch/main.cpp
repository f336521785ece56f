// The program: reads its command line, opens its world, runs one verb. Nothing is thrown past main, and the exit code
// is the code of the error (docs/errors.md).
#include <span>

#include "launch/interrupt.hpp"
#include "launch/options.hpp"
#include "launch/ranks.hpp"
#include "launch/text.hpp"
#include "launch/verbs.hpp"
#include "orrery/env.hpp"

namespace orrery::launch {
namespace {

int run_verb(World& world, const Command& command) {
  if (command.verb == Verb::bench) return bench(world, command.options);
  return run(world, command.options);
}

// Verbs that need no other rank.
bool is_for_one(Verb verb) {
  return verb != Verb::run && verb != Verb::trace && verb != Verb::bench;
}

int run_for_one(const Command& command) {
  if (command.verb == Verb::check) return check(command.options);
  if (command.verb == Verb::info) return info(command.options);
  print(command.help);
  return 0;
}

int start(std::span<char* const> arguments) {
  Command command;
  const auto usage_error = catch_error([&] { command = parse_command(arguments, Env::read()); });
  const bool ranks = command.options.launcher;
  if (ranks && started_by_mpi()) {
    return run_as_mpi_rank(command, usage_error, [&](World& world) {
      if (!is_for_one(command.verb)) return run_verb(world, command);
      together(world, [&] {
        if (command.verb == Verb::check && world.world_size() > 1) {
          refuse("check proves all ranks in one process; start it without a launcher and give --world-size");
        }
        if (world.rank() == 0) run_for_one(command);
      });
      return 0;
    });
  }
  if (usage_error) throw *usage_error;
  if (command.verb == Verb::help) return run_for_one(command);
  if (ranks) refuse_unheard_launcher(1);
  if (is_for_one(command.verb)) return run_for_one(command);
  return run_as_threads(command.options, [&](World& world) { return run_verb(world, command); });
}

}  // namespace
}  // namespace orrery::launch

int main(int argc, char** argv) {
  using namespace orrery;
  int code = 0;
  const auto error = launch::catch_error([&] {
    launch::prepare_process();
    code = launch::start(std::span(argv, static_cast<std::size_t>(argc)).subspan(argc > 0 ? 1 : 0));
  });
  if (!error) return code;
  launch::print_error(*error);
  return static_cast<int>(error->code());
}
