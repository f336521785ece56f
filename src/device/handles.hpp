// CUDA's streams and events by the names under which the runtime declares them, so that headers can speak of them
// without its headers, and without CUDA.
#pragma once

struct CUstream_st;
struct CUevent_st;

namespace orrery::device {

using StreamHandle = CUstream_st*;  // cudaStream_t; null is the legacy default stream
using EventHandle = CUevent_st*;    // cudaEvent_t

}  // namespace orrery::device
