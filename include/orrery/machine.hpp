// What this build and this machine are: for `orrery info`, and for the "machine" part of every report.
#pragma once

#include <string>

namespace orrery {

struct Machine {
  std::string version;  // of Orrery
  std::string compiler;
  std::string build_type;
  std::string cpu;   // model name
  int cores = 0;     // that this process may use
  std::string simd;  // the instruction set the kernels run on
  std::string mpi;   // library version, or "none"
};
Machine describe_machine();

// This core's fused-multiply-add peak, measured for about 50 ms: floating-point operations a second, fp32, one thread.
double measured_fma_peak_flops();

}  // namespace orrery
