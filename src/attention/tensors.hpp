// The caller's tensors: which buffer each one is, and what is refused of them before anything runs. A tensor has the
// shape of its buffer and lies on the rank's device. What a run writes shares no byte with anything else: no output
// with another, with an input, with the workspace, or with itself. Inputs may share what they like.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "backend/memory/compute_device.hpp"
#include "orrery/attention.hpp"

namespace orrery {

// The caller's tensor for each component of an input or output buffer.
BufferMemory callers(const Buffer& buffer, const AttentionTensors& tensors);

// Memory of the caller's beside the tensors.
struct NamedMemory {
  std::string_view name;
  std::span<std::byte> bytes;
};

// Throws ErrorCode::invalid, naming the tensor. `programs` are those of one rank.
void check_tensors(const AttentionProblem& problem, std::span<const RankProgram* const> programs,
                   const AttentionTensors& tensors, std::span<const NamedMemory> memory, Device device,
                   const ComputeDevice& compute);

}  // namespace orrery
