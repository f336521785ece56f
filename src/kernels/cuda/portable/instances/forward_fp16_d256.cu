#include "kernels/cuda/portable/forward/kernel.cuh"

template void orrery::kernels::cuda::launch_attend_forward<orrery::Dtype::fp16, 256>(const AttendForward&,
                                                                                     device::StreamHandle);
