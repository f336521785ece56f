// What the kernel tests need on a device: copies of host tensors, poisoned padding included, and the tables of key
// ranges that the attention kernels read. Kernels run on the legacy default stream, which copies wait for.
#pragma once

#include <algorithm>
#include <climits>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/memory/key_runs.hpp"
#include "kernel/problem.hpp"
#include "kernels/cuda/key_ranges.hpp"
#include "orrery/device.hpp"
#include "orrery/error.hpp"
#include "orrery/mask.hpp"

namespace orrery::test {

inline constexpr Device kDevice{DeviceKind::cuda, 0};

// Elements between rows that keep every row of every dtype aligned to 16 bytes.
inline constexpr std::int64_t kAlignedPadding = 8;

// An array on the device.
template <typename Element>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(std::span<const Element> elements)
      : memory_(kDevice, elements.size_bytes(), "a test"), size_(elements.size()) {
    copy_bytes(memory_.data(), elements.data(), elements.size_bytes());
  }

  Element* data() const { return reinterpret_cast<Element*>(memory_.data()); }
  std::vector<Element> fetch() const {
    std::vector<Element> elements(size_);
    copy_bytes(elements.data(), memory_.data(), size_ * sizeof(Element));
    return elements;
  }

 private:
  DeviceMemory memory_;
  std::size_t size_ = 0;
};

// The twin of a host tensor: the same strides, and the same bytes between the rows.
class DeviceTensor {
 public:
  explicit DeviceTensor(const Tensor& host) : bytes_(host.memory()), view_(host.view()) {
    view_.data = bytes_.data() + (static_cast<const std::byte*>(host.view().data) - host.memory().data());
  }

  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }
  // Tokens [begin, end).
  TensorView tokens(std::int64_t begin, std::int64_t end) const {
    TensorView some = view_;
    some.data = view_.at(0, begin, 0);
    some.tokens = end - begin;
    return some;
  }

  // Brings the bytes that are on the device now to the tensor that this was made from, or one of its layout.
  void fetch_into(Tensor& host) const {
    const std::ptrdiff_t offset = static_cast<const std::byte*>(view_.data) - bytes_.data();
    const std::vector<std::byte> bytes = bytes_.fetch();
    ORRERY_CHECK(bytes.size() == host.memory().size(), bytes.size(), " bytes for ", host.memory().size());
    std::copy(bytes.begin(), bytes.end(), static_cast<std::byte*>(host.view().data) - offset);
  }

 private:
  DeviceArray<std::byte> bytes_;
  TensorView view_;
};

// The bounds of each tile of query rows, by the definition.
inline std::vector<kernels::cuda::RangeBounds> range_bounds(std::span<const kernels::KeyRange> rows) {
  std::vector<kernels::cuda::RangeBounds> tiles;
  for (std::size_t begin = 0; begin < rows.size(); begin += kernels::cuda::kRangeTile) {
    kernels::cuda::RangeBounds bounds{INT_MAX, 0, 0, INT_MAX, INT_MAX, 0};
    bool empty_row = false;
    for (const kernels::KeyRange& row :
         rows.subspan(begin, std::min<std::size_t>(kernels::cuda::kRangeTile, rows.size() - begin))) {
      if (row.begin < row.end) {
        bounds.first = std::min(bounds.first, row.begin);
        bounds.last = std::max(bounds.last, row.end);
        bounds.full_begin = std::max(bounds.full_begin, row.begin);
        bounds.full_end = std::min(bounds.full_end, row.end);
      } else {
        empty_row = true;
      }
      if (row.sink_begin < row.sink_end) {
        bounds.sink_first = std::min(bounds.sink_first, row.sink_begin);
        bounds.sink_last = std::max(bounds.sink_last, row.sink_end);
      }
    }
    if (empty_row) bounds.full_begin = INT_MAX, bounds.full_end = 0;
    tiles.push_back(bounds);
  }
  return tiles;
}

// Ranges of the rows of a problem, and their bounds, on the device.
class DeviceRanges {
 public:
  explicit DeviceRanges(std::span<const kernels::KeyRange> rows) : rows_(rows), tiles_(range_bounds(rows)) {}

  kernels::cuda::KeyRanges view() const { return {rows_.data(), tiles_.data()}; }

 private:
  DeviceArray<kernels::KeyRange> rows_;
  DeviceArray<kernels::cuda::RangeBounds> tiles_;
};

// What each query row sees of a block of keys whose positions rise, under a mask of the whole sequence.
inline std::vector<kernels::KeyRange> ranges_under(const orrery::Mask& mask, std::span<const Span> query_spans,
                                                   std::span<const Span> key_spans) {
  std::vector<kernels::KeyRange> ranges(static_cast<std::size_t>(token_count(query_spans)));
  const std::vector<KeyRun> runs = key_runs(key_spans);
  ORRERY_CHECK(runs.size() <= 1, "key positions must rise: ", runs.size(), " runs");
  if (!runs.empty()) fill_key_ranges(mask, query_spans, runs.front(), ranges);
  return ranges;
}

// The same ranges as a block of keys that begins at row `begin` counts them. What lies outside the block is cut off.
inline std::vector<kernels::KeyRange> ranges_within(std::span<const kernels::KeyRange> ranges, std::int64_t begin,
                                                    std::int64_t end) {
  std::vector<kernels::KeyRange> block;
  const auto local = [&](std::int32_t row) {
    return static_cast<std::int32_t>(std::clamp<std::int64_t>(row, begin, end) - begin);
  };
  for (const kernels::KeyRange& r : ranges) {
    block.push_back({local(r.begin), local(r.end), local(r.sink_begin), local(r.sink_end)});
  }
  return block;
}

}  // namespace orrery::test
