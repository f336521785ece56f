#include "backend/coverage/memory.hpp"

#include <algorithm>
#include <utility>

#include "orrery/error.hpp"

namespace orrery::coverage {

std::string to_text(const Composed& composed) {
  const Span& s = composed.positions;
  if (s.count == 0) return "none";
  if (s.stride != 1 && s.count > 1) return concat(s.begin, " to ", s.last(), " by ", s.stride);
  return composed.direction < 0 ? concat(s.last(), " down to ", s.begin) : concat(s.begin, " to ", s.last());
}

Memory::Memory(std::int64_t tokens, int heads) {
  if (tokens > 0 && heads > 0) cells_.push_back({0, tokens, 0, heads, {}});
}

bool Memory::inside(const Cell& cell, const Slice& s) {
  return s.token_begin <= cell.token_begin && cell.token_end <= s.token_begin + s.tokens &&
         s.head_begin <= cell.head_begin && cell.head_end <= s.head_begin + s.heads;
}

std::vector<Cell> Memory::read(const Slice& s) const {
  std::vector<Cell> parts;
  for (const Cell& cell : cells_) {
    const std::int64_t token_begin = std::max(cell.token_begin, s.token_begin);
    const std::int64_t token_end = std::min(cell.token_end, s.token_begin + s.tokens);
    const int head_begin = std::max(cell.head_begin, s.head_begin);
    const int head_end = std::min(cell.head_end, s.head_begin + s.heads);
    if (token_begin < token_end && head_begin < head_end) {
      parts.push_back({token_begin, token_end, head_begin, head_end, cell.value});
    }
  }
  return parts;
}

void Memory::cut(const Slice& s) {
  // Splits every cell that straddles an edge; new parts are appended and looked at again for the next edge.
  const auto split = [&](auto begin, auto end, auto edge) {
    for (std::size_t i = 0, count = cells_.size(); i < count; ++i) {
      if (cells_[i].*begin < edge && edge < cells_[i].*end) {
        Cell upper = cells_[i];
        upper.*begin = edge;
        cells_[i].*end = edge;
        cells_.push_back(std::move(upper));
      }
    }
  };
  split(&Cell::token_begin, &Cell::token_end, s.token_begin);
  split(&Cell::token_begin, &Cell::token_end, s.token_begin + s.tokens);
  split(&Cell::head_begin, &Cell::head_end, s.head_begin);
  split(&Cell::head_begin, &Cell::head_end, s.head_begin + s.heads);
}

void Memory::write(const Slice& s, Provenance value) {
  cut(s);
  std::erase_if(cells_, [&](const Cell& cell) { return inside(cell, s); });
  cells_.push_back({s.token_begin, s.token_begin + s.tokens, s.head_begin, s.head_begin + s.heads, std::move(value)});
}

}  // namespace orrery::coverage
