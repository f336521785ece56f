// What this build and this machine are: for `orrery info`, and for the "machine" part of every report.
#pragma once

#include <string>
#include <vector>

#include "orrery/device.hpp"
#include "orrery/tensor.hpp"

namespace orrery {

struct Machine {
  std::string version;  // of Orrery
  std::string compiler;
  std::string build_type;
  std::string cpu;                        // model name
  int cores = 0;                          // that this process may use
  std::string simd;                       // the instruction set the kernels run on
  std::string mpi;                        // library version, or "none"
  std::string cuda_runtime, cuda_driver;  // versions, or "none"
  std::vector<CudaDeviceInfo> cuda_devices;
};
Machine describe_machine();

// Why a rank of this process cannot compute on a CUDA device: no backend in this build, no device, or a dtype and
// head_dim that its kernels do not take. Empty when it can.
std::string cuda_refuses(Dtype dtype, int head_dim);
// The attention kernels that a CUDA device takes for 16-bit tensors of the usual sizes: "hopper" or "portable". Which
// ones an attention runs is Attention::kernels()'s to say.
std::string cuda_kernels(const CudaDeviceInfo& device);

// Why attention of a 16-bit dtype runs portable kernels on a device for which there are faster ones; empty where it
// does not, or there are none.
std::string portable_kernels_reason(const CudaDeviceInfo& device, bool backward, int head_dim, double scale);
// Whether the machine whose files lie under `root` has the driver of a CUDA device, which a build without CUDA does not
// ask.
bool has_cuda_driver(const std::string& root = "/");

// This core's fused-multiply-add peak, measured for about 50 ms: floating-point operations a second, fp32, one thread.
double measured_fma_peak_flops();

}  // namespace orrery
