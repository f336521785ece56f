// The tensors that a program's steps touch, found by the components of their buffers.
#pragma once

#include <vector>

#include "backend/memory/arena.hpp"
#include "kernels/rowwise.hpp"
#include "orrery/schedule.hpp"

namespace orrery {

class StepTensors {
 public:
  // `memory` holds the tensors of every buffer.
  StepTensors(const RankProgram& program, std::vector<BufferMemory> memory)
      : program_(program), memory_(std::move(memory)) {}

  const std::vector<BufferMemory>& memory() const { return memory_; }

  // A slice's rows of one component.
  TensorView operator()(const Slice& slice, ComponentOf component) const {
    return rows(memory_[static_cast<std::size_t>(slice.buffer)][component.index], slice);
  }
  // ... of all of them.
  kernels::Operand operand(const Slice& slice) const;
  kernels::Operands operands(const Apply& step) const;

 private:
  const RankProgram& program_;
  std::vector<BufferMemory> memory_;
};

}  // namespace orrery
