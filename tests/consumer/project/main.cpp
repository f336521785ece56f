// Orrery as a library: causal attention, forward and backward, over a sequence that two ranks share. The ranks are
// threads of this process; under mpirun, open_mpi_world() gives each process its world and the rest stays the same.
#include <cstdio>
#include <cstdlib>
#include <span>
#include <vector>

#include "orrery/orrery.hpp"

using namespace orrery;

namespace {

// One rank's tensors, with room for a tensor of each kind, and how a caller describes them.
struct Shard {
  Shard(const AttentionProblem& p, std::int64_t tokens)
      : batch(p.batch),
        n(tokens),
        query(size(p.heads, p)),
        key(size(p.kv_heads, p)),
        value(key),
        out(query),
        grad_out(query),
        grad_query(query),
        grad_key(key),
        grad_value(key),
        lse(static_cast<std::size_t>(p.batch * p.heads * tokens)) {
    const auto dense = [&](std::vector<float>& v, int heads) {
      return TensorView::dense(v.data(), Dtype::fp32, batch, n, heads, p.head_dim);
    };
    views = {.query = dense(query, p.heads),
             .key = dense(key, p.kv_heads),
             .value = dense(value, p.kv_heads),
             .out = dense(out, p.heads),
             .lse = TensorView::rows(lse.data(), batch, p.heads, n),
             .grad_out = dense(grad_out, p.heads),
             .grad_query = dense(grad_query, p.heads),
             .grad_key = dense(grad_key, p.kv_heads),
             .grad_value = dense(grad_value, p.kv_heads)};
  }
  std::size_t size(int heads, const AttentionProblem& p) const {
    return static_cast<std::size_t>(batch * n * heads * p.head_dim);
  }

  std::int64_t batch, n;
  std::vector<float> query, key, value, out, grad_out, grad_query, grad_key, grad_value, lse;
  AttentionTensors views;
};

}  // namespace

int main() {
  AttentionProblem problem;
  problem.seq_len = 1000;
  problem.heads = 4;
  problem.kv_heads = 2;
  problem.head_dim = 32;
  problem.mask = Mask::causal(problem.seq_len);

  std::int64_t wrong = -1;
  run_in_process(2, {.timeout_seconds = 60}, [&](World& world) {
    Attention attention(world, make_plan(problem, world.topology(), {.backward = true}));
    const std::vector<Span> positions = attention.plan().layout.shard(world.rank());
    Shard shard(problem, token_count(positions));
    generate(shard.views.query, Generated::query, 1, positions);
    generate(shard.views.key, Generated::key, 1, positions);
    generate(shard.views.value, Generated::value, 1, positions);
    generate(shard.views.grad_out, Generated::grad_out, 1, positions);

    const std::size_t bytes = (attention.workspace_bytes() + 63) / 64 * 64;
    auto* workspace = static_cast<std::byte*>(std::aligned_alloc(64, bytes));
    attention.bind(shard.views, {workspace, bytes});
    attention.forward();
    attention.backward();

    const Verification v = verify(world, attention.plan(), shard.views, true, VerifyMode::full);
    if (world.rank() == 0) {
      wrong = v.wrong;
      std::printf("%s, %lld rows: out %.1e, dq %.1e, dk %.1e, dv %.1e from float64; %lld wrong\n",
                  attention.plan().text().c_str(), static_cast<long long>(v.rows), v.out_rel_l2, v.dq_rel_l2,
                  v.dk_rel_l2, v.dv_rel_l2, static_cast<long long>(v.wrong));
    }
    std::free(workspace);
  });
  return wrong == 0 ? 0 : 1;
}
