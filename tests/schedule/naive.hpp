// A naive interpreter of programs, to judge the checker by. A row is the list of terms summed into it, kept token by
// token; steps run one after the other as they are written; a transfer copies when both ends have come to it, and a
// step that touches what is still to arrive waits. No queues, no spans, no counting: just what the words mean.
#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "orrery/layout.hpp"
#include "orrery/schedule.hpp"

namespace orrery::test {

using Term = std::vector<int>;

struct Row {
  bool garbage = true;
  std::vector<Term> terms;

  const Term& symbol() const { return terms.at(0); }
};

// The positions that a scan's row composes, one term each, in the order in which they are applied.
inline std::vector<Term> scan_terms(const AttentionProblem& problem, const Layout& layout, int rank, Scan scan,
                                    std::int64_t row, int head, bool reversed) {
  const Span span = layout.shard(rank).at(static_cast<std::size_t>(row));
  std::vector<Term> terms;
  for (std::int64_t position = 0; position < problem.seq_len; ++position) {
    const bool own = position >= span.begin && position <= span.last() && (position - span.begin) % span.stride == 0;
    const bool before = position<span.begin, behind = position> span.last();
    const bool in = (scan == Scan::own && own) || (scan == Scan::exclusive && before) ||
                    (scan == Scan::inclusive && !behind) || (scan == Scan::exclusive_reversed && behind) ||
                    (scan == Scan::inclusive_reversed && !before);
    if (in) terms.push_back({static_cast<int>(BufferKind::scan), static_cast<int>(position), head});
  }
  if (reversed) std::reverse(terms.begin(), terms.end());
  return terms;
}

// The direction in which the caller composed what it gives.
inline bool scans_reversed(const RankProgram& program) {
  return std::any_of(program.buffers.begin(), program.buffers.end(), [](const Buffer& b) {
    return b.scan == Scan::exclusive_reversed || b.scan == Scan::inclusive_reversed;
  });
}

class NaiveRank {
 public:
  NaiveRank(const AttentionProblem& problem, const Layout& layout, const RankProgram& program)
      : problem_(problem), program_(program) {
    for (const Buffer& b : program.buffers) {
      memory_.emplace_back(static_cast<std::size_t>(b.tokens * b.heads));
      if (b.role != BufferRole::input) continue;
      if (b.kind == BufferKind::scan) {
        for (std::int64_t t = 0; t < b.tokens; ++t) {
          for (int h = 0; h < b.heads; ++h) {
            memory_.back()[static_cast<std::size_t>(t * b.heads + h)] = {
                false, scan_terms(problem, layout, program.rank, b.scan, t, h, scans_reversed(program))};
          }
        }
        continue;
      }
      for (std::int64_t t = 0; t < b.tokens; ++t) {
        for (int h = 0; h < b.heads; ++h) {
          const int position = static_cast<int>(layout.position(program.rank, t));
          memory_.back()[static_cast<std::size_t>(t * b.heads + h)] = {false,
                                                                       {{static_cast<int>(b.kind), position, h}}};
        }
      }
    }
  }

  const RankProgram& program() const { return program_; }
  const Step& step() const { return program_.steps[pc]; }
  std::size_t pc = 0;
  std::vector<Slice> arriving;

  Row& row(const Slice& s, std::int64_t t, int h) {
    const Buffer& b = program_.buffers.at(static_cast<std::size_t>(s.buffer));
    if (s.token_begin + t < 0 || s.token_begin + t >= b.tokens || s.head_begin + h < 0 || s.head_begin + h >= b.heads) {
      throw std::out_of_range("row");
    }
    return memory_[static_cast<std::size_t>(s.buffer)]
                  [static_cast<std::size_t>((s.token_begin + t) * b.heads + s.head_begin + h)];
  }
  std::vector<Row>& buffer(int id) { return memory_[static_cast<std::size_t>(id)]; }

