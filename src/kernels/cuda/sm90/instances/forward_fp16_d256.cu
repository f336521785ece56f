#include "kernels/cuda/sm90/forward/launch.cuh"

template void orrery::kernels::cuda::sm90::launch_attend_forward<orrery::Dtype::fp16, 256>(const AttendForward&,
                                                                                           device::StreamHandle);
