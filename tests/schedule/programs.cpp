// Programs written by hand are proved like any other, and their faults are found.
#include "orrery/check.hpp"
#include "schedule/naive.hpp"
#include "schedule/programs_by_hand.hpp"
#include "support/catch.hpp"
#include "support/problem.hpp"

using namespace orrery;

namespace {

bool found(const std::vector<Finding>& findings, Fault fault) {
  for (const Finding& f : findings) {
    if (f.fault == fault) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("queries that move and partial states that are merged at home are proved") {
  for (const char* mask : {"full", "causal", "causal+window:7", "documents:9,20,8"}) {
    for (const char* layout_name : {"contiguous", "zigzag", "striped"}) {
      for (int world : {1, 2, 3, 5}) {
        const AttentionProblem problem = test::problem_of(mask, 37, {2, 1, 4});
        const Layout layout = Layout::make(layout_name, problem.mask, world);
        INFO(mask << " " << layout_name << " P=" << world);
        REQUIRE(check(problem, layout, test::pass_query(problem, layout), {}).empty());
      }
    }
  }
}

TEST_CASE("a partial state that is merged twice, or by the wrong rank, is found") {
  const AttentionProblem problem = test::problem_of("full", 24, {2, 1, 4});
  const Layout layout = Layout::make("contiguous", problem.mask, 3);
  auto programs = test::pass_query(problem, layout);
  auto& steps = programs[1].steps;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (applying(steps[i], Operation::merge) == nullptr) continue;
    steps.insert(steps.begin() + static_cast<std::ptrdiff_t>(i), steps[i]);
    break;
  }
  REQUIRE(found(check(problem, layout, programs, {}), Fault::repeated));

  programs = test::pass_query(problem, layout);
  for (Step& step : programs[0].steps) {
    if (auto* exchange = std::get_if<Exchange>(&step); exchange != nullptr && exchange->receives.size() == 2) {
      std::swap(exchange->receives[0].slice, exchange->receives[1].slice);
    }
  }
  REQUIRE_FALSE(check(problem, layout, programs, {}).empty());
}

namespace {

constexpr Scan kScans[] = {Scan::exclusive, Scan::inclusive, Scan::exclusive_reversed, Scan::inclusive_reversed};

// Programs of one scan that claim to be another.
std::vector<RankProgram> claiming(std::vector<RankProgram> programs, Scan claim) {
  for (RankProgram& program : programs) {
    for (Buffer& b : program.buffers) {
      if (b.role == BufferRole::output) b.scan = claim;
    }
  }
  return programs;
}

}  // namespace

TEST_CASE("scans are proved over any chunks, zigzag too, exclusive and inclusive, in either direction") {
  const AttentionProblem problem = test::problem_of("causal", 24, {2, 1, 4});
  for (const char* layout_name : {"contiguous", "zigzag", "striped:2"}) {
    for (int world : {1, 2, 3, 5}) {
      const Layout layout = Layout::make(layout_name, problem.mask, world);
      for (Scan scan : kScans) {
        INFO(layout_name << " P=" << world << " " << to_string(scan));
        const auto programs = test::scan(problem, layout, 2, scan);
        std::string found_all;
        for (const Finding& f : check(problem, layout, programs, {}, {.needless = false}))
          found_all += to_text(f) + "\n";
        REQUIRE(found_all == "");
        REQUIRE(check(problem, layout, programs, {}).empty());
        REQUIRE(test::naive_is_right(problem, layout, programs, {}));
      }
    }
  }
}

TEST_CASE("a scan that is not the one it claims to be is found: inclusive for exclusive, one direction for the other") {
  const AttentionProblem problem = test::problem_of("causal", 24, {2, 1, 4});
  for (const char* layout_name : {"contiguous", "zigzag"}) {
    const Layout layout = Layout::make(layout_name, problem.mask, 3);
    for (Scan scan : kScans) {
      for (Scan claim : kScans) {
        if (scan == claim) continue;
        INFO(layout_name << " " << to_string(scan) << " claims " << to_string(claim));
        REQUIRE(found(check(problem, layout, claiming(test::scan(problem, layout, 2, scan), claim), {}), Fault::wrong));
      }
    }
  }
  const Layout layout = Layout::make("contiguous", problem.mask, 3);
  const auto findings =
      check(problem, layout, claiming(test::scan(problem, layout, 2, Scan::inclusive), Scan::exclusive), {});
  REQUIRE(to_text(findings.at(1)) ==
          "wrong: forward rank 1: result[0:1]h[0:2] composes positions 0 to 15, where its exclusive scan is positions "
          "0 to 7");
}

TEST_CASE("a scan over rows whose positions alternate with other ranks' is found") {
  const AttentionProblem problem = test::problem_of("causal", 8, {2, 1, 4});
  const Layout layout = Layout::make("striped", problem.mask, 2);
  REQUIRE(found(check(problem, layout, test::scan(problem, layout, 2, Scan::inclusive), {}), Fault::wrong));
}

TEST_CASE("a scan composed out of order, with another head's states, or not at all, is found") {
  const AttentionProblem problem = test::problem_of("causal", 8, {2, 1, 4});
  const Layout layout = Layout::make("contiguous", problem.mask, 3);
  const auto compose_of = [](RankProgram& program) -> Apply& {
    for (Step& step : program.steps) {
      if (Apply* compose = applying(step, Operation::compose)) return *compose;
    }
    throw std::logic_error("no such step");
  };
  auto programs = test::scan(problem, layout, 2, Scan::inclusive);
  Apply& swapped = compose_of(programs[2]);
  std::swap(swapped.at("into"), swapped.at("earlier"));
  REQUIRE(found(check(problem, layout, programs, {}), Fault::wrong));

  programs = test::scan(problem, layout, 2, Scan::inclusive);
  compose_of(programs[2]).at("earlier").heads = compose_of(programs[2]).at("into").heads = 1;
  compose_of(programs[2]).at("earlier").head_begin = 1;
  REQUIRE(found(check(problem, layout, programs, {}), Fault::wrong));

  programs = test::scan(problem, layout, 2, Scan::inclusive);
  std::erase_if(programs[1].steps, [](const Step& s) { return applying(s, Operation::compose) != nullptr; });
  REQUIRE(found(check(problem, layout, programs, {}), Fault::wrong));
}