  bool waits() const {
    bool waiting = false;
    for_each_access(step(), [&](const Access& a) {
      for (const Slice& s : arriving) waiting = waiting || overlap(s, a.slice);
    });
    return waiting;
  }

  void compute() {
    std::visit([&](const auto& s) { run(s); }, step());
  }

 private:
  static std::vector<int> positions(const std::vector<Span>& spans) {
    std::vector<int> list;
    for (const Span& s : spans) {
      for (std::int64_t i = 0; i < s.count; ++i) list.push_back(static_cast<int>(s.at(i)));
    }
    return list;
  }
  template <typename Visit>
  void pairs(const Attending& s, const Visit& visit) {
    const Mask& mask = mask_of(program_, problem_, s.mask);
    const auto q = positions(s.query_spans), k = positions(s.key_spans);
    for (std::int64_t a = 0; a < s.query.tokens; ++a) {
      for (std::int64_t b = 0; b < s.key_value.tokens; ++b) {
        if (!s.mask_free && !mask.admits(q.at(static_cast<std::size_t>(a)), k.at(static_cast<std::size_t>(b))))
          continue;
        for (int h = 0; h < s.query.heads; ++h) visit(a, b, h, h / problem_.group());
      }
    }
  }
  static Term join(std::initializer_list<const Row*> rows) {
    Term joined;
    for (const Row* r : rows) joined.insert(joined.end(), r->symbol().begin(), r->symbol().end());
    return joined;
  }
  static void add_term(Row& sum, std::initializer_list<const Row*> rows) {
    for (const Row* r : rows) {
      if (r->garbage || r->terms.empty()) {
        sum.garbage = true;
        return;
      }
    }
    sum.terms.push_back(join(rows));
  }
  template <typename Visit>
  void rows(const Slice& s, const Visit& visit) {
    for (std::int64_t t = 0; t < s.tokens; ++t) {
      for (int h = 0; h < s.heads; ++h) visit(t, h);
    }
  }

  void run(const Exchange&) {}
  void run(const Attend& s) {
    if (s.begins) clear(s.owned);
    pairs(s, [&](auto a, auto b, int h, int kv) {
      add_term(row(s.owned, a, h), {&row(s.query, a, h), &row(s.key_value, b, kv)});
    });
    finish(s);
  }
  void run(const AttendBackward& s) {
    if (s.begins) clear(s.owned);
    pairs(s, [&](auto a, auto b, int h, int kv) {
      const auto all = {&std::as_const(row(s.query, a, h)), &std::as_const(row(s.key_value, b, kv)),
                        &std::as_const(row(s.grad_output, a, h)), &std::as_const(row(s.output, a, h)),
                        &std::as_const(row(s.delta, a, h))};
      add_term(row(s.grad_query, a, h), all);
      add_term(row(s.owned, b, kv), all);
    });
    finish(s);
  }
  void finish(const Attending& s) {
    if (!s.results.given()) return;
    copy(s.results, s.owned);
    rows(s.owned, [&](auto t, int h) { row(s.owned, t, h) = {}; });
  }
  void run(const Apply& s) {
    const auto operands = row_of(s.operation).operands();
    std::vector<Slice> read;
    for (std::size_t i = 0; i < operands.size(); ++i) {
      if (operands[i].use == Use::reads && s.operands[i].given()) read.push_back(s.operands[i]);
    }
    for (std::size_t i = 0; i < operands.size(); ++i) {
      if (s.operands[i].given()) change(operands[i].use, s.operands[i], read);
    }
  }
  void change(Use use, const Slice& into, const std::vector<Slice>& read) {
    switch (use) {
      case Use::reads:
        return;
      case Use::clears:
        return clear(into);
      case Use::copies:
        return copy(into, read.at(0));
      case Use::derives:
        return rows(into, [&](auto t, int h) {
          Row derived{false, {{}}};
          for (const Slice& from : read) {
            const Row& one = row(from, t, h);
            derived.garbage = derived.garbage || one.garbage || one.terms.empty();
            if (!derived.garbage) derived.terms[0] = join({&derived, &one});
          }
          row(into, t, h) = derived;
        });
      case Use::sums:
        return put_together(into, into, read.at(0));
      case Use::composes:
        return put_together(into, read.at(0), into);
      case Use::keeps:
        return rows(into, [&](auto t, int h) {
          for (const Slice& from : read) row(into, t, h).garbage = row(into, t, h).garbage || row(from, t, h).garbage;
        });
    }
  }
  void clear(const Slice& into) {
    rows(into, [&](auto t, int h) { row(into, t, h) = {false, {}}; });
  }
  void copy(const Slice& into, const Slice& from) {
    rows(into, [&](auto t, int h) { row(into, t, h) = Row(row(from, t, h)); });
  }
  // The terms of one, then those of the other.
  void put_together(const Slice& into, const Slice& first, const Slice& second) {
    rows(into, [&](auto t, int h) {
      Row both = row(first, t, h);
      const Row other = row(second, t, h);
      both.garbage = both.garbage || other.garbage;
      both.terms.insert(both.terms.end(), other.terms.begin(), other.terms.end());
      row(into, t, h) = both;
    });
  }

