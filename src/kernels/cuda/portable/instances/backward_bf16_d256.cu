#include "kernels/cuda/portable/backward/launch.cuh"

template void orrery::kernels::cuda::launch_attend_backward<orrery::Dtype::bf16, 256>(const AttendBackward&,
                                                                                      device::StreamHandle,
                                                                                      BackwardTiles);
