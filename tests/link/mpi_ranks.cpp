// A program of MPI processes that does one thing, named by its argument: what conforms ends with 0, what goes wrong on
// purpose ends as mpi_failure.sh expects, cases of the suite among it. Rank 0 prints figures.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <map>

#include "link/conformance.hpp"
#include "link/figures.hpp"
#include "link/mpi/mpi_world.hpp"
#include "link/traffic.hpp"
#include "orrery/conformance.hpp"

namespace orrery::test {
namespace {

constexpr double kPatience = 1.5;  // seconds, in what goes wrong on purpose
constexpr std::int64_t kBlock = 1 << 20;

// Whole rounds of a ring; rank 1 calls `event` in the middle of it.
template <typename Event>
void ring_with(World& world, Event&& event) {
  Bytes out(kBlock), in(kBlock);
  const auto session = world.link().prepare({{0, {{right_of(world), whole(out)}}, {{left_of(world), whole(in)}}, {}}});
  for (int round = 0; round < 20; ++round) {
    if (round == 10 && world.rank() == 1) event();
    session->begin_run();
    session->start(0);
    session->wait(0, world.timeout_seconds());
    session->end_run();
  }
}

void sleep_long() {
  sleep(60);
}

void sizes_differ(World& world, std::int64_t sent, std::int64_t received) {
  Bytes bytes(world.rank() == 0 ? sent : received);
  std::vector<Message> message = {{1 - world.rank(), whole(bytes)}};
  LinkExchange exchange;
  (world.rank() == 0 ? exchange.sends : exchange.receives) = message;
  const auto session = world.link().prepare({exchange});
  run_each(*session, 1);
  sleep_long();  // rank 0, so that it is rank 1 that ends the job
}

// Ranks whose messages would fit, but belong to different runs.
void runs_differ(World& world) {
  Bytes out(100), in(100);
  const std::vector<LinkExchange> exchange = {{0, {{right_of(world), whole(out)}}, {{left_of(world), whole(in)}}, {}}};
  const auto session = world.link().prepare(exchange);
  for (std::uint64_t call = 0; call < 3; ++call) {
    session->begin_run({7, call, call == 2 && world.rank() == 1 ? 1u : 0u});
    session->start(0);
    session->wait(0, kPatience);
    session->end_run();
  }
}

const std::map<std::string, void (*)(World&)> kCases = {
    {"conform", conform_and_allocate_nothing},
    {"figures", print_figures},
    {"overlap", expect_overlap},
    {"sleeping", [](World& world) { ring_with(world, sleep_long); }},
    {"stopped", [](World& world) { ring_with(world, [] { raise(SIGSTOP); }); }},
    {"killed", [](World& world) { ring_with(world, [] { raise(SIGKILL); }); }},
    {"unwound", [](World& world) { ring_with(world, [] { throw std::runtime_error("not an Error"); }); }},
    {"stopped-at-close",
     [](World& world) {
       if (world.rank() == 1) raise(SIGSTOP);
     }},
    {"runs-differ", runs_differ},
    {"interrupted", [](World& world) { world.rank() == 1 ? sleep_long() : world.barrier(); }},
    {"longer", [](World& world) { sizes_differ(world, 200, 100); }},
    {"shorter", [](World& world) { sizes_differ(world, 100, 200); }},
};

// Errors of ours end the job; the world is still open then.
void run(const std::string& name, double timeout_seconds, std::int64_t piece_bytes) {
  WorldOptions options{timeout_seconds};
  if (name == "interrupted") {
    options = {.timeout_seconds = kWait, .interrupted = [asked = 0]() mutable { return ++asked > 20; }};
  }
  const std::unique_ptr<World> world =
      piece_bytes > 0 ? open_mpi_world(nullptr, options, piece_bytes) : open_mpi_world(options);
  expect(world->link_name() == "mpi" && started_by_mpi() && world->topology().nodes() == 1, "MPI ranks on one node");
  try {
    if (kCases.count(name) > 0) return kCases.at(name)(*world);
    orrery::conform(*world, name);
    world->abort(ErrorCode::peer, concat(name, " failed as it should"));
  } catch (const Error& error) {
    world->abort(error.code(), error.what());
  }
}

}  // namespace
}  // namespace orrery::test

// mpi_ranks CASE [PIECE_BYTES]
int main(int argc, char** argv) {
  using namespace orrery::test;
  const std::string name = argc > 1 ? argv[1] : "";
  const bool succeeds = name == "conform" || name == "figures" || name == "overlap";
  try {
    run(name, succeeds ? kWait : kPatience, argc > 2 ? std::atoll(argv[2]) : 0);
  } catch (const std::exception& error) {  // the world was closed on the way here
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
  return 0;
}
