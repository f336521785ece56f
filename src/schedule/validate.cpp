// Structural validation: what one rank's program can be asked without the others. The checker starts where this ends.
#include "orrery/error.hpp"
#include "orrery/schedule.hpp"
#include "schedule/row_set.hpp"

namespace orrery {
namespace {

std::vector<RowSet> row_sets_of(const std::vector<Transfer>& transfers) {
  std::vector<Slice> slices;
  slices.reserve(transfers.size());
  for (const Transfer& t : transfers) slices.push_back(t.slice);
  return row_sets(std::move(slices));
}

bool any_overlap(const std::vector<RowSet>& sets) {
  for (std::size_t i = 0; i < sets.size(); ++i) {
    for (std::size_t j = i + 1; j < sets.size(); ++j) {
      if (overlap(sets[i], sets[j])) return true;
    }
  }
  return false;
}

class Validator {
 public:
  Validator(const RankProgram& program, const AttentionProblem& problem) : program_(program), problem_(problem) {}

  void run() {
    if (program_.lanes < 1) bad("states ", program_.lanes, " lanes");
    for (const Buffer& b : program_.buffers) {
      if (b.tokens < 0 || b.heads < 0) bad("buffer ", b.name, " has ", b.tokens, " tokens x ", b.heads, " heads");
      const bool callers = b.role == BufferRole::input || b.role == BufferRole::output;
      if (b.scan != Scan::own && (b.kind != BufferKind::scan || !callers)) {
        bad("buffer ", b.name, ", which is no scan of the caller's, claims to be ", to_string(b.scan));
      }
    }
    for (step_ = 0; step_ < static_cast<int>(program_.steps.size()); ++step_) {
      const Step& step = program_.steps[static_cast<std::size_t>(step_)];
      for_each_access(step, [&](const Access& access) {
        bounds(access.slice);
        if (access.mode != AccessMode::read && buffer(access.slice).role == BufferRole::input) {
          bad("writes the input ", to_text(program_, access.slice));
        }
      });
      std::visit([&](const auto& s) { check(s); }, step);
    }
  }

 private:
  template <typename... Parts>
  [[noreturn]] void bad(const Parts&... parts) const {
    const bool in_step = step_ >= 0 && step_ < static_cast<int>(program_.steps.size());
    fail(ErrorCode::bug, "[rank ", program_.rank, "/", program_.world_size, "] ", to_string(program_.pass), " step ",
         step_, in_step ? " " : "", in_step ? to_text(program_, step_) : std::string(), ": ", concat(parts...));
  }

  const Buffer& buffer(const Slice& s) const { return program_.buffers[static_cast<std::size_t>(s.buffer)]; }

  void bounds(const Slice& s) const {
    if (s.buffer < 0 || s.buffer >= static_cast<int>(program_.buffers.size())) bad("no buffer ", s.buffer);
    const Buffer& b = buffer(s);
    if (s.tokens < 1 || s.heads < 1 || s.token_begin < 0 || s.head_begin < 0 || s.token_begin + s.tokens > b.tokens ||
        s.head_begin + s.heads > b.heads) {
      bad(to_text(program_, s), " is empty or outside of ", b.tokens, " tokens x ", b.heads, " heads");
    }
  }
  void kind(const Slice& s, BufferKind wanted) const {
    if (buffer(s).kind != wanted) bad(to_text(program_, s), " is not a ", to_string(wanted));
  }
  void same_shape(const Slice& a, const Slice& b) const {
    if (a.tokens != b.tokens || a.heads != b.heads) {
      bad(to_text(program_, a), " and ", to_text(program_, b), " differ in shape");
    }
  }
  void pair(const Slice& into, const Slice& from) const {
    same_shape(into, from);
    kind(from, buffer(into).kind);
    if (overlap(into, from)) bad(to_text(program_, into), " overlaps ", to_text(program_, from));
  }

