// Programs written by hand, on real memory: partial states merged after queries moved, and ordered scans, forward and
// reversed. The same programs are proved in tests/schedule/programs.cpp.
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "backend/host/host_backend.hpp"
#include "kernels/host/reference.hpp"
#include "orrery/executor.hpp"
#include "orrery/generate.hpp"
#include "schedule/programs_by_hand.hpp"
#include "support/catch.hpp"
#include "support/groups.hpp"
#include "support/problem.hpp"
#include "support/strategies.hpp"
#include "world/sharded.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

// Runs one rank's program; `bound` gives the tensors of its inputs and outputs by name.
void run_program(World& world, const AttentionProblem& problem, const RankProgram& program,
                 const std::map<std::string, BufferMemory>& bound, double timeout_seconds = 30) {
  const RankProgram* programs[] = {&program};
  const Arena arena(problem, programs);
  std::vector<std::byte> bytes(arena.bytes() + host::HostBackend::scratch_bytes(problem, program, 1) + 64,
                               std::byte{0xff});
  void* start = bytes.data();
  std::size_t space = bytes.size();
  std::align(64, 1, start, space);
  auto* base = static_cast<std::byte*>(start);
  std::vector<BufferMemory> memory;
  for (std::size_t i = 0; i < program.buffers.size(); ++i) {
    const auto tensors = bound.find(program.buffers[i].name);
    memory.push_back(tensors != bound.end() ? tensors->second : arena.place(0, static_cast<int>(i), base, nullptr));
  }
  ThreadPool pool(1);
  const Dependencies dependencies(program);
  host::HostBackend backend(problem, program, dependencies, memory, std::span(base, space).subspan(arena.bytes()),
                            world.link(), pool, timeout_seconds);
  Executor(program, backend).run();
}

}  // namespace

TEST_CASE("queries move, partial states come back and are merged: the result is attention") {
  for (const char* mask : {"full", "causal", "causal+window:19", "documents:30,0,41"}) {
    for (int world_size : {1, 2, 3, 5}) {
      const AttentionProblem problem = problem_of(mask, 71, {4, 2, 8});
      const Layout layout = Layout::make("zigzag", problem.mask, world_size);
      const auto programs = pass_query(problem, layout);
      const Plan plan = make_plan(problem, Topology::single_node(world_size), {"zigzag", "ring"});
      run_in_process(world_size, {.timeout_seconds = 60}, [&](World& world) {
        const int rank = world.rank();
        const std::int64_t tokens = layout.tokens(rank);
        const auto tensor = [&](int heads, std::int64_t width) {
          return OwnedTensor(Dtype::fp32, 1, tokens, heads, width, 0);
        };
        const OwnedTensor q = tensor(4, 8), k = tensor(2, 8), v = tensor(2, 8), out = tensor(4, 8), lse = tensor(4, 1);
        generate(q.view(), Generated::query, 7, layout.shard(rank));
        generate(k.view(), Generated::key, 7, layout.shard(rank));
        generate(v.view(), Generated::value, 7, layout.shard(rank));
        run_program(world, problem, programs[static_cast<std::size_t>(rank)],
                    {{"query", {q.view()}}, {"key_value", {k.view(), v.view()}}, {"output", {out.view(), lse.view()}}});
        const AttentionTensors tensors{q.view(), k.view(), v.view(), out.view(), lse.view(), {}, {}, {}, {}};
        const Verification result = verify(world, plan, tensors, false, VerifyMode::full);
        if (rank == 0) {
          INFO(mask << " P=" << world_size << " " << result.worst);
          REQUIRE(result.wrong == 0);
          REQUIRE(result.out_rel_l2 < 1e-5);
          REQUIRE(result.lse_max_abs < 1e-5);
        }
      });
    }
  }
}

