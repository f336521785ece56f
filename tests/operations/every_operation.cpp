// What holds of the kernel of every operation, by its row of the table.
#include <cstring>
#include <vector>

#include "kernels/rowwise.hpp"
#include "orrery/schedule.hpp"
#include "support/catch.hpp"

using namespace orrery;

namespace {

// Operands of 5 tokens and 3 heads, each with memory of its own, full of numbers between 0.5 and 1.5.
struct Example {
  static constexpr std::int64_t kTokens = 5, kHeads = 3, kWidth = 8;
  kernels::Operands operands;
  std::vector<std::vector<float>> memory;

  explicit Example(const OperationRow& row) : operands{row.operation, {}, {}} {
    for (std::size_t i = 0; i < row.operands().size(); ++i) {
      int kind = 0;
      while (!row.operands()[i].kinds.has(static_cast<BufferKind>(kind))) ++kind;
      Buffer buffer;
      buffer.kind = static_cast<BufferKind>(kind);
      buffer.width = kWidth;
      operands.given[i] = true;
      operands.list[i].kind = buffer.kind;
      for (const Component& c : components(buffer)) {
        std::vector<float>& numbers = memory.emplace_back(kTokens * kHeads * c.width);
        for (std::size_t n = 0; n < numbers.size(); ++n) {
          numbers[n] = 0.5f + static_cast<float>((7 * n + 3 * memory.size()) % 16) / 16;
        }
        operands.list[i].tensors[memory_of(i)] =
            TensorView::dense(numbers.data(), Dtype::fp32, 1, kTokens, kHeads, c.width);
        ++used[i];
      }
    }
  }
  std::size_t memory_of(std::size_t operand) const { return used[operand]; }
  std::array<std::size_t, kMostOperands> used = {};
};

}  // namespace

TEST_CASE("a kernel changes the operands that its row says it writes, and leaves those that it reads") {
  ThreadPool pool(1);
  for (const OperationRow& row : kOperations) {
    Example e(row);
    const std::vector<std::vector<float>> before = e.memory;
    kernels::apply(e.operands, pool);
    std::size_t next = 0;
    for (std::size_t i = 0; i < row.operands().size(); ++i) {
      INFO(row.name << " " << row.operands()[i].name);
      bool changed = false;
      for (std::size_t c = 0; c < e.used[i]; ++c, ++next) changed = changed || e.memory[next] != before[next];
      REQUIRE(changed == (row.operands()[i].use != Use::reads));
    }
  }
}

TEST_CASE("a kernel does the same whatever the rows held that it only writes") {
  ThreadPool pool(1);
  for (const OperationRow& row : kOperations) {
    Example one(row), other(row);
    std::size_t next = 0;
    for (std::size_t i = 0; i < row.operands().size(); ++i) {
      for (std::size_t c = 0; c < one.used[i]; ++c, ++next) {
        if (mode_of(row.operands()[i].use) != AccessMode::write) continue;
        std::memset(other.memory[next].data(), 0xff, other.memory[next].size() * sizeof(float));  // NaN
      }
    }
    kernels::apply(one.operands, pool);
    kernels::apply(other.operands, pool);
    INFO(row.name);
    REQUIRE(one.memory == other.memory);
  }
}
