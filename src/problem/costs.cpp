#include "orrery/costs.hpp"

#include <cmath>
#include <string_view>
#include <utility>

#include "orrery/error.hpp"

namespace orrery {

Costs Costs::cuda() {
  return {.flops_per_second = 6.5e14,
          .filling_keys = 65536,
          .pairs_per_row = 256,
          .inside_device_bytes_per_second = 1e12,
          .nvlink_bytes_per_second = 3e11};  // as NCCL reaches it
}

Costs Costs::cpu() {
  Costs costs = cuda();
  costs.flops_per_second = 9e10;
  return costs;
}

void Costs::validate() const {
  const std::pair<std::string_view, double> figures[] = {
      {"flops_per_second", flops_per_second},
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