TEST_CASE("a fused program gives the bits of the program that it was made from") {
  for (const std::string& strategy : strategy_names()) {
    for (int world_size : {1, 2, 3}) {
      const AttentionProblem problem = problem_of("causal+documents:30,0,41", 71, {4, 2, 8});
      const Plan plan =
          make_plan(problem, Topology::single_node(world_size), {"zigzag", with(strategy, "keep", "no"), true});
      run_in_process(world_size, {.timeout_seconds = 60}, [&](World& world) {
        const int rank = world.rank();
        const auto tensor = [&](int heads, std::int64_t width) {
          return OwnedTensor(Dtype::fp32, 1, plan.layout.tokens(rank), heads, width, 0);
        };
        struct Results {
          OwnedTensor out, lse, dq, dk, dv;
        };
        const OwnedTensor q = tensor(4, 8), k = tensor(2, 8), v = tensor(2, 8), grad_out = tensor(4, 8);
        generate(q.view(), Generated::query, 7, plan.layout.shard(rank));
        generate(k.view(), Generated::key, 7, plan.layout.shard(rank));
        generate(v.view(), Generated::value, 7, plan.layout.shard(rank));
        generate(grad_out.view(), Generated::grad_out, 7, plan.layout.shard(rank));
        const auto run = [&](bool fused) {
          Results r{tensor(4, 8), tensor(4, 1), tensor(4, 8), tensor(2, 8), tensor(2, 8)};
          for (Pass pass : {Pass::forward, Pass::backward}) {
            const RankProgram program = plan.program(rank, pass);
            run_program(world, problem, fused ? fuse(program) : program,
                        {{"query", {q.view()}},
                         {"key_value", {k.view(), v.view()}},
                         {"grad_output", {grad_out.view()}},
                         {"output", {r.out.view(), r.lse.view()}},
                         {"grad_query", {r.dq.view()}},
                         {"grad_key_value", {r.dk.view(), r.dv.view()}}});
          }
          return r;
        };
        const Results planned = run(false), fused = run(true);
        const auto same = [](const OwnedTensor& a, const OwnedTensor& b) {
          const std::size_t bytes = static_cast<std::size_t>(a.view().elements()) * sizeof(float);
          return std::memcmp(a.view().data, b.view().data, bytes) == 0;
        };
        if (!same(planned.out, fused.out) || !same(planned.lse, fused.lse) || !same(planned.dq, fused.dq) ||
            !same(planned.dk, fused.dk) || !same(planned.dv, fused.dv)) {
          throw std::runtime_error("the fused program gives other bits");
        }
      });
    }
  }
}

TEST_CASE("attends by masks of the program's own give the attention of the problem's mask, in both passes") {
  const AttentionProblem problem = problem_of("causal", 71, {4, 2, 8});
  const Plan plan = make_plan(problem, Topology::single_node(1), {"contiguous", "ring", true});
  run_in_process(1, {.timeout_seconds = 60}, [&](World& world) {
    const auto tensor = [&](int heads, std::int64_t width) { return OwnedTensor(Dtype::fp32, 1, 71, heads, width, 0); };
    const OwnedTensor q = tensor(4, 8), k = tensor(2, 8), v = tensor(2, 8), out = tensor(4, 8), lse = tensor(4, 1);
    const OwnedTensor grad_out = tensor(4, 8), dq = tensor(4, 8), dk = tensor(2, 8), dv = tensor(2, 8);
    generate(q.view(), Generated::query, 7, plan.layout.shard(0));
    generate(k.view(), Generated::key, 7, plan.layout.shard(0));
    generate(v.view(), Generated::value, 7, plan.layout.shard(0));
    generate(grad_out.view(), Generated::grad_out, 7, plan.layout.shard(0));
    for (Pass pass : {Pass::forward, Pass::backward}) {
      run_program(world, problem, by_two_masks(problem, 30, "causal+documents:30,41", pass),
                  {{"query", {q.view()}},
                   {"key_value", {k.view(), v.view()}},
                   {"grad_output", {grad_out.view()}},
                   {"output", {out.view(), lse.view()}},
                   {"grad_query", {dq.view()}},
                   {"grad_key_value", {dk.view(), dv.view()}}});
    }
    const AttentionTensors tensors{q.view(),        k.view(),  v.view(),  out.view(), lse.view(),
                                   grad_out.view(), dq.view(), dk.view(), dv.view()};
    const Verification result = verify(world, plan, tensors, true, VerifyMode::full);
    INFO(result.worst);
    REQUIRE(result.wrong == 0);
    REQUIRE(result.dk_rel_l2 < 1e-5);
  });
}

TEST_CASE("where the checker finds a deadlock, the host backend runs into its deadline") {
  const AttentionProblem problem = problem_of("full", 24, {4, 2, 8});
  const Layout layout = Layout::make("contiguous", problem.mask, 2);
  const auto programs = crossed_lanes(problem, layout);  // proved to deadlock in tests/schedule/orders.cpp
  const auto run = [&] {
    run_in_process(2, {.timeout_seconds = 60}, [&](World& world) {
      const auto tensor = [&](int heads, std::int64_t width) {
        return OwnedTensor(Dtype::fp32, 1, 12, heads, width, 0);
      };
      const OwnedTensor q = tensor(4, 8), k = tensor(2, 8), v = tensor(2, 8), out = tensor(4, 8), lse = tensor(4, 1);
      run_program(world, problem, programs[static_cast<std::size_t>(world.rank())],
                  {{"query", {q.view()}}, {"key_value", {k.view(), v.view()}}, {"output", {out.view(), lse.view()}}},
                  0.2);
    });
  };
  try {
    run();
    FAIL("it came to its end");
  } catch (const Error& error) {
    REQUIRE(error.code() == ErrorCode::peer);
  }
}

