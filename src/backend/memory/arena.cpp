#include "backend/memory/arena.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "core/region.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

std::size_t component_bytes(const Buffer& buffer, const Component& c, std::int64_t batch) {
  return static_cast<std::size_t>(batch * buffer.tokens * buffer.heads * c.width) * size_of(c.dtype);
}

std::size_t buffer_bytes(const Buffer& buffer, std::int64_t batch) {
  std::size_t bytes = 0;
  for (const Component& c : components(buffer)) bytes += aligned(component_bytes(buffer, c, batch), kHostAlignment);
  return bytes;
}

}  // namespace

Arena::Arena(const AttentionProblem& problem, std::span<const RankProgram* const> programs)
    : batch_(problem.batch), programs_(programs.begin(), programs.end()) {
  std::map<std::string, std::size_t> kept;
  for (const RankProgram* program : programs_) {
    std::size_t end = 0;
    std::vector<std::size_t> offsets;
    for (const Buffer& b : program->buffers) {
      const std::size_t bytes = buffer_bytes(b, batch_);
      if (b.role == BufferRole::kept) {
        const auto [place, is_new] = kept.emplace(b.name, kept_bytes_);
        if (is_new) kept_bytes_ += bytes;
        offsets.push_back(place->second);
      } else {
        offsets.push_back(end);
        if (b.role == BufferRole::workspace) end += bytes;
      }
    }
    offsets_.push_back(std::move(offsets));
    bytes_ = std::max(bytes_, end);
  }
}

BufferMemory Arena::place(std::size_t program, int buffer, std::byte* workspace, std::byte* kept) const {
  const Buffer& b = programs_[program]->buffers[static_cast<std::size_t>(buffer)];
  std::byte* at = (b.role == BufferRole::kept ? kept : workspace) + offsets_[program][static_cast<std::size_t>(buffer)];
  BufferMemory memory;
  for (const Component& c : components(b)) {
    const std::int64_t batch_stride = b.heads * b.tokens * c.width;
    const bool by_token = b.order == RowOrder::by_token;
    memory.push_back({at, c.dtype, batch_, b.tokens, b.heads, c.width, batch_stride,
                      by_token ? b.heads * c.width : c.width, by_token ? c.width : b.tokens * c.width});
    at += aligned(component_bytes(b, c, batch_), kHostAlignment);
  }
  return memory;
}

TensorView rows(const TensorView& tensor, const Slice& slice) {
  TensorView view = tensor;
  view.data = tensor.at(0, slice.token_begin, slice.head_begin);
  view.tokens = slice.tokens;
  view.heads = slice.heads;
  return view;
}

Region region(const TensorView& rows, RowOrder order) {
  Region region = region_of(rows);
  // The two ends of a transfer may differ in strides, but not in this order.
  if (order == RowOrder::by_head) {
    std::swap(region.counts[1], region.counts[2]);
    std::swap(region.strides[1], region.strides[2]);
  }
  return simplified(region);
}

}  // namespace orrery
