// Ranks that are not about to run the same thing fail together, before the first transfer, and say in what they differ.
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "world/tensors.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

Plan plan_of(std::int64_t seq_len, int world_size, const char* mask = "causal") {
  AttentionProblem problem;
  problem.seq_len = seq_len;
  problem.head_dim = 8;
  problem.mask = Mask::parse(mask, seq_len);
  return make_plan(problem, Topology::single_node(world_size), {"zigzag", "ring"});
}

// The errors that each rank's body threw.
std::vector<std::string> errors(int world_size, const std::function<void(World&)>& body) {
  std::vector<std::string> messages(static_cast<std::size_t>(world_size));
  try {
    run_in_process(world_size, {.timeout_seconds = 20}, [&](World& world) {
      try {
        body(world);
      } catch (const Error& e) {
        messages[static_cast<std::size_t>(world.rank())] = e.what();
      }
    });
  } catch (const Error&) {  // what a link found fails the world; each rank has said what it met
  }
  return messages;
}

}  // namespace

TEST_CASE("ranks with different problems all fail, and name the rank and the field") {
  const auto messages =
      errors(3, [](World& world) { Attention attention(world, plan_of(world.rank() == 2 ? 48 : 64, 3), {}); });
  for (const std::string& m : messages) {
    REQUIRE_THAT(m, ContainsSubstring("rank 2 has seq_len=48 where rank 0 has seq_len=64"));
  }
}

TEST_CASE("a rank that cannot take the plan fails all, by name") {
  const auto messages = errors(3, [](World& world) { Attention attention(world, plan_of(64, 2), {}); });
  for (const std::string& m : messages) REQUIRE_THAT(m, ContainsSubstring("the plan is for 2 ranks, the world has 3"));
}

TEST_CASE("a rank that is a call ahead is found out") {
  const auto messages = errors(2, [](World& world) {
    const Plan plan = plan_of(64, 2);
    const std::int64_t tokens = plan.layout.tokens(world.rank());
    const auto tensor = [&](std::int64_t width) { return OwnedTensor(Dtype::fp32, 1, tokens, 1, width, 0); };
    const OwnedTensor q = tensor(64), k = tensor(64), v = tensor(64), out = tensor(64), lse = tensor(1);
    Attention attention(world, plan, {});
    std::vector<std::byte> memory(attention.workspace_bytes() + 64);
    void* start = memory.data();
    std::size_t space = memory.size();
    std::align(64, 1, start, space);
    const auto narrow = [](TensorView view) {
      if (view.width > 1) view.width = 8;
      return view;
    };
    attention.bind(
        {narrow(q.view()), narrow(k.view()), narrow(v.view()), narrow(out.view()), lse.view(), {}, {}, {}, {}},
        {static_cast<std::byte*>(start), space});
    if (world.rank() == 1) {
      agree_no_error(world, nullptr);  // what rank 0 takes for rank 1's call
    } else {
      attention.forward();
    }
  });
  REQUIRE_THAT(messages[0], ContainsSubstring("rank 1 is not at a run but elsewhere"));
}

TEST_CASE("tensors that are not the shard's are refused, with both shapes") {
  const auto messages = errors(1, [](World& world) {
    Attention attention(world, plan_of(64, 1), {});
    std::vector<std::byte> memory(attention.workspace_bytes() + 64);
    void* start = memory.data();
    std::size_t space = memory.size();
    std::align(64, 1, start, space);
    const OwnedTensor q(Dtype::fp32, 1, 63, 1, 8, 0);
    attention.bind({q.view(), q.view(), q.view(), q.view(), q.view(), {}, {}, {}, {}},
                   {static_cast<std::byte*>(start), space});
  });
  REQUIRE_THAT(messages[0], ContainsSubstring("query is [1, 63, 1, 8]; this rank's shard is [1, 64, 1, 8]"));
}

namespace {

// The errors of ranks that agree at first calls only, and then go different ways.
std::vector<std::string> ways_part(const std::function<void(Attention&, int rank)>& part) {
  AttentionProblem problem;
  problem.seq_len = 96;
  problem.head_dim = 8;
  problem.mask = Mask::parse("full", 96);
  const Plan plan = make_plan(problem, Topology::single_node(2), {"zigzag", "ring", true});
  return errors(2, [&](World& world) {
    const Tensors tensors(plan, world.rank());
    Attention attention(world, plan, {.agree = Agree::first});
    const DeviceMemory workspace = poisoned(attention.workspace_bytes());
    attention.bind(tensors.views(), span_of(workspace));
    attention.forward();
    attention.backward();
    attention.forward();
    part(attention, world.rank());
  });
}

}  // namespace

TEST_CASE("after the first agreement the link finds ranks at different passes, and names both") {
  const auto messages =
      ways_part([](Attention& attention, int rank) { rank == 0 ? attention.forward() : attention.backward(); });
  for (const std::string& m : messages) {
    REQUIRE_THAT(m, ContainsSubstring("the ranks are not at the same call"));
    REQUIRE_THAT(m,
                 ContainsSubstring("rank 0 is at call 3 (forward)") || ContainsSubstring("rank 0 at call 3 (forward)"));
    REQUIRE_THAT(
        m, ContainsSubstring("rank 1 is at call 3 (backward)") || ContainsSubstring("rank 1 at call 3 (backward)"));
  }
}

TEST_CASE("an objection of one rank to the options fails all ranks, with its code and by name") {
  const auto messages = errors(
      3, [](World& world) { Attention attention(world, plan_of(64, 3), {.threads = world.rank() == 1 ? 5000 : 1}); });
  for (const std::string& m : messages) REQUIRE_THAT(m, ContainsSubstring("rank 1: a thread pool has"));
}

TEST_CASE("plans are compared by their hashes, and few bytes travel when they are the same") {
  // A world that counts what is gathered.
  class Counting final : public World {
   public:
    explicit Counting(World& inner) : inner_(inner) {}
    int rank() const override { return inner_.rank(); }
    const Topology& topology() const override { return inner_.topology(); }
    double timeout_seconds() const override { return inner_.timeout_seconds(); }
    std::string_view link_name() const override { return inner_.link_name(); }
    Records all_gather(std::span<const std::byte> mine) override {
      bytes += mine.size();
      return inner_.all_gather(mine);
    }
    Link& link() override { return inner_.link(); }
    StreamLink& stream_link(Device device, int lanes) override { return inner_.stream_link(device, lanes); }
    void abort(ErrorCode code, std::string_view message) noexcept override { inner_.abort(code, message); }

    std::size_t bytes = 0;

   private:
    World& inner_;
  };
  std::string mask = "causal+documents:1";
  for (int i = 0; i < 4999; ++i) mask += ",1";
  const Plan plan = plan_of(5000, 3, mask.c_str());
  REQUIRE(plan.text().size() > 10000);
  std::vector<std::size_t> bytes(3, 0);
  run_in_process(3, {.timeout_seconds = 20}, [&](World& world) {
    Counting counting(world);
    const Attention attention(counting, plan, {});
    bytes[static_cast<std::size_t>(world.rank())] = counting.bytes;
  });
  for (std::size_t one : bytes) REQUIRE(one < 200);
}
