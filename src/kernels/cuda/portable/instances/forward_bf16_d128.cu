#include "kernels/cuda/portable/forward/kernel.cuh"

template void orrery::kernels::cuda::launch_attend_forward<orrery::Dtype::bf16, 128>(const AttendForward&,
                                                                                     device::StreamHandle);
