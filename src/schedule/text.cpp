// The text of a program: one line a buffer, one line a step. A slice reads name[token:token)xheads, with the heads left
// out when it has all of them; a span reads begin+count, with /stride when that is not 1.
#include <algorithm>

#include "orrery/error.hpp"
#include "orrery/schedule.hpp"

namespace orrery {

namespace {

constexpr std::size_t kSpansShown = 8, kTransfersShown = 64;

std::string spans_text(const std::vector<Span>& spans) {
  TextStream text;
  for (std::size_t i = 0; i < spans.size() && i < kSpansShown; ++i) {
    text << (i == 0 ? "" : ",") << spans[i].begin << "+" << spans[i].count;
    if (spans[i].stride != 1) text << "/" << spans[i].stride;
  }
  if (spans.size() > kSpansShown) text << ",...(" << spans.size() << " spans)";
  return text.str();
}

std::string_view to_string(BufferRole role) {
  switch (role) {
    case BufferRole::input:
      return "input";
    case BufferRole::output:
      return "output";
    case BufferRole::workspace:
      return "workspace";
    case BufferRole::kept:
      return "kept";
  }
  return "?";
}

std::string_view order_text(RowOrder order) {
  return order == RowOrder::by_token ? " by token" : "";
}

struct StepText {
  const RankProgram& program;

  std::string slice(const Slice& s) const { return to_text(program, s); }

  std::string operator()(const Exchange& s) const {
    return concat("lane ", s.lane, order_text(s.order)) + transfers(s.sends, " send ", " to ") +
           transfers(s.receives, " receive ", " from ");
  }
  std::string transfers(const std::vector<Transfer>& transfers, const char* what, const char* where) const {
    std::string text;
    for (std::size_t i = 0; i < transfers.size() && i < kTransfersShown; ++i) {
      text += what + slice(transfers[i].slice) + where + std::to_string(transfers[i].peer);
    }
    if (transfers.size() > kTransfersShown) text += concat(what, "...(", transfers.size(), " transfers)");
    return text;
  }
  std::string operator()(const Attend& s) const { return attending(s, slice(s.owned)); }
  std::string operator()(const AttendBackward& s) const {
    return attending(s, slice(s.grad_query) + " and " + slice(s.owned));
  }
  std::string attending(const Attending& s, const std::string& into) const {
    return slice(s.query) + " x " + slice(s.key_value) + " into " + into + " at {" + spans_text(s.query_spans) +
           "} x {" + spans_text(s.key_spans) + "}" + (s.mask == 0 ? "" : concat(" mask ", s.mask)) +
           (s.mask_free ? " mask-free" : "") + (s.begins ? ", begins" : "") +
           (s.results.given() ? ", ends in " + slice(s.results) : "");
  }
  std::string operator()(const Apply& s) const { return filled_in(s, row_of(s.operation).text); }
  // The text of an operation's row, with slices in the places of operands.
  std::string filled_in(const Apply& s, std::string_view pattern) const {
    std::string text;
    while (!pattern.empty()) {
      const std::size_t at = std::min(pattern.find_first_of("{["), pattern.size());
      text += pattern.substr(0, at);
      pattern.remove_prefix(at);
      if (pattern.empty()) break;
      const std::string_view inside = pattern.substr(1, pattern.find(pattern[0] == '{' ? '}' : ']') - 1);
      if (pattern[0] == '{') {
        text += slice(s.at(inside));
      } else if (s.at(inside.substr(inside.find('{') + 1, inside.find('}') - inside.find('{') - 1)).given()) {
        text += filled_in(s, inside);
      }
      pattern.remove_prefix(inside.size() + 2);
    }
    return text;
  }
};

}  // namespace

std::string to_text(const RankProgram& program, const Slice& s) {
  TextStream text;
  const bool known = s.buffer >= 0 && s.buffer < static_cast<int>(program.buffers.size());
  text << (known ? program.buffers[s.buffer].name : "buffer " + std::to_string(s.buffer));
  text << "[" << s.token_begin << ":" << s.token_begin + s.tokens << "]";
  if (!known || s.head_begin != 0 || s.heads != program.buffers[s.buffer].heads) {
    text << "h[" << s.head_begin << ":" << s.head_begin + s.heads << "]";
  }
  return text.str();
}

std::string to_text(const RankProgram& program, int step) {
  const Step& s = program.steps.at(static_cast<std::size_t>(step));
  return std::string(name_of(s)) + " " + std::visit(StepText{program}, s);
}

std::string to_text(const RankProgram& program) {
  TextStream text;
  text << to_string(program.pass) << " rank " << program.rank << " of " << program.world_size << "\n";
  for (const Buffer& b : program.buffers) {
    text << "  " << to_string(b.role) << " " << b.name << ": " << to_string(b.kind) << " " << to_string(b.dtype) << " "
         << b.tokens << " tokens x " << b.heads << " heads" << order_text(b.order);
    if (b.scan != Scan::own) text << " " << to_string(b.scan);
    if (b.space != RowSpace::sequence) text << " of " << to_string(b.space);
    text << "\n";
  }
  for (std::size_t i = 0; i < program.masks.size(); ++i) {
    text << "  mask " << i + 1 << ": " << program.masks[i].text() << "\n";
  }
  for (std::size_t i = 0; i < program.steps.size(); ++i) {
    text << "  " << i << " " << to_text(program, static_cast<int>(i)) << "\n";
  }
  return text.str();
}

}  // namespace orrery
