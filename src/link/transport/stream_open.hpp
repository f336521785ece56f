// Which link carries slices between the devices of a transport's ranks; a build without CUDA has no_device_link.cpp,
// which refuses.
#pragma once

#include <memory>
#include <string>

#include "link/stream_link.hpp"
#include "link/transport/transport_link.hpp"
#include "orrery/world.hpp"

namespace orrery {

// Collective. `streams`, where they are given, are taken; else `kind`, which is WorldOptions::device_link, decides;
// `host_link` is the world's. The world outlives what is returned, which has at least so many lanes.
std::unique_ptr<StreamLink> open_stream_link(World& world, TransportLink& host_link,
                                             std::unique_ptr<StreamTransport>& streams, const std::string& kind,
                                             Device device, int lanes);

}  // namespace orrery
