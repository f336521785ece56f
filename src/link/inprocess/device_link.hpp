// The link between ranks that are threads and compute on CUDA devices, one each or several on one: any number of
// virtual ranks runs on a single GPU. Messages meet as on the host (rendezvous.hpp); carrying one puts a copy from
// device to device on a stream of the receiver, behind the sender's computation.
#pragma once

#include <memory>

#include "link/inprocess/rendezvous.hpp"
#include "link/stream_link.hpp"
#include "orrery/device.hpp"

namespace orrery {

// Collective over the hub's ranks. `channels` are those of device messages alone. Refused: devices that cannot reach
// each other's memory; a build without CUDA.
std::unique_ptr<StreamLink> open_inprocess_device_link(Hub& hub, Channels& channels, int rank, Device device);

}  // namespace orrery
