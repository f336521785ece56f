#include "orrery/schedule.hpp"

#include <algorithm>

namespace orrery {

std::string_view to_string(Pass pass) {
  return pass == Pass::forward ? "forward" : "backward";
}

std::string_view to_string(BufferKind kind) {
  switch (kind) {
    case BufferKind::query:
      return "query";
    case BufferKind::key_value:
      return "key_value";
    case BufferKind::state:
      return "state";
    case BufferKind::output:
      return "output";
    case BufferKind::grad_output:
      return "grad_output";
    case BufferKind::delta:
      return "delta";
    case BufferKind::grad_query:
      return "grad_query";
    case BufferKind::grad_key_value:
      return "grad_key_value";
    case BufferKind::scan:
      return "scan";
  }
  return "?";
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

std::vector<Component> components(const Buffer& buffer, int head_dim) {
  const std::int64_t d = head_dim;
  switch (buffer.kind) {
    case BufferKind::query:
      return {{"query", buffer.dtype, d}};
    case BufferKind::key_value:
      return {{"key", buffer.dtype, d}, {"value", buffer.dtype, d}};
    case BufferKind::state:
      return {{"accumulator", Dtype::fp32, d}, {"row_max", Dtype::fp32, 1}, {"row_sum", Dtype::fp32, 1}};
    case BufferKind::output:
      return {{"out", buffer.dtype, d}, {"lse", Dtype::fp32, 1}};
    case BufferKind::grad_output:
      return {{"grad_out", buffer.dtype, d}};
    case BufferKind::delta:
      return {{"delta", Dtype::fp32, 1}};
    case BufferKind::grad_query:
      return {{"grad_query", buffer.dtype, d}};
    case BufferKind::grad_key_value:
      return {{"grad_key", buffer.dtype, d}, {"grad_value", buffer.dtype, d}};
    case BufferKind::scan:
      return {{"matrix", Dtype::fp32, d * d}, {"decay", Dtype::fp32, d}};
  }
  return {};
}

std::int64_t row_bytes(const Buffer& buffer, const AttentionProblem& problem) {
  std::int64_t bytes = 0;
  for (const Component& c : components(buffer, problem.head_dim)) {
    bytes += c.width * static_cast<std::int64_t>(size_of(c.dtype));
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
