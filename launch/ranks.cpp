#include "launch/ranks.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "launch/text.hpp"
#include "orrery/version.hpp"

namespace orrery::launch {
namespace {

// An error, or none, as text for all_gather: the code as one character, then the message.
std::string pack(const std::optional<Error>& error) {
  if (!error) return {};
  return static_cast<char>('0' + static_cast<int>(error->code())) + std::string(error->what());
}

std::optional<Error> catch_error(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::resource, "out of memory");
  } catch (const std::exception& error) {
    return Error(ErrorCode::bug, error.what());
  }
  return std::nullopt;
}

void agree(World& world, const std::optional<Error>& mine) {
  const std::vector<std::string> all = all_gather(world, pack(mine));
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].empty()) continue;
    bool alike = true;
    for (const std::string& other : all) alike = alike && other == all[rank];
    const auto code = static_cast<ErrorCode>(all[rank][0] - '0');
    throw TogetherError(code, (alike ? std::string() : concat("rank ", rank, ": ")) + all[rank].substr(1));
  }
}

// The launcher's number for this process, for the case that no world could be opened to ask.
bool launched_as_first() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"}) {
    if (const char* rank = std::getenv(name)) return std::string_view(rank) == "0";
  }
  return true;
}

// Runs the collective part of a rank. An error that all ranks throw is told by rank 0; of another the others do not
// know, and they are ended.
int leave_in_order(World& world, const std::function<int()>& body) {
  std::optional<Error> error;
  bool alone = true;
  try {
    return body();
  } catch (const AloneError& met) {
    error = met;
  } catch (const TogetherError& met) {
    alone = false;
    error = met;
  } catch (const Error& met) {
    alone = met.code() == ErrorCode::peer || met.code() == ErrorCode::bug;
    error = met;
  } catch (const std::bad_alloc&) {
    error = Error(ErrorCode::resource, "out of memory");
  } catch (const std::exception& met) {
    error = Error(ErrorCode::bug, met.what());
  }
  if (alone) {
    world.abort(error->code(), printable(*error));  // prints it
  } else if (world.rank() == 0) {
    print_error(*error);
  }
  return static_cast<int>(error->code());
}

}  // namespace

void together(World& world, const std::function<void()>& body) {
  agree(world, catch_error(body));
}

void agree_on_arguments(World& world, const Command& command) {
  // Threads and devices may differ from rank to rank: nothing that the ranks exchange depends on them.
  std::string mine = concat("orrery ", kVersion, '\n', "orrery ", command.name, '\n');
  for (const auto& [name, value] : command.given) {
    if (name != "threads" && name != "device-index") mine += concat("--", name, ' ', value, '\n');
  }
  const std::vector<std::string> all = all_gather(world, mine);
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    // The first line that differs, of each.
    const auto differs = std::mismatch(all[0].begin(), all[0].end(), all[rank].begin(), all[rank].end());
    auto line = [](const std::string& text, std::string::const_iterator at) {
      auto begin = at, end = at;
      while (begin != text.begin() && *(begin - 1) != '\n') --begin;
      while (end != text.end() && *end != '\n') ++end;
      return begin == end ? std::string("nothing more") : std::string(begin, end);
    };
    refuse("ranks were started with different arguments: rank 0 with '", line(all[0], differs.first), "', rank ", rank,
           " with '", line(all[rank], differs.second), "'");
  }
}

int run_as_threads(const Options& options, const RankBody& body) {
  if (options.link != "auto") {
    refuse("--link ", options.link, " is for ranks that are processes; those of one process share its memory");
  }
  // Ranks that share a device have streams each, and CUDA has 8 queues unless told before it starts: streams that share
  // one wait for each other without need.
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  int code = 0;
  run_in_process(options.ranks.value_or(1), {options.timeout_seconds}, [&](World& world) {
    const int mine = body(world);
    if (world.rank() == 0) code = mine;
  });
  return code;
}

int run_as_mpi_rank(const std::function<Command()>& parse, const std::function<int(World&, const Command&)>& body) {
  Command command;
  const auto usage_error = catch_error([&] { command = parse(); });
  std::unique_ptr<World> world;
  if (const auto error = catch_error([&] {
        world = open_mpi_world({command.options.timeout_seconds, command.options.link});
      })) {
    const Error& first = usage_error ? *usage_error : *error;
    if (launched_as_first() || first.code() == ErrorCode::peer) print_error(first);
    return static_cast<int>(first.code());
  }
  return leave_in_order(*world, [&] {
    agree(*world, usage_error);
    agree_on_arguments(*world, command);
    if (const auto& ranks = command.options.ranks; ranks && *ranks != world->world_size()) {
      refuse("--ranks ", *ranks, " was given, but the launcher started ", counted(world->world_size(), "rank"));
    }
    return body(*world, command);
  });
}

}  // namespace orrery::launch
