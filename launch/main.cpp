// The program: reads its command line, opens its world, runs one verb. Nothing is thrown past main, and the exit code
// is the code of the error (docs/errors.md).
#include <exception>
#include <new>
#include <span>

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
  const auto parse = [&] { return parse_command(arguments, Env::read()); };
  if (!started_by_mpi()) {
    const Command command = parse();
    if (is_for_one(command.verb)) return run_for_one(command);
    return run_as_threads(command.options, [&](World& world) { return run_verb(world, command); });
  }
  return run_as_mpi_rank(parse, [](World& world, const Command& command) {
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

}  // namespace
}  // namespace orrery::launch

int main(int argc, char** argv) {
  using namespace orrery;
  Error error(ErrorCode::bug, "");
  try {
    return launch::start(std::span(argv, static_cast<std::size_t>(argc)).subspan(argc > 0 ? 1 : 0));
  } catch (const Error& met) {
    error = met;
  } catch (const std::bad_alloc&) {
    error = Error(ErrorCode::resource, "out of memory");
  } catch (const std::exception& met) {
    error = Error(ErrorCode::bug, met.what());
  }
  launch::print_error(error);
  return static_cast<int>(error.code());
}
