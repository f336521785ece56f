// Memory of the host that devices reach directly, as their copies and kernels need it.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

namespace orrery::device {

class PinnedMemory {
 public:
  // Throws ErrorCode::resource, with the size and the purpose, when there is none.
  PinnedMemory(std::size_t bytes, std::string_view purpose);
  std::byte* data() const { return bytes_.get(); }

 private:
  struct Free {
    void operator()(std::byte* bytes) const noexcept;
  };
  std::unique_ptr<std::byte, Free> bytes_;
};

}  // namespace orrery::device
