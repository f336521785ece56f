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
      if (b.space != RowSpace::sequence) {
        bad("buffer ", b.name, " has rows of ", to_string(b.space), ", of which no step knows positions yet");
      }
      if (b.width < 1) bad("buffer ", b.name, " has rows of width ", b.width);
      const bool callers = b.role == BufferRole::input || b.role == BufferRole::output;
      if (b.scan != Scan::own && (b.kind != BufferKind::scan || !callers)) {
        bad("buffer ", b.name, ", which is no scan of the caller's, claims to be ", to_string(b.scan));
      }
    }
    for (const Mask& mask : program_.masks) {
      if (mask.seq_len() == problem_.seq_len) continue;
      bad("the mask ", mask.text(), " is for ", mask.seq_len(), " tokens of ", problem_.seq_len);
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
    if (a.tokens != b.tokens || a.heads != b.heads || buffer(a).width != buffer(b).width) {
      bad(to_text(program_, a), " and ", to_text(program_, b), " differ in shape");
    }
  }
  void fp32(const Slice& s) const {
    if (buffer(s).dtype != Dtype::fp32) bad(to_text(program_, s), " is ", to_string(buffer(s).dtype), ", not fp32");
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
  void check_attending(const Attending& s) const {
    kind(s.query, BufferKind::query);
    kind(s.key_value, BufferKind::key_value);
    if (s.query.heads != s.key_value.heads * problem_.group()) {
      bad(s.query.heads, " query heads read ", s.key_value.heads, " KV heads; the group is ", problem_.group());
    }
    if (buffer(s.query).width != buffer(s.key_value).width) {
      bad("queries of width ", buffer(s.query).width, " read keys of width ", buffer(s.key_value).width);
    }
    if (token_count(s.query_spans) != s.query.tokens) bad("query spans hold ", token_count(s.query_spans), " tokens");
    if (token_count(s.key_spans) != s.key_value.tokens) bad("key spans hold ", token_count(s.key_spans), " tokens");
    if (s.mask < 0 || s.mask > static_cast<int>(program_.masks.size())) bad("no mask ", s.mask);
  }
  void check(const Attend& s) const {
    check_attending(s);
    kind(s.owned, BufferKind::state);
    same_shape(s.query, s.owned);
    if (!s.results.given()) return;
    kind(s.results, BufferKind::output);
    same_shape(s.query, s.results);
  }
  void check(const AttendBackward& s) const {
    check_attending(s);
    kind(s.grad_output, BufferKind::grad_output);
    kind(s.output, BufferKind::output);
    kind(s.delta, BufferKind::delta);
    kind(s.grad_query, BufferKind::grad_query);
    kind(s.owned, BufferKind::grad_key_value);
    for (const Slice* row : {&s.grad_output, &s.output, &s.delta, &s.grad_query}) same_shape(s.query, *row);
    same_shape(s.key_value, s.owned);
    for (const Slice* sum : {&s.grad_query, &s.owned}) fp32(*sum);
    if (!s.results.given()) return;
    same_shape(s.results, s.owned);
    kind(s.results, BufferKind::grad_key_value);
    if (overlap(s.results, s.owned)) bad(to_text(program_, s.results), " overlaps ", to_text(program_, s.owned));
    if (buffer(s.results).dtype != buffer(s.key_value).dtype) {
      bad(to_text(program_, s.results), " is ", to_string(buffer(s.results).dtype), ", the keys are ",
          to_string(buffer(s.key_value).dtype));
    }
  }
  void check(const Apply& s) const {
    const auto operands = row_of(s.operation).operands();
    for (std::size_t i = 0; i < kMostOperands; ++i) {
      const Slice& slice = s.operands[i];
      if (i >= operands.size() && slice.given()) bad("has ", i + 1, " operands");
      if (!slice.given()) continue;
      const OperandRow& operand = operands[i];
      if (!operand.kinds.has(buffer(slice).kind)) {
        bad(to_text(program_, slice), " is a ", to_string(buffer(slice).kind), ", which ", to_string(s.operation),
            " does not take as `", operand.name, "`");
      }
      if (operand.fp32) fp32(slice);
      for (std::size_t j = 0; j < i; ++j) check_beside(s, j, i);
    }
  }
  // Two operands of one operation.
  void check_beside(const Apply& s, std::size_t i, std::size_t j) const {
    const Slice &a = s.operands[i], &b = s.operands[j];
    if (!a.given() || !b.given()) return;
    const OperandRow &one = row_of(s.operation).operands()[i], &other = row_of(s.operation).operands()[j];
    same_shape(a, b);
    if (one.kinds == other.kinds) kind(b, buffer(a).kind);
    const bool both_read = one.use == Use::reads && other.use == Use::reads;
    if (!both_read && overlap(a, b)) bad(to_text(program_, a), " overlaps ", to_text(program_, b));
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
