// What a machine takes for what programs ask of it: the figures by which strategies choose their options, and by which
// plans can be priced. They are defaults, of machines that were measured; a caller who knows better gives others. What
// links carry is not among them: that is the topology's (topology.hpp).
#pragma once

#include <cstdint>

namespace orrery {

struct Costs {
  // What attention kernels compute on one device, in operations a second, of the dtype that is computed fastest.
  double flops_per_second = 0;
  // A step with so many keys hides its edges: kernels forget that they fetch and put back the state of their rows.
  std::int64_t filling_keys = 0;
  // Fetching a row of keys takes as long as computing so many pairs of query and key. Links and kernels, of clusters as
  // of one host, are some hundreds apart.
  std::int64_t pairs_per_row = 0;
  // One way between the devices of two ranks, in bytes a second: inside a device that they share, and by NVLink.
  double inside_device_bytes_per_second = 0, nvlink_bytes_per_second = 0;

  // Of an H200, and of one core of a server's CPU.
  static Costs cuda();
  static Costs cpu();

  // Throws ErrorCode::invalid: a figure that is not finite, or not above 0.
  void validate() const;

  friend bool operator==(const Costs&, const Costs&) = default;
};

}  // namespace orrery