  void check(const Exchange& s) const {
    if (s.lane < 0 || s.lane >= program_.lanes) bad("lane ", s.lane, " of a program with ", program_.lanes);
    if (s.sends.empty() && s.receives.empty()) bad("moves nothing");
    const auto peers = [&](const std::vector<Transfer>& transfers) {
      for (const Transfer& t : transfers) {
        if (t.peer < 0 || t.peer >= program_.world_size) bad("no rank ", t.peer);
        if (t.peer == program_.rank) bad("a transfer to the rank itself");
      }
    };
    peers(s.sends);
    peers(s.receives);
    const std::vector<RowSet> sent = row_sets_of(s.sends), received = row_sets_of(s.receives);
    std::int64_t rows = 0, distinct_rows = 0;
    for (const Transfer& t : s.receives) rows += t.slice.tokens * t.slice.heads;
    for (const RowSet& set : received) distinct_rows += set.rows();
    if (rows != distinct_rows || any_overlap(received)) bad("receives overlap");
    for (const RowSet& set : received) {
      for (const RowSet& send : sent) {
        if (overlap(set, send)) bad("receives into what it sends");
      }
    }
  }
  template <typename AttendStep>
  void check_attend(const AttendStep& s) const {
    kind(s.query, BufferKind::query);
    kind(s.key_value, BufferKind::key_value);
    if (s.query.heads != s.key_value.heads * problem_.group()) {
      bad(s.query.heads, " query heads read ", s.key_value.heads, " KV heads; the group is ", problem_.group());
    }
    if (token_count(s.query_spans) != s.query.tokens) bad("query spans hold ", token_count(s.query_spans), " tokens");
    if (token_count(s.key_spans) != s.key_value.tokens) bad("key spans hold ", token_count(s.key_spans), " tokens");
  }
  void check(const Attend& s) const {
    check_attend(s);
    kind(s.state, BufferKind::state);
    same_shape(s.query, s.state);
    if (!s.output.given()) return;
    kind(s.output, BufferKind::output);
    same_shape(s.query, s.output);
  }
  void check(const AttendBackward& s) const {
    check_attend(s);
    kind(s.grad_output, BufferKind::grad_output);
    kind(s.output, BufferKind::output);
    kind(s.delta, BufferKind::delta);
    kind(s.grad_query, BufferKind::grad_query);
    kind(s.grad_key_value, BufferKind::grad_key_value);
    for (const Slice* row : {&s.grad_output, &s.output, &s.delta, &s.grad_query}) same_shape(s.query, *row);
    same_shape(s.key_value, s.grad_key_value);
    for (const Slice* sum : {&s.grad_query, &s.grad_key_value}) {
      if (buffer(*sum).dtype != Dtype::fp32)
        bad(to_text(program_, *sum), " accumulates in ", to_string(buffer(*sum).dtype));
    }
    if (!s.result.given()) return;
    pair(s.result, s.grad_key_value);
    if (buffer(s.result).dtype != buffer(s.key_value).dtype) {
      bad(to_text(program_, s.result), " is ", to_string(buffer(s.result).dtype), ", the keys are ",
          to_string(buffer(s.key_value).dtype));
    }
  }
  void check(const Clear&) const {}
  void check(const Merge& s) const {
    pair(s.into, s.from);
    kind(s.into, BufferKind::state);
  }
  void check(const Add& s) const {
    pair(s.into, s.from);
    for (const Slice* sum : {&s.into, &s.from}) {
      const BufferKind k = buffer(*sum).kind;
      if ((k != BufferKind::grad_query && k != BufferKind::grad_key_value) || buffer(*sum).dtype != Dtype::fp32) {
        bad(to_text(program_, *sum), " is not an fp32 gradient");
      }
    }
  }
  void check(const Compose& s) const {
    pair(s.into, s.earlier);
    kind(s.into, BufferKind::scan);
  }
  void check(const Copy& s) const { pair(s.into, s.from); }
  void check(const Normalize& s) const {
    kind(s.into, BufferKind::output);
    kind(s.state, BufferKind::state);
    same_shape(s.into, s.state);
  }
  void check(const Delta& s) const {
    kind(s.into, BufferKind::delta);
    kind(s.output, BufferKind::output);
    kind(s.grad_output, BufferKind::grad_output);
    same_shape(s.into, s.output);
    same_shape(s.into, s.grad_output);
    if (!s.cleared.given()) return;
    kind(s.cleared, BufferKind::grad_query);
    same_shape(s.into, s.cleared);
    if (buffer(s.cleared).dtype != Dtype::fp32) {
      bad(to_text(program_, s.cleared), " is cleared beside fp32 rows, and is ", to_string(buffer(s.cleared).dtype));
    }
  }

  const RankProgram& program_;
  const AttentionProblem& problem_;
  int step_ = -1;
};

}  // namespace

void validate(const RankProgram& program, const AttentionProblem& problem) {
  Validator(program, problem).run();
}

}  // namespace orrery
