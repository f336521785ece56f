#include "orrery/costs.hpp"

#include <cmath>
#include <string_view>
#include <utility>

#include "orrery/error.hpp"

namespace orrery {

Costs Costs::cuda() {
  return {.fp32_flops_per_second = 4e13,
          .bf16_flops_per_second = 6.5e14,
          .fp16_flops_per_second = 6.5e14,
          .step_seconds = 8e-6,
          .filling_keys = 65536,
          .pairs_per_row = 256,
          .inside_device_bytes_per_second = 1e12,
          .nvlink_bytes_per_second = 3e11};  // as NCCL reaches it
}

Costs Costs::cpu() {
  Costs costs = cuda();
  costs.fp32_flops_per_second = costs.bf16_flops_per_second = costs.fp16_flops_per_second = 9e10;
  costs.step_seconds = 1e-6;
  return costs;
}

void Costs::validate() const {
  const std::pair<std::string_view, double> figures[] = {
      {"fp32_flops_per_second", fp32_flops_per_second},
      {"bf16_flops_per_second", bf16_flops_per_second},
      {"fp16_flops_per_second", fp16_flops_per_second},
      {"step_seconds", step_seconds},
      {"filling_keys", static_cast<double>(filling_keys)},
      {"pairs_per_row", static_cast<double>(pairs_per_row)},
      {"inside_device_bytes_per_second", inside_device_bytes_per_second},
      {"nvlink_bytes_per_second", nvlink_bytes_per_second},
  };
  for (const auto& [name, value] : figures) {
    if (!std::isfinite(value) || value <= 0)
      refuse("costs: ", name, " is ", value, "; a finite number above 0 is needed");
  }
}

}  // namespace orrery
