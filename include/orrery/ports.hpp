// Ports: the tensors that a caller binds, by name. Each component of a program's input and output buffers is one. A
// port is named after its component, and has the ending that its buffer's name has beyond its kind's: the components of
// `key_value` are the ports `key` and `value`, those of another buffer, `key_value_memory`, are `key_memory` and
// `value_memory`. A component of a buffer with any other name is the port `buffer.component`.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "orrery/schedule.hpp"

namespace orrery {

enum class PortUse { none, input, output };

struct Port {
  std::string name;
  // What the tensor is: [batch, tokens, heads, width]; tokens as this rank has them.
  Dtype dtype = Dtype::fp32;
  std::int64_t batch = 0, tokens = 0, heads = 0, width = 0;
  PortUse forward = PortUse::none, backward = PortUse::none;

  PortUse use(Pass pass) const { return pass == Pass::forward ? forward : backward; }
  bool written() const { return forward == PortUse::output || backward == PortUse::output; }
};

// A tensor of the caller's for the port of that name.
struct NamedTensor {
  std::string_view name;
  TensorView tensor;
};

std::string port_name(const Buffer& buffer, const Component& component);

// Those of one rank's programs together. A port that two passes have is one: what forward writes, backward may read.
std::vector<Port> ports(const AttentionProblem& problem, std::span<const RankProgram* const> programs);

}  // namespace orrery
