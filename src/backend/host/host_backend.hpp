// The host backend: steps on real memory. Computation runs in the caller's thread and its pool, in program order;
// transfers run in the link, started as soon as what they depend on is done. A step that computes waits only for the
// exchanges it depends on, so whatever the program allows to overlap does.
#pragma once

#include <memory>
#include <vector>

#include "backend/memory/compute_device.hpp"
#include "backend/memory/key_runs.hpp"
#include "backend/memory/step_tensors.hpp"
#include "core/thread_pool.hpp"
#include "executor/hazards.hpp"
#include "link/link.hpp"

namespace orrery::host {

class HostBackend final : public MemoryBackend {
 public:
  // Bytes of scratch for the kernels and key ranges of a program.
  static std::size_t scratch_bytes(const AttentionProblem& problem, const RankProgram& program, int threads);

  // `memory` holds the tensors of every buffer; `scratch` is 64-byte aligned. All must outlive the backend.
  HostBackend(const AttentionProblem& problem, const RankProgram& program, const Dependencies& dependencies,
              std::vector<BufferMemory> memory, std::span<std::byte> scratch, Link& link, ThreadPool& pool,
              double timeout_seconds);

  void name_run(const RunName& name) override { run_name_ = name; }

  void begin_run() override;
  void issue(int step) override;
  void end_run() override;
  void abandon_run() noexcept override;
  double began() const override { return run_began_; }
  StepTimes times(int step) const override;

 private:
  void await(int exchange_step);
  void run(const Exchange&) {}
  void run(const Attend& s);
  void run(const AttendBackward& s);
  void run(const Apply& s);
  // call(rows of the step's keys, their ranges for each query or null) for keys along which positions rise.
  template <typename Call>
  void for_each_key_run(const Attending& s, const Call& call);

  const AttentionProblem& problem_;
  const RankProgram& program_;
  const Dependencies& dependencies_;
  const StepTensors tensors_;
  std::span<kernels::KeyRange> key_ranges_;
  std::span<std::byte> kernel_scratch_;
  ThreadPool& pool_;
  double timeout_seconds_;

  std::vector<std::vector<KeyRun>> key_runs_;  // by step; empty for steps that do not attend
  std::vector<int> exchange_of_step_;          // index in the session, or -1
  std::unique_ptr<LinkSession> session_;
  std::vector<StepTimes> times_;
  RunName run_name_;
  double run_began_ = 0;
  int current_ = -1;
};

}  // namespace orrery::host
