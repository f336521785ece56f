#include "link/no_device_link.hpp"

#include "link/inprocess/device_link.hpp"
#include "orrery/error.hpp"

namespace orrery {

void refuse_device_link() {
  refuse("this Orrery was built without CUDA (CMake option ORRERY_CUDA); there is no link between devices");
}

std::unique_ptr<StreamLink> open_inprocess_device_link(Hub&, Channels&, int, Device) {
  refuse_device_link();
}

}  // namespace orrery
