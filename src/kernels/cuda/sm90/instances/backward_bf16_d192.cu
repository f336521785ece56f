#include "kernels/cuda/sm90/backward/launch.cuh"

template void orrery::kernels::cuda::sm90::launch_attend_backward<orrery::Dtype::bf16, 192>(const AttendBackward&,
                                                                                            device::StreamHandle);
