#include "launch/ranks.hpp"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "launch/text.hpp"
#include "orrery/launcher.hpp"
#include "orrery/machine.hpp"
#include "orrery/version.hpp"

namespace orrery::launch {
namespace {

void agree(World& world, const std::optional<Error>& mine) {
  const std::optional<AgreedError> agreed = agree_on_error(world, mine ? &*mine : nullptr);
  if (!agreed) return;
  const std::string who = agreed->of_all ? "" : concat("rank ", agreed->rank, ": ");
  throw TogetherError(agreed->error.code(), who + agreed->error.what());
}

// For the case that no world could be opened to ask.
bool launched_as_first() {
  const auto started = launcher();
  return !started || started->rank == 0;
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
  } catch (...) {
    error = current_error();
  }
  if (alone) {
    world.abort(error->code(), printable(*error));  // prints it
  } else if (world.rank() == 0) {
    print_error(*error);
  }
  return static_cast<int>(error->code());
}

}  // namespace

std::optional<Error> catch_error(const std::function<void()>& body) {
  try {
    body();
  } catch (...) {
    return current_error();
  }
  return std::nullopt;
}

void refuse_unheard_launcher(int world_size) {
  const auto started = launcher();
  if (!started || started->ranks <= world_size) return;
  refuse(started->name, " says that this is rank ", started->rank, " of ", started->ranks, " (", started->ranks_source,
         "), but MPI (", describe_machine().mpi, ") says that there ", world_size == 1 ? "is " : "are ",
         counted(world_size, "rank"), "; ", started->remedy,
         "; with --launcher none (ORRERY_LAUNCHER) each process runs alone");
}

void together(World& world, const std::function<void()>& body) {
  agree(world, catch_error(body));
}

void agree_on_arguments(World& world, const Command& command) {
  // Threads and devices may differ from rank to rank: nothing that the ranks exchange depends on them.
  std::string mine = concat("orrery ", kVersion, '\n', "orrery ", command.name, '\n');
  for (const auto& [name, value] : command.given) {
    if (name != "threads" && name != "device-index") mine += concat("--", name, ' ', value, '\n');
  }
  // What variables may have set.
  const Options& options = command.options;
  mine += concat("ORRERY_CHECK=", options.prove, "\nORRERY_TIMEOUT_SECONDS=", options.timeout_seconds,
                 "\nORRERY_SM_MARGIN=", options.sm_margin,
                 "\nORRERY_KERNELS=", options.portable_kernels ? "portable" : "best", '\n');
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

int run_as_mpi_rank(const Command& command, const std::optional<Error>& usage_error, const RankBody& body) {
  std::unique_ptr<World> world;
  if (const auto error = catch_error([&] {
        world = open_mpi_world({command.options.timeout_seconds, command.options.link});
      })) {
    const Error& first = usage_error ? *usage_error : *error;
    if (launched_as_first() || first.code() == ErrorCode::peer) print_error(first);
    return static_cast<int>(first.code());
  }
  return leave_in_order(*world, [&] {
    refuse_unheard_launcher(world->world_size());
    agree(*world, usage_error);
    agree_on_arguments(*world, command);
    if (const auto& ranks = command.options.ranks; ranks && *ranks != world->world_size()) {
      refuse("--ranks ", *ranks, " was given, but the launcher started ", counted(world->world_size(), "rank"));
    }
    return body(*world);
  });
}

}  // namespace orrery::launch
