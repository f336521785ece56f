// What a build without NCCL has in place of its link and its world.
#include "link/nccl/open_nccl_link.hpp"

namespace orrery {
namespace {

[[noreturn]] void refuse_nccl() {
  refuse(
      "this Orrery was built without NCCL (CMake option ORRERY_NCCL); between processes, devices can use the link mpi");
}

}  // namespace

bool has_nccl() {
  return false;
}

std::unique_ptr<StreamLink> open_nccl_link(World&, int, int, const Interrupted*) {
  refuse_nccl();
}

std::unique_ptr<StreamLink> open_nccl_link(void*, int, double, const Interrupted*) {
  refuse_nccl();
}

std::unique_ptr<World> open_nccl_world(void*, Device, const WorldOptions&) {
  refuse_nccl();
}

}  // namespace orrery