  const AttentionProblem& problem_;
  const RankProgram& program_;
  std::vector<std::vector<Row>> memory_;
};

// Runs all ranks; throws where they get stuck or a transfer's ends differ.
inline void naive_run(std::vector<NaiveRank>& ranks) {
  struct End {
    std::size_t rank;
    Slice slice;
    std::vector<Row> rows;  // of a send, as it was sent
  };
  std::map<std::tuple<int, int, int>, std::pair<std::deque<End>, std::deque<End>>> channels;
  const auto arrive = [&] {
    for (auto& [key, channel] : channels) {
      auto& [sends, receives] = channel;
      while (!sends.empty() && !receives.empty()) {
        const End &from = sends.front(), &to = receives.front();
        if (from.slice.tokens != to.slice.tokens || from.slice.heads != to.slice.heads)
          throw std::runtime_error("mismatch");
        const auto kind = [&](const End& e) {
          return ranks[e.rank].program().buffers[static_cast<std::size_t>(e.slice.buffer)].kind;
        };
        if (kind(from) != kind(to)) throw std::runtime_error("mismatch");
        for (std::int64_t t = 0; t < to.slice.tokens; ++t) {
          for (int h = 0; h < to.slice.heads; ++h) {
            ranks[to.rank].row(to.slice, t, h) = from.rows[static_cast<std::size_t>(t * to.slice.heads + h)];
          }
        }
        auto& arriving = ranks[to.rank].arriving;
        arriving.erase(std::find(arriving.begin(), arriving.end(), to.slice));
        sends.pop_front();
        receives.pop_front();
      }
    }
  };
  for (bool moved = true; moved;) {
    moved = false;
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      NaiveRank& rank = ranks[r];
      while (rank.pc < rank.program().steps.size() && !rank.waits()) {
        if (const auto* exchange = std::get_if<Exchange>(&rank.step())) {
          const int me = rank.program().rank;
          for (const Transfer& t : exchange->sends) {
            End end{r, t.slice, {}};
            for (std::int64_t i = 0; i < t.slice.tokens; ++i) {
              for (int h = 0; h < t.slice.heads; ++h) end.rows.push_back(rank.row(t.slice, i, h));
            }
            channels[{me, t.peer, exchange->lane}].first.push_back(std::move(end));
          }
          for (const Transfer& t : exchange->receives) {
            rank.row(t.slice, 0, 0);
            rank.row(t.slice, t.slice.tokens - 1, t.slice.heads - 1);
            rank.arriving.push_back(t.slice);
            channels[{t.peer, me, exchange->lane}].second.push_back({r, t.slice, {}});
          }
        } else {
          rank.compute();
        }
        ++rank.pc;
        moved = true;
        arrive();
      }
    }
  }
  for (const NaiveRank& rank : ranks) {
    if (rank.pc < rank.program().steps.size() || !rank.arriving.empty()) throw std::runtime_error("stuck");
  }
  for (const auto& [key, channel] : channels) {
    if (!channel.first.empty() || !channel.second.empty()) throw std::runtime_error("a transfer without partner");
  }
}

