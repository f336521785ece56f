// `run` and `trace`: one attention, from inputs to report. The order is that of cost: everything that may be refused is
// refused before anything is computed, and the result is written only when it has been verified.
#include <nlohmann/json.hpp>
#include <vector>

#include "launch/clocks.hpp"
#include "launch/devices.hpp"
#include "launch/inputs.hpp"
#include "launch/measure.hpp"
#include "launch/outputs.hpp"
#include "launch/progress.hpp"
#include "launch/ranks.hpp"
#include "launch/report.hpp"
#include "launch/seats.hpp"
#include "launch/text.hpp"
#include "launch/verbs.hpp"
#include "launch/workload.hpp"

namespace orrery::launch {
namespace {

// The results, of a CUDA device in `copies`.
AttentionTensors results_on_host(const Workload& workload, std::vector<DeviceMemory>& copies) {
  AttentionTensors tensors = workload.tensors();
  if (workload.device().kind == DeviceKind::cpu) return tensors;
  for (TensorView* view : {&tensors.out, &tensors.lse, &tensors.grad_query, &tensors.grad_key, &tensors.grad_value}) {
    const std::size_t bytes = static_cast<std::size_t>(view->elements()) * size_of(view->dtype);
    const DeviceMemory& copy = copies.emplace_back(Device{}, bytes, "results on their way to the file");
    copy_bytes(copy.data(), view->data, bytes);
    view->data = copy.data();
  }
  return tensors;
}

// The bytes of the file that write_result() makes, but for its header.
std::int64_t result_bytes(const AttentionProblem& problem, bool backward) {
  const std::int64_t rows = problem.batch * problem.seq_len;
  const std::int64_t heads = problem.heads + (backward ? problem.heads + 2 * problem.kv_heads : 0);
  return rows * (heads * problem.head_dim * static_cast<std::int64_t>(size_of(problem.dtype)) +
                 problem.heads * static_cast<std::int64_t>(sizeof(float)));
}

// `file` is null on all ranks but the first.
void write_result(Workload& workload, const Inputs& inputs, OutputFile* file) {
  std::vector<DeviceMemory> copies;
  const AttentionTensors tensors = results_on_host(workload, copies);
  const bool batched = inputs.batched();
  std::vector<OutputTensor> outputs = {{"out", tensors.out, false, batched}, {"lse", tensors.lse, true, batched}};
  if (workload.backward()) {
    outputs.push_back({"dq", tensors.grad_query, false, batched});
    outputs.push_back({"dk", tensors.grad_key, false, batched});
    outputs.push_back({"dv", tensors.grad_value, false, batched});
  }
  write_safetensors(workload.world(), file, workload.plan().problem.seq_len, workload.positions(), outputs);
}

void write_timeline(Workload& workload, OutputFile* file) {
  World& world = workload.world();
  std::vector<Timeline> timelines;
  for (const Pass pass : {Pass::forward, Pass::backward}) {
    if (pass == Pass::backward && !workload.backward()) continue;
    for (const std::string& bytes : all_gather(world, serialize(workload.attention().timeline(pass)))) {
      if (world.rank() == 0) timelines.push_back(parse_timeline(bytes));
    }
  }
  share_clock(world, timelines);
  together(world, [&] {
    if (world.rank() != 0) return;
    file->write(file->path().ends_with(".svg") ? to_svg(timelines) : to_chrome_json(timelines));
  });
}

}  // namespace

int run(World& world, const Options& options) {
  const bool first = world.rank() == 0;
  std::optional<Inputs> inputs;
  std::optional<Outputs> outputs;  // of the first rank
  together(world, [&] {
    inputs.emplace(options);
    if (!first) return;
    if (!inputs->note().empty()) print_note(inputs->note());
    outputs.emplace(options, result_bytes(inputs->problem(), options.backward));
    if (outputs->out() && outputs->out()->is_stream() && world.topology().nodes() > 1) {
      refuse("--out ", options.out, ": what is no regular file can be written by the ranks of one host only");
    }
  });

  WorkloadOptions how = workload_options(world, options, inputs->problem());
  how.attention.record_steps = !options.trace.empty();
  Workload workload = [&] {
    const Progress progress(first, "planning and reading");
    return Workload(world, *inputs, how);
  }();
  note_crowded_cores(world, workload.device(), options.threads);
  const Measured measured = measure(workload, options.repeat.value_or(1), options.warmup.value_or(0), true);
  const Verification verification = [&] {
    const Progress progress(first, "verifying");
    return verify(workload, *inputs, options.verify);
  }();
  const Report report = make_report(workload, *inputs, options.threads, measured, verification);
  const bool right = verification.right();

  std::optional<Progress> writing(std::in_place, first, "writing");
  if (!options.trace.empty()) write_timeline(workload, first ? outputs->trace() : nullptr);
  if (!options.out.empty() && right) write_result(workload, *inputs, first ? outputs->out() : nullptr);
  writing.reset();
  together(world, [&] {
    if (!first) return;
    if (outputs->json()) outputs->json()->write(dump(to_json(report)));
    if (outputs->text()) {
      print(to_text(report));
      for (const std::string& path : {options.trace, right ? options.out : std::string()}) {
        if (!path.empty()) print("wrote         " + path + "\n");
      }
    }
  });
  refuse_wrong(verification);
  return 0;
}

}  // namespace orrery::launch
