#include "backend/memory/step_tensors.hpp"

namespace orrery {

kernels::Operand StepTensors::operand(const Slice& slice) const {
  const auto buffer = static_cast<std::size_t>(slice.buffer);
  kernels::Operand operand{program_.buffers[buffer].kind, {}};
  for (std::size_t c = 0; c < memory_[buffer].size(); ++c) operand.tensors[c] = rows(memory_[buffer][c], slice);
  return operand;
}

kernels::Operands StepTensors::operands(const Apply& step) const {
  kernels::Operands operands{step.operation, {}, {}};
  for (std::size_t i = 0; i < kMostOperands; ++i) {
    operands.given[i] = step.operands[i].given();
    if (operands.given[i]) operands.list[i] = operand(step.operands[i]);
  }
  return operands;
}

}  // namespace orrery
