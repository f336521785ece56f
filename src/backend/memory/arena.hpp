// Where a program's buffers lie in memory, be it a host's or a device's: the caller's tensors, or a place in one arena
// that is sized before anything runs.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/alignment.hpp"
#include "link/link.hpp"
#include "orrery/schedule.hpp"

namespace orrery {

// The tensors of one buffer, one a component, in the order of its kind's row.
using BufferMemory = std::vector<TensorView>;

// Offsets of the buffers that a plan owns. The workspace buffers of each program of a rank lie over the same bytes;
// kept buffers lie apart from them, and the programs share them by name.
class Arena {
 public:
  // All programs of one rank that share the arena.
  Arena(const AttentionProblem& problem, std::span<const RankProgram* const> programs);

  std::size_t bytes() const { return bytes_; }  // of workspace buffers
  std::size_t kept_bytes() const { return kept_bytes_; }
  // The tensors of a workspace or kept buffer of one of these programs, within memory of bytes() or kept_bytes().
  BufferMemory place(std::size_t program, int buffer, std::byte* workspace, std::byte* kept) const;

 private:
  std::int64_t batch_;
  std::vector<const RankProgram*> programs_;
  std::vector<std::vector<std::size_t>> offsets_;  // [program][buffer]
  std::size_t bytes_ = 0, kept_bytes_ = 0;
};

// The rows of a slice of a tensor, as a view and as a region to transfer.
TensorView rows(const TensorView& tensor, const Slice& slice);
Region region(const TensorView& rows, RowOrder order);

}  // namespace orrery
