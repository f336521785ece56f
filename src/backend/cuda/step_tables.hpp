// What the device must know of masks and positions, worked out on the host before anything runs: the pieces of the
// mask, and for each attend the spans of its queries and of each run of its keys. All lies in one block of bytes that
// is uploaded once; attends over the same rows share their tables.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/key_ranges.hpp"
#include "orrery/problem.hpp"
#include "orrery/schedule.hpp"

namespace orrery::cuda {

class StepTables {
 public:
  StepTables(const AttentionProblem& problem, const RankProgram& program);

  // Keys along which positions rise; rows [begin, begin + tokens) of the step's key-values.
  struct Run {
    std::int64_t begin = 0, tokens = 0;
    std::size_t key_spans = 0;  // where they begin in the block
    int key_span_count = 0;
  };
  struct Attended {
    bool mask_free = false;
    int mask = 0;
    std::size_t query_spans = 0;
    int query_span_count = 0;
    std::vector<Run> runs;
  };

  const Attended& of(int step) const { return attended_[static_cast<std::size_t>(step)]; }
  std::span<const std::byte> block() const { return block_; }

  // The call that fills the ranges of one run, given where the block lies on the device. rows and tiles are left to
  // the caller.
  kernels::cuda::FillKeyRanges fill(int step, const Run& run, const std::byte* block) const;

 private:
  struct Stored {
    std::size_t offset = 0;
    int count = 0;
  };
  Stored store(std::span<const Span> spans);
  void add(const Mask& mask);
  void add(std::size_t step, const Attending& s);

  std::vector<std::byte> block_;
  std::map<std::string, Stored> known_;  // by content
  std::vector<Attended> attended_;
  std::vector<std::int64_t> query_tokens_;
  std::vector<Stored> pieces_;  // by mask
};

}  // namespace orrery::cuda
