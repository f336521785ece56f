// The ranges that the device makes are the host's, number by number: over masks, layouts and ragged sizes, for the
// queries of every rank and the keys of every other.
#include <cstring>

#include "gpu/kernel/device_tensor.hpp"
#include "orrery/layout.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

namespace cuda = kernels::cuda;

std::vector<cuda::SpanRows> span_rows(std::span<const Span> spans) {
  std::vector<cuda::SpanRows> rows;
  std::int64_t row = 0;
  for (const Span& s : spans) {
    rows.push_back({s.begin, s.count, s.stride, row});
    row += s.count;
  }
  return rows;
}

std::vector<cuda::PieceRows> piece_rows(const orrery::Mask& mask) {
  std::vector<cuda::PieceRows> rows;
  mask.for_each_piece(0, mask.seq_len(), [&](const MaskPiece& p) {
    const Boundary bounds[4] = {p.keys_begin, p.keys_end, p.sinks_begin, p.sinks_end};
    cuda::PieceRows& row = rows.emplace_back();
    row.end = p.end;
    for (int i = 0; i < 4; ++i) row.offsets[i] = bounds[i].offset, row.slopes[i] = bounds[i].slope;
  });
  return rows;
}

template <typename Element>
bool same_bytes(const std::vector<Element>& a, const std::vector<Element>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(Element)) == 0;
}

void check_ranges(const orrery::Mask& mask, std::span<const Span> query_spans, const KeyRun& keys) {
  const std::int64_t query_len = token_count(query_spans);
  std::vector<kernels::KeyRange> expected(static_cast<std::size_t>(query_len));
  fill_key_ranges(mask, query_spans, keys, expected);
  const auto expected_tiles = range_bounds(expected);

  const kernels::KeyRange untouched = {-7, -7, -7, -7};
  const cuda::RangeBounds untouched_tile = {-7, -7, -7, -7, -7, -7};
  std::vector<kernels::KeyRange> rows(expected.size() + 1, untouched);
  std::vector<cuda::RangeBounds> tiles(expected_tiles.size() + 1, untouched_tile);
  const DeviceArray<cuda::SpanRows> queries{span_rows(query_spans)}, key_spans{span_rows(keys.keys.spans())};
  const DeviceArray<cuda::PieceRows> pieces{piece_rows(mask)};
  const DeviceArray<kernels::KeyRange> device_rows{rows};
  const DeviceArray<cuda::RangeBounds> device_tiles{tiles};
  cuda::fill_key_ranges({queries.data(), static_cast<int>(query_spans.size()), query_len, key_spans.data(),
                         static_cast<int>(keys.keys.spans().size()), pieces.data(),
                         static_cast<int>(piece_rows(mask).size()), device_rows.data(), device_tiles.data()},
                        nullptr);
  std::copy(expected.begin(), expected.end(), rows.begin());
  std::copy(expected_tiles.begin(), expected_tiles.end(), tiles.begin());
  CHECK(same_bytes(device_rows.fetch(), rows));
  CHECK(same_bytes(device_tiles.fetch(), tiles));
}

// The first document is empty, and each of the others twice as long as the one before it.
std::string documents(std::int64_t seq_len) {
  std::string text = "documents:0,";
  std::int64_t length = 1, left = seq_len;
  for (; left > length; length *= 2) {
    text += std::to_string(length) + ",";
    left -= length;
  }
  return text + std::to_string(left);
}

TEST_CASE("key ranges agree with the host's for every mask and layout") {
  for (std::int64_t seq_len : {1, 7, 64, 129, 1000}) {
    const std::string masks[] = {"full",
                                 "causal",
                                 "window:20",
                                 "window:20,9",
                                 "causal+window:100+sinks:4",
                                 "window:3+sinks:70",
                                 "causal+prefix:40",
                                 "causal+" + documents(seq_len),
                                 "causal+window:33+sinks:3+" + documents(seq_len)};
    for (const std::string& text : masks) {
      const orrery::Mask mask = orrery::Mask::parse(text, seq_len);
      for (const char* layout_text : {"contiguous", "zigzag", "striped", "striped:5"}) {
        for (int world_size : {1, 3, 4}) {
          CAPTURE(seq_len, text, layout_text, world_size);
          const Layout layout = Layout::make(layout_text, mask, world_size);
          for (int rank = 0; rank < world_size; ++rank) {
            const std::vector<Span> queries = layout.shard(rank), keys = layout.shard((rank + 1) % world_size);
            for (const KeyRun& run : key_runs(keys)) check_ranges(mask, queries, run);
          }
        }
      }
    }
  }
}

TEST_CASE("key ranges of a run of no keys are empty") {
  const orrery::Mask mask = orrery::Mask::causal(300);
  const Span queries[] = {{10, 130, 2}};
  check_ranges(mask, queries, KeyRun{});
}

TEST_CASE("key ranges of many rows and spans agree with the host's") {
  constexpr std::int64_t kDocument = 600, kDocuments = 300, kSeqLen = kDocument * kDocuments;
  std::string text = "causal+window:150+sinks:16+documents:" + std::to_string(kDocument);
  for (int i = 1; i < kDocuments; ++i) text += "," + std::to_string(kDocument);
  const orrery::Mask mask = orrery::Mask::parse(text, kSeqLen);
  const Layout layout = Layout::make("zigzag", mask, 2);
  for (const KeyRun& run : key_runs(layout.shard(1))) check_ranges(mask, layout.shard(0), run);
}

}  // namespace
}  // namespace orrery::test
