#include "backend/host/host_device.hpp"

#include <utility>

#include "backend/host/host_backend.hpp"
#include "orrery/error.hpp"

namespace orrery::host {
namespace {

class HostDevice final : public ComputeDevice {
 public:
  explicit HostDevice(const ComputeOptions& options) : pool_(options.threads) {}

  void check(const AttentionProblem&, bool) const override {}
  std::string refuses(const TensorView&) const override { return {}; }

  void connect(World& world, int) override { world_ = &world; }
  std::string_view link_name() const override { return world_->link_name(); }

  bool runs_fused() const override { return false; }
  std::size_t alignment() const override { return kHostAlignment; }
  std::string_view kernels(const AttentionProblem&, Pass) const override { return {}; }

  ScratchBytes scratch_bytes(const AttentionProblem& problem, const RankProgram& program) const override {
    return {0, HostBackend::scratch_bytes(problem, program, pool_.threads())};
  }
  std::unique_ptr<MemoryBackend> make_backend(const AttentionProblem& problem, const RankProgram& program,
                                              const Dependencies& dependencies, std::vector<BufferMemory> memory,
                                              const Scratch& scratch) override {
    return std::make_unique<HostBackend>(problem, program, dependencies, std::move(memory), scratch.run, world_->link(),
                                         pool_, world_->timeout_seconds());
  }

 private:
  ThreadPool pool_;
  World* world_ = nullptr;
};

}  // namespace

std::unique_ptr<ComputeDevice> open_device(const ComputeOptions& options) {
  return std::make_unique<HostDevice>(options);
}

}  // namespace orrery::host
