// Masks: which keys a query may see, as a rule on global positions only. Terms joined by '+' admit what they all admit,
// and whatever the terms, a query position sees keys in one interval plus at most one sink interval in front of it.
// Kernels, schedules and the checker rely on that form, so a mask that cannot be put into it is refused when it is
// parsed.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace orrery {

// An affine run of positions: begin, begin + stride, ..., count of them. stride >= 1.
struct Span {
  std::int64_t begin = 0, count = 0, stride = 1;

  std::int64_t at(std::int64_t index) const { return begin + index * stride; }
  std::int64_t last() const { return at(count - 1); }
  friend bool operator==(const Span&, const Span&) = default;
};

// Half-open range of indices or positions.
struct Range {
  std::int64_t begin = 0, end = 0;

  std::int64_t size() const { return end > begin ? end - begin : 0; }
  bool empty() const { return end <= begin; }
  friend bool operator==(const Range&, const Range&) = default;
};

// What one query position sees: [keys) and, before it and disjoint from it, [sinks). Empty ranges are {0, 0}.
struct VisibleKeys {
  Range keys, sinks;
  friend bool operator==(const VisibleKeys&, const VisibleKeys&) = default;
};

// A boundary of what a query at position i sees: slope * i + offset, slope 0 or 1.
struct Boundary {
  int slope = 0;
  std::int64_t offset = 0;

  std::int64_t at(std::int64_t position) const { return slope * position + offset; }
};

// Over the query positions [begin, end) every boundary is affine. The pieces of a mask are its interval form.
struct MaskPiece {
  std::int64_t begin = 0, end = 0;
  Boundary keys_begin, keys_end, sinks_begin, sinks_end;
};

enum class Coverage { empty, partial, full };

class Mask {
 public:
  // "causal+window:512+sinks:4" and the like; the terms are in docs/glossary.md. `documents:@FILE` reads lengths,
  // `documents:offsets@FILE` offsets, separated by commas or white space. Where the file's name holds a '+', the
  // longest name that exists wins. Refused (ErrorCode::invalid, one line, with line and column of what stands in a
  // file): unknown or repeated terms, negative or overflowing numbers, sinks without window, prefix without causal,
  // full beside causal, window, sinks or prefix, lengths that do not sum to seq_len, offsets that do not rise from 0 to
  // it.
  static Mask parse(std::string_view text, std::int64_t seq_len);
  static Mask full(std::int64_t seq_len);
  static Mask causal(std::int64_t seq_len);

  std::int64_t seq_len() const { return seq_len_; }
  // Canonical text: the terms in a fixed order, lengths written out. parse(text(), seq_len()) gives the same mask.
  const std::string& text() const { return text_; }
  bool is_causal() const { return causal_; }
  bool has_window() const { return window_; }
  // Document boundaries 0 = b0 <= b1 <= ... = seq_len; {0, seq_len} without the documents term.
  std::span<const std::int64_t> document_bounds() const { return documents_; }

  VisibleKeys visible(std::int64_t query_position) const;
  bool admits(std::int64_t query_position, std::int64_t key_position) const;

  // The pieces that intersect [begin, end), in order, clipped to it, none empty. O(log pieces + answer).
  void for_each_piece(std::int64_t begin, std::int64_t end, const auto& visit) const;
  // All of them: sorted, disjoint, covering [0, seq_len).
  std::span<const MaskPiece> pieces() const { return pieces_; }

 private:
  std::int64_t seq_len_ = 0;
  std::string text_;
  bool causal_ = false, window_ = false;
  std::vector<std::int64_t> documents_;
  std::vector<MaskPiece> pieces_;  // sorted, disjoint, covering [0, seq_len)
};

// The file that Mask::parse of this text reads; empty when it reads none.
std::string documents_file(std::string_view text);

// The exact number of admitted (query, key) pairs between lists of spans. The spans of `keys` must be disjoint. Closed
// form per (span, piece): O(spans and pieces that meet), never O(tokens).
std::int64_t pairs(const Mask& mask, std::span<const Span> queries, std::span<const Span> keys);

// Exact: empty when no pair is admitted, full when all are (a list without tokens is empty).
Coverage classify(const Mask& mask, std::span<const Span> queries, std::span<const Span> keys);

// Which keys the queries see, as sorted disjoint ranges of indices into the concatenated `keys` list. Never leaves a
// visible key out; between two strided queries it may include keys that fall in the gap of a narrow window.
std::vector<Range> keys_seen(const Mask& mask, std::span<const Span> queries, std::span<const Span> keys);

// Which positions see any of the keys, exactly, as sorted disjoint ranges. `keys` rise and are disjoint. O(spans and
// pieces that meet); for keys that lie wider apart than a window reaches, O(keys).
std::vector<Range> positions_seeing(const Mask& mask, std::span<const Span> keys);

// The smallest index range of the concatenated `queries` list outside of which no query sees any of `keys`.
Range queries_seeing(const Mask& mask, std::span<const Span> queries, std::span<const Span> keys);

// Span-list arithmetic used everywhere: the number of tokens, and the sub-list that holds indices [range).
std::int64_t token_count(std::span<const Span> spans);
std::vector<Span> slice(std::span<const Span> spans, Range range);

template <typename Visit>
void visit_pieces(std::span<const MaskPiece> pieces, std::int64_t begin, std::int64_t end, const Visit& visit) {
  // Binary search for the first piece that ends after `begin`.
  std::size_t low = 0, high = pieces.size();
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (pieces[middle].end <= begin)
      low = middle + 1;
    else
      high = middle;
  }
  for (; low < pieces.size() && pieces[low].begin < end; ++low) {
    MaskPiece piece = pieces[low];
    if (piece.begin < begin) piece.begin = begin;
    if (piece.end > end) piece.end = end;
    if (piece.begin < piece.end) visit(piece);
  }
}

void Mask::for_each_piece(std::int64_t begin, std::int64_t end, const auto& visit) const {
  visit_pieces(pieces_, begin, end, visit);
}

}  // namespace orrery
