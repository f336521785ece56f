// Faults that one rank's program shows by itself are refused before anything runs.
#include "orrery/error.hpp"
#include "orrery/plan.hpp"
#include "support/catch.hpp"

using namespace orrery;

namespace {

struct Example {
  AttentionProblem problem;
  RankProgram program;

  Example() {
    problem.seq_len = 16;
    problem.heads = 4;
    problem.kv_heads = 2;
    problem.head_dim = 8;
    problem.mask = Mask::causal(16);
    program = make_plan(problem, Topology::single_node(2), {"zigzag", "ring", true}).program(0, Pass::forward);
  }
  template <typename StepKind>
  StepKind& first() {
    for (Step& s : program.steps) {
      if (auto* step = std::get_if<StepKind>(&s)) return *step;
    }
    throw std::logic_error("no such step");
  }
  std::string fault() const {
    try {
      validate(program, problem);
    } catch (const Error& e) {
      REQUIRE(e.code() == ErrorCode::bug);
      return e.what();
    }
    return "";
  }
};

}  // namespace

TEST_CASE("a good program has no fault") {
  REQUIRE(Example().fault() == "");
}

TEST_CASE("each structural fault is named, with rank and step") {
  using test::ContainsSubstring;
  Example e;
  e.first<Attend>().query.tokens += 100;
  REQUIRE_THAT(e.fault(), ContainsSubstring("[rank 0/2] forward step 3"));
  REQUIRE_THAT(e.fault(), ContainsSubstring("outside of"));

  e = {};
  e.first<Attend>().query_spans.pop_back();
  REQUIRE_THAT(e.fault(), ContainsSubstring("query spans hold"));

  e = {};
  e.first<Attend>().key_value = e.first<Attend>().query;
  REQUIRE_THAT(e.fault(), ContainsSubstring("is not a key_value"));

  e = {};
  e.first<Attend>().key_value.heads = 1;
  REQUIRE_THAT(e.fault(), ContainsSubstring("the group is 2"));

  e = {};
  e.program.buffers[0].space = RowSpace::entries;
  REQUIRE_THAT(e.fault(), ContainsSubstring("rows of entries"));

  e = {};
  e.first<Exchange>().sends[0].peer = 2;
  REQUIRE_THAT(e.fault(), ContainsSubstring("no rank 2"));

  e = {};
  e.first<Exchange>().sends[0].peer = 0;
  REQUIRE_THAT(e.fault(), ContainsSubstring("to the rank itself"));

  e = {};
  e.first<Exchange>().lane = -1;
  REQUIRE_THAT(e.fault(), ContainsSubstring("lane -1 of a program with 1"));

  e = {};
  e.first<Exchange>().lane = 1;
  REQUIRE_THAT(e.fault(), ContainsSubstring("lane 1 of a program with 1"));

  e = {};
  e.first<Exchange>().sends[0].slice = e.first<Exchange>().receives[0].slice;
  REQUIRE_THAT(e.fault(), ContainsSubstring("receives into what it sends"));

  e = {};
  e.first<Exchange>().receives[0].slice = e.first<Exchange>().sends[0].slice;
  REQUIRE_THAT(e.fault(), ContainsSubstring("writes the input"));

  e = {};
  e.first<Apply>().at("into").buffer = 99;
  REQUIRE_THAT(e.fault(), ContainsSubstring("no buffer 99"));

  e = {};
  std::get<Apply>(e.program.steps.back()).at("into").tokens -= 1;
  REQUIRE_THAT(e.fault(), ContainsSubstring("differ in shape"));
}