// The terms that a row of a result must have, by the definition of attention.
inline std::vector<Term> expected(const AttentionProblem& problem, BufferKind kind, int position, int head) {
  std::vector<Term> terms;
  const auto symbol = [](BufferKind k, int p, int h) { return Term{static_cast<int>(k), p, h}; };
  const auto term = [&](int q, int qh, int k) {
    Term joined = symbol(BufferKind::query, q, qh);
    const auto append = [&](const Term& t) { joined.insert(joined.end(), t.begin(), t.end()); };
    append(symbol(BufferKind::key_value, k, qh / problem.group()));
    if (kind == BufferKind::output) return joined;
    append(symbol(BufferKind::grad_output, q, qh));
    append(symbol(BufferKind::output, q, qh));
    append(symbol(BufferKind::output, q, qh));  // delta's two
    append(symbol(BufferKind::grad_output, q, qh));
    return joined;
  };
  for (int other = 0; other < problem.seq_len; ++other) {
    if (kind == BufferKind::grad_key_value) {
      if (!problem.mask.admits(other, position)) continue;
      for (int h = head * problem.group(); h < (head + 1) * problem.group(); ++h)
        terms.push_back(term(other, h, position));
    } else if (problem.mask.admits(position, other)) {
      terms.push_back(term(position, head, other));
    }
  }
  std::sort(terms.begin(), terms.end());
  return terms;
}

inline bool results_are_right(const AttentionProblem& problem, const Layout& layout, std::vector<NaiveRank>& ranks) {
  for (NaiveRank& rank : ranks) {
    const auto& buffers = rank.program().buffers;
    for (std::size_t i = 0; i < buffers.size(); ++i) {
      const Buffer& b = buffers[i];
      if (b.role != BufferRole::output) continue;
      for (std::int64_t t = 0; t < b.tokens; ++t) {
        for (int h = 0; h < b.heads; ++h) {
          Row row = rank.buffer(static_cast<int>(i))[static_cast<std::size_t>(t * b.heads + h)];
          if (b.kind == BufferKind::scan) {
            const int r = rank.program().rank;
            const auto terms = scan_terms(problem, layout, r, b.scan, t, h, scans_reversed(rank.program()));
            if (row.garbage || row.terms != terms) return false;
            continue;
          }
          std::sort(row.terms.begin(), row.terms.end());
          const int position = static_cast<int>(layout.position(rank.program().rank, t));
          if (row.garbage || row.terms != expected(problem, b.kind, position, h)) return false;
        }
      }
    }
  }
  return true;
}

inline bool naive_is_right(const AttentionProblem& problem, const Layout& layout,
                           const std::vector<RankProgram>& forward, const std::vector<RankProgram>& backward) try {
  std::vector<NaiveRank> first, second;
  for (const RankProgram& p : forward) first.emplace_back(problem, layout, p);
  naive_run(first);
  if (!results_are_right(problem, layout, first)) return false;
  for (const RankProgram& p : backward) {
    NaiveRank& rank = second.emplace_back(problem, layout, p);
    for (std::size_t i = 0; i < p.buffers.size(); ++i) {
      if (p.buffers[i].role != BufferRole::kept) continue;
      NaiveRank& earlier = first[static_cast<std::size_t>(p.rank)];
      rank.buffer(static_cast<int>(i)) = earlier.buffer(earlier.program().find(p.buffers[i].name));
    }
  }
  naive_run(second);
  return results_are_right(problem, layout, second);
} catch (const std::exception&) {
  return false;
}

}  // namespace orrery::test