TEST_CASE("an ordered scan over the ranks composes decayed states, forward and reversed") {
  const AttentionProblem problem = problem_of("causal", 16, {4, 2, 8});
  const int d = problem.head_dim, heads = 2;
  for (bool reversed : {false, true}) {
    for (int world_size : {1, 2, 5}) {
      const auto programs = scan(problem, Layout::make("contiguous", problem.mask, world_size), heads,
                                 reversed ? Scan::inclusive_reversed : Scan::inclusive);
      const auto decay_of = [&](int rank, int row) { return 0.5f + 0.05f * static_cast<float>((rank + row) % 7); };
      const auto matrix_of = [&](int rank, int i) { return std::sin(static_cast<float>(rank * 131 + i)); };
      run_in_process(world_size, {.timeout_seconds = 60}, [&](World& world) {
        const OwnedTensor matrix(Dtype::fp32, 1, 1, heads, d * d, 0), decay(Dtype::fp32, 1, 1, heads, d, 0),
            result(Dtype::fp32, 1, 1, heads, d * d, 0), result_decay(Dtype::fp32, 1, 1, heads, d, 0);
        for (int h = 0; h < heads; ++h) {
          for (int i = 0; i < d * d; ++i)
            static_cast<float*>(matrix.view().data)[h * d * d + i] = matrix_of(world.rank(), i);
          for (int i = 0; i < d; ++i) static_cast<float*>(decay.view().data)[h * d + i] = decay_of(world.rank(), i);
        }
        run_program(world, problem, programs[static_cast<std::size_t>(world.rank())],
                    {{"own", {matrix.view(), decay.view()}}, {"result", {result.view(), result_decay.view()}}});
        // S = S_r + a_r (S_{r-1} + a_{r-1} (...)), innermost the first rank of the scan.
        std::vector<double> expected(static_cast<std::size_t>(d * d), 0.0);
        const int first = reversed ? world_size - 1 : 0, step = reversed ? -1 : 1;
        for (int r = first; r != world.rank() + step; r += step) {
          for (int i = 0; i < d * d; ++i) {
            auto& e = expected[static_cast<std::size_t>(i)];
            e = static_cast<double>(decay_of(r, i / d)) * e + static_cast<double>(matrix_of(r, i));
          }
        }
        double worst = 0;
        for (int i = 0; i < heads * d * d; ++i) {
          worst = std::max(worst, std::abs(static_cast<float*>(result.view().data)[i] -
                                           expected[static_cast<std::size_t>(i % (d * d))]));
        }
        if (!(worst < 1e-5)) fail(ErrorCode::verification, "scan of rank ", world.rank(), " is off by ", worst);
      });
    }
  }
}

TEST_CASE("rings over ranks in another order, and over two groups of one world, match float64 in both passes") {
  struct Case {
    const char* layout;
    const char* mask;
    std::vector<Group> groups;
  };
  const Case cases[] = {
      {"zigzag", "causal", {Group(5, {3, 0, 4, 2, 1})}},
      {"striped", "full", {Group(5, {1, 3, 0, 2, 4})}},
      {"contiguous", "causal+documents:30,45", {Group(5, {1, 0}), Group(5, {4, 2, 3})}},
  };
  for (const std::string& strategy : {std::string("ring:keep=no"), ring_with(30, 30, false), std::string("gather")}) {
    for (const Case& c : cases) {
      const AttentionProblem problem = problem_of(c.mask, 75, {4, 2, 8});
      const Plan plan = make_plan(problem, Topology::single_node(5), {c.layout, strategy, true});
      const std::vector<RankProgram> passes[] = {programs_over(plan, c.groups, Pass::forward),
                                                 programs_over(plan, c.groups, Pass::backward)};
      run_in_process(5, {.timeout_seconds = 60}, [&](World& world) {
        const int rank = world.rank();
        const Tensors own(plan, rank);
        for (const std::vector<RankProgram>& programs : passes) {
          run_program(world, problem, programs[static_cast<std::size_t>(rank)],
                      {{"query", {own.q.view()}},
                       {"key_value", {own.k.view(), own.v.view()}},
                       {"grad_output", {own.grad_out.view()}},
                       {"output", {own.out.view(), own.lse.view()}},
                       {"grad_query", {own.dq.view()}},
                       {"grad_key_value", {own.dk.view(), own.dv.view()}}});
        }
        const Verification result = verify(world, plan, own.views(), true, VerifyMode::full);
        if (rank == 0) {
          INFO(strategy << " " << c.layout << " " << c.mask << ": " << result.worst);
          REQUIRE(result.right());
          REQUIRE(result.rows > 0);
        }
      });
    }
  }
}
