// The caller's tensors: which port each one is, and what is refused of them before anything runs. A tensor has the
// shape of its port and lies on the rank's device. What a run writes shares no byte with anything else: no output with
// another, with an input, with the workspace, or with itself. Inputs may share what they like.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "backend/memory/compute_device.hpp"
#include "orrery/attention.hpp"

namespace orrery {

// The tensors of AttentionTensors by the names of their ports.
struct TensorField {
  std::string_view port;
  TensorView AttentionTensors::*tensor;
};
inline constexpr TensorField kTensorFields[] = {
    {"query", &AttentionTensors::query},
    {"key", &AttentionTensors::key},
    {"value", &AttentionTensors::value},
    {"out", &AttentionTensors::out},
    {"lse", &AttentionTensors::lse},
    {"grad_out", &AttentionTensors::grad_out},
    {"grad_query", &AttentionTensors::grad_query},
    {"grad_key", &AttentionTensors::grad_key},
    {"grad_value", &AttentionTensors::grad_value},
};

// One tensor a port, in the order of the ports. Throws ErrorCode::invalid, naming the tensor, when one is of no port,
// is given twice, or is missing.
std::vector<TensorView> by_port(std::span<const Port> ports, std::span<const NamedTensor> tensors);
// The same of a structure, whose other tensors are left alone.
std::vector<TensorView> by_port(std::span<const Port> ports, const AttentionTensors& tensors);

// The structure with the tensors of these names; others are left out.
AttentionTensors attention_tensors(std::span<const NamedTensor> tensors);
inline const AttentionTensors& attention_tensors(const AttentionTensors& tensors) {
  return tensors;
}

// Memory of the caller's beside the tensors.
struct NamedMemory {
  std::string_view name;
  std::span<std::byte> bytes;
};

// Throws ErrorCode::invalid, naming the tensor.
void check_tensors(std::span<const Port> ports, std::span<const TensorView> tensors,
                   std::span<const NamedMemory> memory, Device device, const ComputeDevice& compute);

}  // namespace orrery
