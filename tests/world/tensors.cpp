// Which tensors a bind takes: every layout that shares no byte with what is written, and no other.
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/problem.hpp"
#include "world/tensors.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

Plan plan_of(int world_size) {
  return make_plan(problem_of("causal", 48), Topology::single_node(world_size), {"zigzag", "ring", true});
}

// What a bind on a world of one rank says to tensors that `change` has changed.
std::string said_to(const std::function<void(AttentionTensors&)>& change) {
  std::string said = "nothing";
  const Plan plan = plan_of(1);
  run_in_process(1, {.timeout_seconds = 20}, [&](World& world) {
    const Tensors tensors(plan, 0);
    Attention attention(world, plan);
    const DeviceMemory workspace = poisoned(attention.workspace_bytes());
    AttentionTensors views = tensors.views();
    change(views);
    try {
      attention.bind(views, span_of(workspace));
    } catch (const Error& error) {
      said = concat(static_cast<int>(error.code()), " ", error.what());
    }
    try {
      attention.forward();
      if (said != "nothing") said = "ran after it was refused";
    } catch (const Error&) {
      if (said == "nothing") throw;
    }
  });
  return said;
}

TensorView moved(TensorView view, std::int64_t elements) {
  view.data = static_cast<std::byte*>(view.data) + elements * static_cast<std::int64_t>(size_of(view.dtype));
  return view;
}

}  // namespace

TEST_CASE("what is written shares no byte with another tensor") {
  REQUIRE_THAT(said_to([](AttentionTensors& t) { t.out = t.query; }),
               ContainsSubstring("2 query and out share memory"));
  REQUIRE_THAT(said_to([](AttentionTensors& t) { t.grad_value = t.grad_key; }),
               ContainsSubstring("2 grad_key and grad_value share memory, and grad_key is written"));
  REQUIRE_THAT(said_to([](AttentionTensors& t) { t.grad_out = t.out; }),
               ContainsSubstring("2 out and grad_out share memory, and out is written"));
  REQUIRE_THAT(said_to([](AttentionTensors& t) { t.grad_query = moved(t.query, 4 * 16 * 47 + 63); }),
               ContainsSubstring("2 query and grad_query share memory"));
  REQUIRE_THAT(said_to([](AttentionTensors& t) { t.lse.data = t.key.data; }),
               ContainsSubstring("2 key and lse share memory"));
}

TEST_CASE("what is written has a place for each of its rows") {
  REQUIRE_THAT(said_to([](AttentionTensors& t) { t.out.token_stride = 0; }),
               ContainsSubstring("2 out is written, but its strides (3072, 0, 16) put several of its rows"));
  REQUIRE_THAT(said_to([](AttentionTensors& t) { t.lse.head_stride = 8; }), ContainsSubstring("2 lse is written"));
  REQUIRE_THAT(said_to([](AttentionTensors& t) { t.grad_key.head_stride = 15; }),
               ContainsSubstring("2 grad_key is written"));
}

TEST_CASE("inputs share memory as they like, with themselves too") {
  REQUIRE(said_to([](AttentionTensors& t) { t.value = t.key; }) == "nothing");
  REQUIRE(said_to([](AttentionTensors& t) { t.grad_out = t.query; }) == "nothing");
  REQUIRE(said_to([](AttentionTensors& t) { t.key.token_stride = t.value.head_stride = 0; }) == "nothing");
}

TEST_CASE("the workspace and kept memory share no byte with a tensor or with each other") {
  const Plan plan = plan_of(4);
  std::vector<std::string> said(3);
  run_in_process(4, {.timeout_seconds = 20}, [&](World& world) {
    const Tensors tensors(plan, world.rank());
    Attention attention(world, plan);
    const std::size_t kept = attention.kept_bytes(), bytes = attention.workspace_bytes() - kept;
    const DeviceMemory memory = poisoned(bytes + kept + 64);
    const std::span<std::byte> all = span_of(memory);
    const auto refusal = [&](const AttentionTensors& views, std::span<std::byte> scratch, std::span<std::byte> apart) {
      try {
        attention.bind(views, scratch, apart);
      } catch (const Error& error) {
        return std::string(error.what());
      }
      return std::string("nothing");
    };
    AttentionTensors inside = tensors.views();
    inside.value.data = all.data() + 64;
    const std::vector<std::string> mine = {refusal(inside, all.first(bytes), all.subspan(bytes, kept)),
                                           refusal(tensors.views(), all.first(bytes), all.subspan(bytes - 64, kept)),
                                           refusal(tensors.views(), all.first(bytes), all.subspan(bytes, kept))};
    if (world.rank() == 0) said = mine;
  });
  REQUIRE_THAT(said[0], ContainsSubstring("value and the workspace share memory"));
  REQUIRE_THAT(said[1], ContainsSubstring("the workspace and the kept memory share memory"));
  REQUIRE(said[2] == "nothing");
}

