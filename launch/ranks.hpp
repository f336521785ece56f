// How the ranks of the program start, and how they fail.
//
// Under an MPI launcher every process is a rank; else the ranks are threads of this process. Failures come in two
// kinds, and every line of a verb belongs to one of them:
//   together   what one rank may find alone (a file it cannot read, memory it cannot get) is wrapped in together(): the
//              ranks compare what they met, and all throw the same error. Collective calls of the library fail so, too.
//              One rank prints, all leave in good order, with the error's exit code.
//   alone      a deadline that passed, or a fault while transfers are under way: the others do not know, and may be
//              waiting. The rank that noticed prints its line and ends the job.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "launch/options.hpp"
#include "orrery/error.hpp"
#include "orrery/world.hpp"

namespace orrery::launch {

// An error that the other ranks do not know of.
class AloneError : public Error {
 public:
  using Error::Error;
};

// An error that all ranks throw. One that is neither is judged by its code: peers fail alone, and so do bugs.
class TogetherError : public Error {
 public:
  using Error::Error;
};

// What the body throws, as an error; nothing when it returns.
std::optional<Error> catch_error(const std::function<void()>& body);

// Collective; `body` is not. Throws on all ranks what the lowest rank that failed met, naming the rank unless all
// failed alike.
void together(World& world, const std::function<void()>& body);

// Refused where a launcher says that it started more ranks than MPI, or this process alone, knows of: each process
// would take itself for the whole world, and all would write the same files.
void refuse_unheard_launcher(int world_size);

// Collective. Refused, naming an option or a variable that differs, when the ranks were started with different ones.
void agree_on_arguments(World& world, const Command& command);

using RankBody = std::function<int(World&)>;

// Runs `body` as every rank of a process that no MPI launcher started. Returns rank 0's exit code.
int run_as_threads(const Options& options, const RankBody& body);

// Runs this process as one MPI rank: `body`, when all ranks agree on the command and none met an error in making it.
// Prints errors itself; returns the exit code.
int run_as_mpi_rank(const Command& command, const std::optional<Error>& usage_error, const RankBody& body);

}  // namespace orrery::launch
