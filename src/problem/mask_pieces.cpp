// From the terms of a mask to its interval form. Each boundary of what query i sees is the smaller or larger of a few
// candidates, each of them constant or i plus a constant. Which candidate wins can change only where a rising one
// crosses a constant one, so a document is cut at all crossings; between two cuts the winner at the first position wins
// throughout. Most crossings change nothing, and neighbours that one formula describes are joined again.
#include <algorithm>
#include <array>

#include "mask_terms.hpp"

namespace orrery {
namespace {

// Numbers of the terms, clamped so that no sum overflows and that a term left out is one that changes nothing.
struct Limits {
  std::int64_t left, right, prefix, sinks;
};

Limits limits_of(const MaskTerms& terms, std::int64_t seq_len) {
  const auto clamped = [&](std::int64_t tokens) { return std::min(tokens, seq_len); };
  return {terms.window ? clamped(terms.window->left) : seq_len, terms.window ? clamped(terms.window->right) : seq_len,
          terms.causal ? clamped(terms.prefix.value_or(0)) : seq_len, clamped(terms.sinks.value_or(0))};
}

Boundary constant(std::int64_t position) {
  return {0, position};
}
Boundary rising(std::int64_t offset) {
  return {1, offset};
}
Boundary smaller(Boundary a, Boundary b, std::int64_t i) {
  return b.at(i) < a.at(i) ? b : a;
}
Boundary larger(Boundary a, Boundary b, std::int64_t i) {
  return b.at(i) > a.at(i) ? b : a;
}

// What query i of the document sees, with each boundary in the form that wins at i.
MaskPiece piece_at(std::int64_t i, Range document, const Limits& limits) {
  const Boundary causal_end = larger(rising(1), constant(limits.prefix), i);
  const Boundary document_end = constant(document.end);
  MaskPiece piece;
  piece.begin = i;
  piece.keys_begin = larger(constant(document.begin), rising(-limits.left), i);
  piece.keys_end = smaller(smaller(document_end, rising(limits.right + 1), i), causal_end, i);
  if (limits.sinks == 0) return piece;
  const Boundary sinks_end = smaller(smaller(constant(document.begin + limits.sinks), document_end, i), causal_end, i);
  if (sinks_end.at(i) >= piece.keys_begin.at(i)) {
    piece.keys_begin = constant(document.begin);
    piece.keys_end = larger(piece.keys_end, sinks_end, i);
  } else {
    piece.sinks_begin = constant(document.begin);
    piece.sinks_end = sinks_end;
  }
  return piece;
}

bool agree(Boundary a, Boundary b, Range at) {
  return a.at(at.begin) == b.at(at.begin) && a.at(at.end - 1) == b.at(at.end - 1);
}

// Whether the formulas of `form` also describe every query of `other`: two affine functions that agree at both ends do.
bool describes(const MaskPiece& form, const MaskPiece& other) {
  const Range at{other.begin, other.end};
  return agree(form.keys_begin, other.keys_begin, at) && agree(form.keys_end, other.keys_end, at) &&
         agree(form.sinks_begin, other.sinks_begin, at) && agree(form.sinks_end, other.sinks_end, at);
}

void append(std::vector<MaskPiece>& pieces, MaskPiece piece) {
  if (!pieces.empty() && describes(pieces.back(), piece)) {
    pieces.back().end = piece.end;
    return;
  }
  if (!pieces.empty() && describes(piece, pieces.back())) {
    piece.begin = pieces.back().begin;
    pieces.pop_back();
  }
  pieces.push_back(piece);
}

}  // namespace

std::vector<MaskPiece> make_pieces(const MaskTerms& terms, std::int64_t seq_len) {
  const Limits limits = limits_of(terms, seq_len);
  std::vector<MaskPiece> pieces;
  for (std::size_t d = 0; d + 1 < terms.bounds.size(); ++d) {
    const Range document{terms.bounds[d], terms.bounds[d + 1]};
    if (document.empty()) continue;
    std::array<std::int64_t, 25> cuts;
    std::size_t count = 0;
    cuts[count++] = document.begin;
    for (std::int64_t level :
         {document.begin, std::min(document.begin + limits.sinks, document.end), limits.prefix, document.end}) {
      for (std::int64_t offset : {-limits.left, std::int64_t{1}, limits.right + 1}) {
        // i + offset meets the level here. The next position is a cut too, for a comparison may turn on a tie.
        const std::int64_t crossing = level - offset;
        for (std::int64_t cut : {crossing, crossing + 1}) {
          if (cut > document.begin && cut < document.end) cuts[count++] = cut;
        }
      }
    }
    std::sort(cuts.begin(), cuts.begin() + count);
    for (std::size_t c = 0; c < count; ++c) {
      const std::int64_t end = c + 1 < count ? cuts[c + 1] : document.end;
      if (end == cuts[c]) continue;
      MaskPiece piece = piece_at(cuts[c], document, limits);
      piece.end = end;
      append(pieces, piece);
    }
  }
  return pieces;
}

}  // namespace orrery
