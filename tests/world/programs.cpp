// Programs written by hand, on real memory: partial states merged after queries moved, and ordered scans, forward and
// reversed. The same programs are proved in tests/schedule/programs.cpp.
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "backend/host/host_backend.hpp"
#include "kernels/host/reference.hpp"
#include "orrery/executor.hpp"
#include "orrery/generate.hpp"
#include "schedule/programs_by_hand.hpp"
#include "support/catch.hpp"
#include "world/sharded.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

// Runs one rank's program; `bound` gives the tensors of its inputs and outputs by name.
void run_program(World& world, const AttentionProblem& problem, const RankProgram& program,
                 const std::map<std::string, BufferMemory>& bound) {
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
    memory.push_back(tensors != bound.end() ? tensors->second : arena.place(0, static_cast<int>(i), base));
  }
  ThreadPool pool(1);
  const Dependencies dependencies(program);
  host::HostBackend backend(problem, program, dependencies, memory, std::span(base, space).subspan(arena.bytes()),
                            world.link(), pool, 30);
  Executor(program, backend).run();
}

AttentionProblem problem_of(std::int64_t seq_len, const char* mask) {
  AttentionProblem problem;
  problem.seq_len = seq_len;
  problem.heads = 4;
  problem.kv_heads = 2;
  problem.head_dim = 8;
  problem.mask = Mask::parse(mask, seq_len);
  return problem;
}

}  // namespace

TEST_CASE("queries move, partial states come back and are merged: the result is attention") {
  for (const char* mask : {"full", "causal", "causal+window:19", "documents:30,0,41"}) {
    for (int world_size : {1, 2, 3, 5}) {
      const AttentionProblem problem = problem_of(71, mask);
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

TEST_CASE("an ordered scan over the ranks composes decayed states, forward and reversed") {
  const AttentionProblem problem = problem_of(16, "causal");
  const int d = problem.head_dim, heads = 2;
  for (bool reversed : {false, true}) {
    for (int world_size : {1, 2, 5}) {
      const auto programs = scan(world_size, heads, reversed);
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
