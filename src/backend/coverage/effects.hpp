// What each computing step does to provenance, and the faults that show while it does: rows that were never written,
// rows that are not what the step claims they are, states of different queries mixed, scans out of order.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/coverage/memory.hpp"
#include "backend/coverage/rows.hpp"
#include "orrery/check.hpp"
#include "orrery/layout.hpp"

namespace orrery::coverage {

// Collects findings, up to a limit.
class Findings {
 public:
  explicit Findings(std::size_t at_most) : at_most_(at_most) {}
  void add(Finding finding) {
    if (!full()) list_.push_back(std::move(finding));
  }
  bool full() const { return list_.size() >= at_most_; }
  std::vector<Finding> take() { return std::move(list_); }

 private:
  std::size_t at_most_;
  std::vector<Finding> list_;
};

// Which step's result went into which: a node for every step, and one for every receive. What no final result reaches
// is needless.
class Lineage {
 public:
  struct Node {
    Pass pass;
    int rank, step;
    int receive;  // -1: the step as a whole
  };
  int add(Node node) {
    nodes_.push_back(node);
    return static_cast<int>(nodes_.size()) - 1;
  }
  void used(int node, int by) {
    if (node >= 0 && by != node) edges_.emplace_back(by, node);
  }
  void result(int node) {
    if (node >= 0) results_.push_back(node);
  }
  const std::vector<Node>& nodes() const { return nodes_; }
  // For each node, whether a result depends on it.
  std::vector<char> reached() const;

 private:
  std::vector<Node> nodes_;
  std::vector<std::pair<int, int>> edges_;  // (user, used)
  std::vector<int> results_;
};

struct Context {
  const AttentionProblem& problem;
  std::vector<Rows> shards;  // by rank
  Findings& findings;
  Lineage& lineage;
};

// The buffers of one rank, and the steps on them.
class Effects {
 public:
  Effects(Context& context, const RankProgram& program);

  // Takes over the kept buffers of an earlier program of the same rank.
  void inherit(const Effects& earlier);

  void apply(int step, int node);
  Memory& memory(const Slice& slice) { return memory_[static_cast<std::size_t>(slice.buffer)]; }
  const Memory& memory(int buffer) const { return memory_[static_cast<std::size_t>(buffer)]; }
  const RankProgram& program() const { return program_; }
  const Step& step(int step) const { return program_.steps[static_cast<std::size_t>(step)]; }

  template <typename... Parts>
  void report(Fault fault, int step, const Parts&... parts) {
    if (context_.findings.full()) return;  // the text of an exchange is long
    context_.findings.add({fault, program_.pass, program_.rank, step,
                           (step >= 0 ? to_text(program_, step) + ": " : std::string()) + concat(parts...)});
  }

 private:
  void apply(const Exchange&) {}
  void apply(const Attend& s);
  void apply(const AttendBackward& s);
  void apply(const Apply& s);

  void clear(const Slice& into);
  void finish(const Attending& s);
  void copy(const Slice& into, const Slice& from);
  void derive(const Slice& into, std::span<const Slice> from);
  void sum(const Slice& into, const Slice& from);
  void compose(const Slice& into, const Slice& earlier);
  void keep(const Slice& into, std::span<const Slice> beside);

  // The positions of rows of a shard; and whether a cell holds just the rows a step claims.
  std::vector<Span> positions(const Identity& identity, Range tokens) const;
  bool holds(const Cell& cell, const std::vector<Span>& claimed) const;
  // Reads rows that must be written and be those of the queries: out, lse, do, delta.
  void expect_rows_of(const Slice& slice, const Slice& query, const Identity& identity);

  std::vector<Cell> visited(const Slice& slice, const Mask& mask, const Rows& claim, bool rows_are_keys,
                            const Rows& others);
  template <typename Fold>
  void visit_blocks(const Attending& s, const Fold& fold);
  void fold_rows(const Slice& rows, const Identity& identity, const std::shared_ptr<const Share>& share,
                 bool rows_are_keys);
  const Mask& mask(int index) const { return mask_of(program_, context_.problem, index); }

  Context& context_;
  const RankProgram& program_;
  std::vector<Memory> memory_;
  int step_ = -1, node_ = -1;
};

// What row `row` of a caller's scan composes, as its buffer says; nothing without such a span.
std::optional<Composed> claimed(const Context& context, const RankProgram& program, const Buffer& buffer,
                                std::int64_t row);

}  // namespace orrery::coverage