TEST_CASE("tensors packed in one allocation, between each other's rows, are taken and right") {
  const Plan plan = plan_of(3);
  const int heads = plan.problem.heads, kv_heads = plan.problem.kv_heads, width = plan.problem.head_dim;
  std::vector<char> right(3, 0);
  run_in_process(3, {.timeout_seconds = 60}, [&](World& world) {
    const std::int64_t tokens = plan.layout.tokens(world.rank());
    // A token's row: q, k, v, out, do, dq, dk, dv, and the lse of each head.
    const std::int64_t row = (4 * heads + 4 * kv_heads) * width + heads;
    const DeviceMemory memory = poisoned(static_cast<std::size_t>(row * tokens) * sizeof(float));
    std::int64_t at = 0;
    const auto part = [&](int count, std::int64_t wide) {
      auto* data = reinterpret_cast<float*>(memory.data()) + at;
      at += count * wide;
      return TensorView{data, Dtype::fp32, 1, tokens, count, wide, row * tokens, row, wide};
    };
    AttentionTensors t{part(heads, width), part(kv_heads, width), part(kv_heads, width), part(heads, width),   {},
                       part(heads, width), part(heads, width),    part(kv_heads, width), part(kv_heads, width)};
    t.lse = part(heads, 1);
    const auto spans = plan.layout.shard(world.rank());
    generate(t.query, Generated::query, 5, spans);
    generate(t.key, Generated::key, 5, spans);
    generate(t.value, Generated::value, 5, spans);
    generate(t.grad_out, Generated::grad_out, 5, spans);
    Attention attention(world, plan);
    const DeviceMemory workspace = poisoned(attention.workspace_bytes());
    attention.bind(t, span_of(workspace));
    attention.forward();
    attention.backward();
    const Verification v = verify(world, plan, t, true, VerifyMode::full);
    right[static_cast<std::size_t>(world.rank())] = v.wrong == 0 && v.dk_rel_l2 < 1e-5;
  });
  for (char one : right) REQUIRE(one != 0);
}

TEST_CASE("ports name what a rank binds, and tensors that are bound by name give the bits of a structure") {
  const Plan plan = plan_of(2);
  run_in_process(2, {.timeout_seconds = 20}, [&](World& world) {
    const Tensors structured(plan, world.rank()), named(plan, world.rank());
    Attention attention(world, plan);
    const DeviceMemory workspace = poisoned(attention.workspace_bytes());
    attention.bind(structured.views(), span_of(workspace));
    attention.forward();
    attention.backward();

    const AttentionTensors views = named.views();
    const std::vector<NamedTensor> by_name = {{"grad_value", views.grad_value},
                                              {"lse", views.lse},
                                              {"key", views.key},
                                              {"grad_key", views.grad_key},
                                              {"out", views.out},
                                              {"query", views.query},
                                              {"grad_out", views.grad_out},
                                              {"grad_query", views.grad_query},
                                              {"value", views.value}};
    attention.bind(by_name, span_of(workspace));
    attention.forward();
    attention.backward();
    const auto same = [](const OwnedTensor& a, const OwnedTensor& b) {
      const auto bytes = static_cast<std::size_t>(a.view().elements()) * size_of(a.view().dtype);
      return std::memcmp(a.view().data, b.view().data, bytes) == 0;
    };
    if (!same(structured.out, named.out) || !same(structured.lse, named.lse) || !same(structured.dq, named.dq) ||
        !same(structured.dk, named.dk) || !same(structured.dv, named.dv)) {
      fail(ErrorCode::verification, "tensors bound by name give other bits");
    }
    std::string names;
    for (const Port& port : attention.ports()) names += port.name + (port.written() ? "! " : " ");
    if (names != "query key value out! lse! grad_out grad_query! grad_key! grad_value! ") fail(ErrorCode::bug, names);
    if (plan.ports(world.rank()).size() != attention.ports().size()) fail(ErrorCode::bug, "other ports");
  });
}

TEST_CASE("a tensor of no port, one that is given twice, and one that is missing are refused by name") {
  const Plan plan = plan_of(1);
  run_in_process(1, {.timeout_seconds = 20}, [&](World& world) {
    const Tensors tensors(plan, 0);
    Attention attention(world, plan);
    const DeviceMemory workspace = poisoned(attention.workspace_bytes());
    const AttentionTensors t = tensors.views();
    const std::vector<NamedTensor> all = {{"query", t.query},
                                          {"key", t.key},
                                          {"value", t.value},
                                          {"out", t.out},
                                          {"lse", t.lse},
                                          {"grad_out", t.grad_out},
                                          {"grad_query", t.grad_query},
                                          {"grad_key", t.grad_key},
                                          {"grad_value", t.grad_value}};
    const auto said = [&](const std::vector<NamedTensor>& named) -> std::string {
      try {
        attention.bind(named, span_of(workspace));
      } catch (const Error& error) {
        return concat(static_cast<int>(error.code()), " ", error.what());
      }
      return "nothing";
    };
    std::vector<NamedTensor> changed = all;
    changed[1].name = "keys";
    REQUIRE(said(changed) ==
            "2 this plan has no tensor keys; it has query, key, value, out, lse, grad_out, "
            "grad_query, grad_key, grad_value");
    changed[1].name = "query";
    REQUIRE(said(changed) == "2 query is bound twice");
    changed = all;
    changed.pop_back();
    REQUIRE_THAT(said(changed), ContainsSubstring("2 grad_value is not bound; this plan has query, key"));
    changed = all;
    changed[1].tensor.heads = 1;
    REQUIRE_THAT(said(changed), ContainsSubstring("2 key is [1, 48, 1, 16]; this rank's shard is [1, 48, 2, 16]"));
    REQUIRE_THROWS_AS(attention.forward(), Error);
    REQUIRE(said(all) == "nothing");
    attention.forward();
  });
}
