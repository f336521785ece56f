#include "kernels/cuda/attend_forward.cuh"

template void orrery::kernels::cuda::launch_attend_forward<orrery::Dtype::fp16, 64>(const AttendForward&,
                                                                                    device::StreamHandle);
