#include "backend/coverage/memory.hpp"

#include "orrery/error.hpp"

namespace orrery::coverage {

std::string to_text(const Composed& composed) {
  const Span& s = composed.positions;
  if (s.count == 0) return "none";
  if (s.stride != 1 && s.count > 1) return concat(s.begin, " to ", s.last(), " by ", s.stride);
  return composed.direction < 0 ? concat(s.last(), " down to ", s.begin) : concat(s.begin, " to ", s.last());
}

Slice corresponding(const Slice& target, const Slice& source, const Cell& cell) {
  return {target.buffer, target.token_begin + cell.token_begin - source.token_begin, cell.token_end - cell.token_begin,
          target.head_begin + cell.head_begin - source.head_begin, cell.head_end - cell.head_begin};
}

Identity shifted(const Identity& identity, const Slice& target, const Slice& source) {
  return {identity.rank, identity.token_shift + source.token_begin - target.token_begin,
          identity.head_shift + source.head_begin - target.head_begin};
}

}  // namespace orrery::coverage
