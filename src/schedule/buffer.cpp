#include "orrery/schedule.hpp"

#include <algorithm>

namespace orrery {

std::string_view to_string(Pass pass) {
  return pass == Pass::forward ? "forward" : "backward";
}

std::string_view to_string(Scan scan) {
  switch (scan) {
    case Scan::own:
      return "own";
    case Scan::exclusive:
      return "exclusive";
    case Scan::inclusive:
      return "inclusive";
    case Scan::exclusive_reversed:
      return "exclusive reversed";
    case Scan::inclusive_reversed:
      return "inclusive reversed";
  }
  return "?";
}

std::string_view to_string(RowSpace space) {
  switch (space) {
    case RowSpace::sequence:
      return "sequence";
    case RowSpace::entries:
      return "entries";
    case RowSpace::parameters:
      return "parameters";
  }
  return "?";
}

namespace {

std::int64_t columns(const Buffer& buffer, Columns columns) {
  switch (columns) {
    case Columns::one:
      return 1;
    case Columns::width:
      return buffer.width;
    case Columns::square:
      return buffer.width * buffer.width;
  }
  return 0;
}

}  // namespace

std::vector<Component> components(const Buffer& buffer) {
  std::vector<Component> list;
  for (const ComponentRow& row : row_of(buffer.kind).components()) {
    list.push_back({row.name, row.fp32 ? Dtype::fp32 : buffer.dtype, columns(buffer, row.columns)});
  }
  return list;
}

std::int64_t row_bytes(const Buffer& buffer, const AttentionProblem& problem) {
  std::int64_t bytes = 0;
  for (const ComponentRow& row : row_of(buffer.kind).components()) {
    bytes += columns(buffer, row.columns) * static_cast<std::int64_t>(size_of(row.fp32 ? Dtype::fp32 : buffer.dtype));
  }
  return bytes * problem.batch;
}

namespace {

bool ranges_overlap(std::int64_t a, std::int64_t a_count, std::int64_t b, std::int64_t b_count) {
  return std::max(a, b) < std::min(a + a_count, b + b_count);
}

}  // namespace

bool overlap(const Slice& a, const Slice& b) {
  return a.buffer == b.buffer && ranges_overlap(a.token_begin, a.tokens, b.token_begin, b.tokens) &&
         ranges_overlap(a.head_begin, a.heads, b.head_begin, b.heads);
}

bool contains(const Slice& outer, const Slice& inner) {
  return outer.buffer == inner.buffer && outer.token_begin <= inner.token_begin &&
         inner.token_begin + inner.tokens <= outer.token_begin + outer.tokens && outer.head_begin <= inner.head_begin &&
         inner.head_begin + inner.heads <= outer.head_begin + outer.heads;
}

int RankProgram::find(std::string_view name) const {
  const auto found = std::find_if(buffers.begin(), buffers.end(), [&](const Buffer& b) { return b.name == name; });
  return found == buffers.end() ? -1 : static_cast<int>(found - buffers.begin());
}

}  // namespace orrery
