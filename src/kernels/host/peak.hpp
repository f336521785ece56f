// How fast this core can multiply and add at best: the yardstick for the attention kernels.
#pragma once

#include <string>

namespace orrery::kernels {

// fp32 operations a second of one core, a fused multiply-add counted as two. Takes some 50 ms.
double measured_fma_peak_flops();

// The instruction set the kernels run with on this machine, such as "AVX2" or "AVX3".
std::string simd_target_name();

}  // namespace orrery::kernels
