#include "orrery/mask.hpp"

#include <algorithm>

#include "mask_terms.hpp"
#include "orrery/error.hpp"

namespace orrery {

Mask Mask::parse(std::string_view text, std::int64_t seq_len) {
  MaskTerms terms = parse_terms(text, seq_len);
  Mask mask;
  mask.seq_len_ = seq_len;
  mask.text_ = canonical_text(terms);
  mask.causal_ = terms.causal;
  mask.window_ = terms.window.has_value();
  mask.pieces_ = make_pieces(terms, seq_len);
  mask.documents_ = std::move(terms.bounds);
  return mask;
}

Mask Mask::full(std::int64_t seq_len) {
  return parse("full", seq_len);
}

Mask Mask::causal(std::int64_t seq_len) {
  return parse("causal", seq_len);
}

VisibleKeys Mask::visible(std::int64_t query_position) const {
  ORRERY_CHECK(query_position >= 0 && query_position < seq_len_, "query ", query_position, " of ", seq_len_);
  VisibleKeys visible;
  for_each_piece(query_position, query_position + 1, [&](const MaskPiece& piece) {
    visible.keys = {piece.keys_begin.at(query_position), piece.keys_end.at(query_position)};
    visible.sinks = {piece.sinks_begin.at(query_position), piece.sinks_end.at(query_position)};
  });
  return visible;
}

bool Mask::admits(std::int64_t query_position, std::int64_t key_position) const {
  const auto inside = [&](Range range) { return key_position >= range.begin && key_position < range.end; };
  const VisibleKeys seen = visible(query_position);
  return inside(seen.keys) || inside(seen.sinks);
}

std::int64_t token_count(std::span<const Span> spans) {
  std::int64_t count = 0;
  for (const Span& span : spans) count += span.count;
  return count;
}

std::vector<Span> slice(std::span<const Span> spans, Range range) {
  std::vector<Span> sliced;
  if (range.empty()) return sliced;
  ORRERY_CHECK(range.begin >= 0 && range.end <= token_count(spans), "[", range.begin, ", ", range.end, ") of ",
               token_count(spans), " tokens");
  std::int64_t first = 0;  // index of the span's first token in the list
  for (const Span& span : spans) {
    const std::int64_t begin = std::max(range.begin - first, std::int64_t{0});
    const std::int64_t end = std::min(range.end - first, span.count);
    if (begin < end) sliced.push_back({span.at(begin), end - begin, span.stride});
    first += span.count;
  }
  return sliced;
}

}  // namespace orrery
