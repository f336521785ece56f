// `info`: what this build and this machine are.
#include <nlohmann/json.hpp>

#include "launch/devices.hpp"
#include "launch/outputs.hpp"
#include "launch/report.hpp"
#include "launch/text.hpp"
#include "launch/verbs.hpp"
#include "orrery/machine.hpp"
#include "orrery/strategy.hpp"
#include "orrery/version.hpp"

namespace orrery::launch {

int info(const Options& options) {
  Outputs outputs(options);
  const Machine machine = describe_machine();
  const double peak = measured_fma_peak_flops();
  nlohmann::ordered_json names = nlohmann::ordered_json::array(), strategy_options = names;
  std::string listed;
  for (const Strategy& strategy : strategies()) {
    names.push_back(strategy.name);
    listed += concat(listed.empty() ? "" : "              ", strategy.name, ": ", strategy.summary, "\n");
    for (const StrategyOption& option : strategy.options) {
      strategy_options.push_back({{"strategy", strategy.name},
                                  {"option", usage(option)},
                                  {"standard", option.standard},
                                  {"meaning", option.meaning}});
      listed += concat("                ", usage(option), " (", option.standard, "): ", option.meaning, "\n");
    }
  }
  nlohmann::ordered_json devices = {"cpu"}, details = nlohmann::ordered_json::array();
  std::string listed_devices = "cpu\n";
  for (std::size_t i = 0; i < machine.cuda_devices.size(); ++i) {
    const CudaDeviceInfo& device = machine.cuda_devices[i];
    const std::string name = concat("cuda:", i), capability = capability_text(device.compute_capability),
                      kernels = cuda_kernels(device);
    devices.push_back(name);
    details.push_back({{"name", device.name},
                       {"compute_capability", capability},
                       {"kernels", kernels},
                       {"multiprocessors", device.multiprocessors},
                       {"memory_bytes", device.memory_bytes},
                       {"l2_bytes", device.l2_bytes}});
    listed_devices += concat("              ", name, ": ", device.name, ", compute capability ", capability, ", ",
                             counted(device.multiprocessors, "multiprocessor"), ", ",
                             bytes_text(static_cast<double>(device.memory_bytes)), ", ", kernels, " kernels\n");
  }
  if (outputs.json()) {
    const nlohmann::ordered_json json = {{"version", kVersion},
                                         {"compiler", machine.compiler},
                                         {"build_type", machine.build_type},
                                         {"cpu", machine.cpu},
                                         {"cores", machine.cores},
                                         {"simd", machine.simd},
                                         {"peak_flops_per_core", peak},
                                         {"mpi", machine.mpi},
                                         {"devices", devices},
                                         {"cuda_runtime", machine.cuda_runtime},
                                         {"cuda_driver", machine.cuda_driver},
                                         {"cuda_devices", details},
                                         {"strategies", names},
                                         {"strategy_options", strategy_options},
                                         {"layouts", {"contiguous", "zigzag", "striped"}}};
    outputs.json()->write(dump(json));
  }
  if (!outputs.text()) return 0;
  print(concat("orrery ", kVersion, "\n",                                                                   //
               "build         ", machine.build_type, ", ", machine.compiler, "\n",                          //
               "cpu           ", machine.cpu, ", ", counted(machine.cores, "core"), " for this process\n",  //
               "kernels       ", machine.simd, "; ", flops_text(peak),
               " measured, fp32 fused multiply-add, one thread\n", "mpi           ", machine.mpi, "\n",  //
               "cuda          runtime ", machine.cuda_runtime, ", driver ", machine.cuda_driver, "\n",   //
               "devices       ", listed_devices,                                                         //
               "strategies    ", listed,                                                                 //
               "layouts       contiguous, zigzag, striped[:B]\n"));
  return 0;
}

}  // namespace orrery::launch
