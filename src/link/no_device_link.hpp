// What the worlds of a build without CUDA say when they are asked for a link between devices.
#pragma once

namespace orrery {

[[noreturn]] void refuse_device_link();

}  // namespace orrery
