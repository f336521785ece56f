// Layouts: which rank owns which positions. A shard is a list of spans; its tokens are stored in that order, and
// positions rise along it. Any length and any number of ranks: shares may be uneven or empty, and nothing is padded.
//   contiguous   rank r owns one run of positions
//   zigzag       the sequence (with documents: each document) is cut in 2P chunks, and rank r owns chunks r and
//                2P-1-r. That balances causal masks and leaves mask-free rectangles off the diagonal
//   striped:b    stripes of b tokens are dealt round robin (Striped Attention, Brandon et al., 2023)
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "orrery/error.hpp"
#include "orrery/mask.hpp"

namespace orrery {

class Layout {
 public:
  // `text` is "contiguous", "zigzag", "striped" or "striped:B". zigzag follows the mask's documents.
  static Layout make(std::string_view text, const Mask& mask, int world_size);

  const std::string& text() const { return text_; }
  int world_size() const { return world_size_; }
  std::int64_t seq_len() const { return seq_len_; }

  // The spans of a rank, in storage order; adjacent runs are joined, empty ones left out. O(spans).
  std::vector<Span> shard(int rank) const;
  std::int64_t tokens(int rank) const;
  std::int64_t max_tokens() const;
  // True for stripes: positions of all ranks alternate.
  bool interleaves() const { return kind_ == Kind::striped; }

  // The positions of ranks first, first+1, ..., first+count-1 (mod world_size) as sorted, disjoint spans. May include
  // positions of other ranks where stripes interleave; O(1) spans per document, whatever the count.
  std::vector<Span> shards_hull(int first, int count) const;

  // Global position of a rank's token, and the (rank, index) that owns a position.
  std::int64_t position(int rank, std::int64_t index) const;
  std::pair<int, std::int64_t> owner(std::int64_t position) const;
  // The ranks that own any of these sorted, disjoint positions, as sorted, disjoint ranges of ranks.
  std::vector<Range> owners(std::span<const Range> positions) const;

 private:
  enum class Kind { contiguous, zigzag, striped };
  Kind kind_ = Kind::contiguous;
  std::int64_t stripe_ = 1;
  int world_size_ = 1;
  std::int64_t seq_len_ = 0;
  std::vector<std::int64_t> documents_;  // bounds, as in Mask
  std::string text_;
};

// The global position of each of a rank's tokens: position ids for rotary embeddings and the like.
std::vector<std::int64_t> positions(const Layout& layout, int rank);

// A rank's rows of a whole sequence, `width` values a token.
template <typename T>
std::vector<T> shard(std::span<const T> whole, const Layout& layout, int rank, std::int64_t width = 1) {
  if (static_cast<std::int64_t>(whole.size()) != layout.seq_len() * width) {
    refuse("shard: ", whole.size(), " values given for ", layout.seq_len(), " tokens of width ", width);
  }
  std::vector<T> rows;
  rows.reserve(static_cast<std::size_t>(layout.tokens(rank) * width));
  for (std::int64_t p : positions(layout, rank)) {
    rows.insert(rows.end(), whole.begin() + p * width, whole.begin() + (p + 1) * width);
  }
  return rows;
}

// The inverse: every rank's rows, in rank order, back into position order.
template <typename T>
std::vector<T> unshard(std::span<const std::vector<T>> shards, const Layout& layout, std::int64_t width = 1) {
  if (static_cast<int>(shards.size()) != layout.world_size()) {
    refuse("unshard: ", shards.size(), " shards given for ", layout.world_size(), " ranks");
  }
  std::vector<T> whole(static_cast<std::size_t>(layout.seq_len() * width));
  for (int rank = 0; rank < layout.world_size(); ++rank) {
    const auto& rows = shards[static_cast<std::size_t>(rank)];
    if (static_cast<std::int64_t>(rows.size()) != layout.tokens(rank) * width) {
      refuse("unshard: rank ", rank, " gave ", rows.size(), " values for ", layout.tokens(rank), " tokens of width ",
             width);
    }
    std::int64_t index = 0;
    for (std::int64_t p : positions(layout, rank)) {
      for (std::int64_t w = 0; w < width; ++w) whole[p * width + w] = rows[index++];
    }
  }
  return whole;
}

// Moves a whole sequence by `shift` tokens inside each document: row p of the result is row p + shift, or `fill` where
// that leaves the document. roll(tokens, mask, 1, ignore) are the labels of next-token prediction; shard them after
// rolling, for the neighbour of a token may live on another rank.
template <typename T>
std::vector<T> roll(std::span<const T> whole, const Mask& mask, std::int64_t shift, T fill) {
  if (static_cast<std::int64_t>(whole.size()) != mask.seq_len()) {
    refuse("roll: ", whole.size(), " values given for ", mask.seq_len(), " tokens");
  }
  std::vector<T> rolled(whole.size(), fill);
  const auto bounds = mask.document_bounds();
  for (std::size_t d = 0; d + 1 < bounds.size(); ++d) {
    for (std::int64_t p = bounds[d]; p < bounds[d + 1]; ++p) {
      const std::int64_t from = p + shift;
      if (from >= bounds[d] && from < bounds[d + 1]) rolled[p] = whole[from];
    }
  }
  return rolled;
}

}  // namespace orrery
