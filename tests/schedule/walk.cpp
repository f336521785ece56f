// Two clients of the walk beside the checker: one that counts messages, and a clock on which every block takes a unit
// of time and every message as many as one says.
#include "executor/walk.hpp"

#include <algorithm>
#include <queue>
#include <tuple>

#include "orrery/plan.hpp"
#include "support/catch.hpp"

using namespace orrery;

namespace {

std::vector<RankProgram> ring(int world_size, const char* mask = "full") {
  AttentionProblem problem;
  problem.seq_len = 4 * world_size;
  problem.heads = problem.kv_heads = 1;
  problem.mask = Mask::parse(mask, problem.seq_len);
  const Plan plan = make_plan(problem, Topology::single_node(world_size), {"contiguous", "ring"});
  std::vector<RankProgram> programs;
  programs.reserve(static_cast<std::size_t>(world_size));
  for (int rank = 0; rank < world_size; ++rank) programs.push_back(plan.program(rank, Pass::forward));
  return programs;
}

const Step& step_of(const std::vector<RankProgram>& programs, int rank, int step) {
  return programs[static_cast<std::size_t>(rank)].steps[static_cast<std::size_t>(step)];
}

// Done at once; notes what it was told.
struct Counter final : Walk::Client {
  const std::vector<RankProgram>& programs;
  std::vector<Walk::Message> messages;
  std::vector<std::pair<int, int>> begun, completed;
  Walk walk;

  explicit Counter(const std::vector<RankProgram>& p, const Order& order = kProgramOrder)
      : programs(p), walk(p, {order}, *this) {}
  void begin(int rank, int step) override {
    begun.emplace_back(rank, step);
    if (!std::holds_alternative<Exchange>(step_of(programs, rank, step))) walk.done(rank, step);
  }
  void meet(const Walk::Message& message) override {
    messages.push_back(message);
    walk.done(message);
  }
  void complete(int rank, int step) override { completed.emplace_back(rank, step); }
};

// Attends take a unit of time, of which a rank computes one after the other; messages take `message` units and do not
// share their links; all else takes none.
class Clock final : public Walk::Client {
 public:
  Clock(const std::vector<RankProgram>& programs, const Order& order, double message)
      : programs_(programs), message_(message), walk_(programs, {order}, *this) {}

  double run() {
    for (walk_.advance(); !events_.empty(); walk_.advance()) {
      const Event event = events_.top();
      events_.pop();
      now_ = event.time;
      walk_.done(event.rank, event.step);
    }
    REQUIRE(walk_.complete());
    return now_;
  }

 private:
  struct Event {
    double time;
    int rank, step;
    bool operator>(const Event& other) const { return time > other.time; }
  };

  void begin(int rank, int step) override {
    const Step& s = step_of(programs_, rank, step);
    if (!std::holds_alternative<Exchange>(s)) events_.push({now_ + std::holds_alternative<Attend>(s), rank, step});
  }
  void meet(const Walk::Message& m) override {
    for (const Walk::End& end : {m.send, m.receive}) events_.push({now_ + message_, end.rank, end.step});
  }

  const std::vector<RankProgram>& programs_;
  double message_, now_ = 0;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  Walk walk_;
};

}  // namespace

TEST_CASE("a client is told of every step once, and of every message with the n-th send and the n-th receive") {
  const int world_size = 5;
  const std::vector<RankProgram> programs = ring(world_size);
  for (const Order& order : {kLanesFree, kProgramOrder}) {
    Counter counter(programs, order);
    counter.walk.advance();
    REQUIRE(counter.walk.complete());
    REQUIRE(counter.messages.size() == world_size * (world_size - 1));

    std::vector<std::pair<int, int>> all;
    for (const RankProgram& program : programs) {
      for (int step = 0; step < static_cast<int>(program.steps.size()); ++step) all.emplace_back(program.rank, step);
    }
    for (auto* told : {&counter.begun, &counter.completed}) {
      std::sort(told->begin(), told->end());
      REQUIRE(*told == all);
    }
    std::map<std::tuple<int, int>, std::pair<int, int>> last;  // of the messages between two ranks, the steps
    for (const auto& [send, receive] : counter.messages) {
      REQUIRE(std::get<Exchange>(step_of(programs, send.rank, send.step)).sends[send.index].peer == receive.rank);
      REQUIRE(std::get<Exchange>(step_of(programs, receive.rank, receive.step)).receives[receive.index].peer ==
              send.rank);
      auto& [last_send, last_receive] = last.try_emplace({send.rank, receive.rank}, -1, -1).first->second;
      REQUIRE((send.step > last_send && receive.step > last_receive));
      last_send = send.step;
      last_receive = receive.step;
    }
  }
}

TEST_CASE("on a clock a ring takes as long as its computation or its messages, and in program order as both") {
  for (const int world_size : {2, 3, 8}) {
    const std::vector<RankProgram> programs = ring(world_size);
    const int steps = world_size - 1;
    for (const double message : {0.25, 1.0, 3.0}) {
      INFO(world_size << " ranks, messages of " << message);
      for (const Order& order : {kLanesFree, kHostOrder, kNcclOrder}) {
        INFO(order.name);
        REQUIRE(Clock(programs, order, message).run() == 1 + steps * std::max(1.0, message));
      }
      REQUIRE(Clock(programs, kProgramOrder, message).run() == world_size + steps * message);
    }
  }
}

TEST_CASE("a walk that stands still says where each rank stands and what it waits for") {
  std::vector<RankProgram> programs = ring(2);
  std::erase_if(programs[1].steps, [](const Step& step) { return std::holds_alternative<Exchange>(step); });
  Counter counter(programs);
  counter.walk.advance();
  REQUIRE_FALSE(counter.walk.complete());
  REQUIRE(counter.walk.stands_at(0) == 0);
  REQUIRE_FALSE(counter.walk.stands_at(1));
  const auto waiting = counter.walk.waiting();
  REQUIRE(waiting.size() == 2);
  REQUIRE((waiting[0].from == 0 && waiting[0].to == 1 && waiting[0].sends));
  REQUIRE((waiting[1].from == 1 && waiting[1].to == 0 && !waiting[1].sends));
}

TEST_CASE("what is done twice, or before it began, is a bug of the client") {
  const std::vector<RankProgram> programs = ring(2);
  Counter counter(programs);
  REQUIRE_THROWS_WITH(counter.walk.done(0, 0), test::ContainsSubstring("rank 0 step 0 has no part to be done"));
  counter.walk.advance();
  REQUIRE_THROWS_WITH(counter.walk.done(0, 0), test::ContainsSubstring("rank 0 step 0 has no part to be done"));
}
