// The rows of `bench`. A row measures one thing, says against what it is to be held, and verifies in the same run what
// it measured: a fast wrong answer is a wrong answer.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/options.hpp"
#include "launch/report.hpp"
#include "orrery/world.hpp"

namespace orrery::launch {

struct Row {
  std::string name;
  std::string measured;
  std::string against;     // the opponent or the ideal, and how this compares
  std::int64_t wrong = 0;  // rows of the result that are wrong
  std::string complaint;   // what is wrong with the row; empty when nothing is
  nlohmann::ordered_json json;
};

// A row of a run: its report as JSON, with the bench's own part beside it.
Row make_row(const std::string& suite, std::string name, const Report& report);

// All are collective over `world`; the answers count on rank 0 only.
std::vector<Row> bench_kernel(World& world, const Options& options);
std::vector<Row> bench_ring(World& world, const Options& options);
std::vector<Row> bench_overhead(World& world, const Options& options);

// Runs `body` on rank 0 as the one rank of a world of its own, while the others wait.
void on_first_rank(World& world, const std::function<void(World&)>& body);

}  // namespace orrery::launch
