// A mask as it is written: its terms, before they are turned into the interval form that everything else works with.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "orrery/mask.hpp"

namespace orrery {

struct MaskTerms {
  struct Window {
    static constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();  // of a side; written as -1
    std::int64_t left = 0, right = 0;
  };

  bool full = false, causal = false, documents = false;
  std::optional<std::int64_t> prefix, sinks;
  std::optional<Window> window;
  std::vector<std::int64_t> bounds;  // 0 = b0 <= b1 <= ... = seq_len; {0, seq_len} without documents
};

// The terms of `text`; whatever does not make a mask is refused, as Mask::parse documents.
MaskTerms parse_terms(std::string_view text, std::int64_t seq_len);

// The terms in a fixed order.
std::string canonical_text(const MaskTerms& terms);

// The interval form: sorted, disjoint pieces that cover [0, seq_len), O(documents) of them.
std::vector<MaskPiece> make_pieces(const MaskTerms& terms, std::int64_t seq_len);

}  // namespace orrery
