// The rows of one buffer, each with a value. Rows that nobody has told apart are one cell, a rectangle of tokens and
// heads; cells are cut where a slice ends. The heads are cut in bands, and the cells of a band follow one another by
// token. So what a slice touches is found by search, however many cells there are.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <utility>
#include <vector>

#include "orrery/schedule.hpp"

namespace orrery {

template <typename Value>
class RowMap {
 public:
  struct Cell {
    std::int64_t token_begin, token_end;
    int head_begin, head_end;
    Value value;

    Range tokens() const { return {token_begin, token_end}; }
  };

  RowMap(std::int64_t tokens, int heads, Value value = {}) {
    if (tokens > 0 && heads > 0) bands_.push_back({0, heads, {{0, {0, tokens, 0, heads, std::move(value)}}}});
  }

  template <typename Visit>
  void for_each(const Visit& visit) const {
    for (const Band& band : bands_) {
      for (const auto& [begin, cell] : band.cells) visit(cell);
    }
  }

  // The parts of cells that lie in the slice.
  std::vector<Cell> read(const Slice& s) const {
    std::vector<Cell> parts;
    const std::int64_t token_end = s.token_begin + s.tokens;
    for (const Band& band : bands_) {
      const int head_begin = std::max(band.head_begin, s.head_begin);
      const int head_end = std::min(band.head_end, s.head_begin + s.heads);
      if (head_begin >= head_end) continue;
      auto at = band.cells.upper_bound(s.token_begin);
      if (at != band.cells.begin()) --at;
      for (; at != band.cells.end() && at->first < token_end; ++at) {
        const Cell& cell = at->second;
        const Range tokens{std::max(cell.token_begin, s.token_begin), std::min(cell.token_end, token_end)};
        if (!tokens.empty()) parts.push_back({tokens.begin, tokens.end, head_begin, head_end, cell.value});
      }
    }
    return parts;
  }

  // Cuts cells at the slice's edges and calls update(cell) on those inside, by reference.
  template <typename Update>
  void update(const Slice& s, const Update& update) {
    for_each_band(s, [&](Band& band) {
      const auto [begin, end] = cut(band, s);
      for (auto at = begin; at != end; ++at) update(at->second);
    });
  }

  // Gives all rows of the slice this value, as one cell in each band.
  void write(const Slice& s, const Value& value) {
    for_each_band(s, [&](Band& band) {
      const auto [begin, end] = cut(band, s);
      band.cells.emplace_hint(band.cells.erase(begin, end), s.token_begin,
                              Cell{s.token_begin, s.token_begin + s.tokens, band.head_begin, band.head_end, value});
    });
  }

 private:
  using Cells = std::map<std::int64_t, Cell>;  // by where they begin
  struct Band {
    int head_begin, head_end;
    Cells cells;
  };

  template <typename Visit>
  void for_each_band(const Slice& s, const Visit& visit) {
    cut_heads(s.head_begin);
    cut_heads(s.head_begin + s.heads);
    for (Band& band : bands_) {
      if (s.head_begin <= band.head_begin && band.head_end <= s.head_begin + s.heads) visit(band);
    }
  }

  void cut_heads(int edge) {
    for (std::size_t i = 0; i < bands_.size(); ++i) {
      if (bands_[i].head_begin >= edge || edge >= bands_[i].head_end) continue;
      Band upper = bands_[i];
      upper.head_begin = bands_[i].head_end = edge;
      for (auto& [begin, cell] : upper.cells) cell.head_begin = edge;
      for (auto& [begin, cell] : bands_[i].cells) cell.head_end = edge;
      bands_.insert(bands_.begin() + static_cast<std::ptrdiff_t>(i) + 1, std::move(upper));
      return;
    }
  }

  // The cells inside the slice, once they are cut at its edges.
  std::pair<typename Cells::iterator, typename Cells::iterator> cut(Band& band, const Slice& s) {
    cut_tokens(band.cells, s.token_begin);
    cut_tokens(band.cells, s.token_begin + s.tokens);
    return {band.cells.lower_bound(s.token_begin), band.cells.lower_bound(s.token_begin + s.tokens)};
  }

  static void cut_tokens(Cells& cells, std::int64_t edge) {
    const auto above = cells.lower_bound(edge);
    if (above == cells.begin()) return;
    Cell& lower = std::prev(above)->second;
    if (lower.token_end <= edge) return;
    Cell upper = lower;
    upper.token_begin = lower.token_end = edge;
    cells.emplace_hint(above, edge, std::move(upper));
  }

  std::vector<Band> bands_;  // ascending and disjoint; they and their cells cover the buffer
};

}  // namespace orrery
