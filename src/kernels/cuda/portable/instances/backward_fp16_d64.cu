#include "kernels/cuda/portable/backward/launch.cuh"

template void orrery::kernels::cuda::launch_attend_backward<orrery::Dtype::fp16, 64>(const AttendBackward&,
                                                                                     device::StreamHandle,
                                                                                     BackwardTiles);
