// What the worlds of a build without CUDA say when they are asked for a link between devices.
#include "link/inprocess/device_link.hpp"
#include "link/transport/stream_open.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

[[noreturn]] void refuse_device_link() {
  refuse("this Orrery was built without CUDA (CMake option ORRERY_CUDA); there is no link between devices");
}

}  // namespace

std::unique_ptr<StreamLink> open_stream_link(World&, TransportLink&, std::unique_ptr<StreamTransport>&,
                                             const std::string&, Device, int) {
  refuse_device_link();
}

std::unique_ptr<StreamLink> open_inprocess_device_link(Hub&, Channels&, int, Device) {
  refuse_device_link();
}

}  // namespace orrery
