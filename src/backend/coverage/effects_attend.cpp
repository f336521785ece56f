// What an attend does to provenance. Its keys may have come in thousands of transfers, one from each document, and are
// then as many cells. Those that hold rows of one shard are read as one block: what the mask admits is counted once
// between a block of queries and a block of keys, and all rows of a block fold in the same share.
#include <algorithm>
#include <tuple>

#include "backend/coverage/effects.hpp"
#include "orrery/error.hpp"

namespace orrery::coverage {
namespace {

// Whether two lists of positions hold the same ones in the same order.
bool same_positions(const std::vector<Span>& a, const std::vector<Span>& b) {
  std::size_t i = 0, j = 0;
  std::int64_t used_a = 0, used_b = 0;  // tokens of the current span already compared
  while (i < a.size() && j < b.size()) {
    const std::int64_t count = std::min(a[i].count - used_a, b[j].count - used_b);
    if (count > 0 && a[i].at(used_a) != b[j].at(used_b)) return false;
    if (count > 1 && a[i].stride != b[j].stride) return false;
    used_a += count;
    used_b += count;
    if (used_a == a[i].count) {
      ++i;
      used_a = 0;
    }
    if (used_b == b[j].count) {
      ++j;
      used_b = 0;
    }
  }
  return token_count(std::span(a).subspan(i)) - used_a == 0 && token_count(std::span(b).subspan(j)) - used_b == 0;
}

// Cells with rows of one rank's shard, in the order of that shard, none of them twice; the same heads throughout.
struct Block {
  std::vector<Cell> cells;
  std::shared_ptr<const Share> share;
  Rows rows;

  Block(std::vector<Cell> of, const Context& context, int mask) : cells(std::move(of)), rows(std::vector<Span>{}) {
    Share all{rank(), {}, mask};
    for (const Cell& cell : cells) all.rows.push_back(cell.value.identity.rows(cell.tokens()));
    rows = Rows(context.shards[static_cast<std::size_t>(all.rank)].at(all.rows));
    share = std::make_shared<const Share>(std::move(all));
  }
  int rank() const { return cells.front().value.identity.rank; }
  int head_shift() const { return cells.front().value.identity.head_shift; }
  int head_begin() const { return cells.front().head_begin; }
  int head_end() const { return cells.front().head_end; }
};

// What is folded in of them is what the mask admits.
std::vector<Block> blocks_of(std::vector<Cell> cells, const Context& context, int mask) {
  const auto source = [](const Cell& cell) {
    return std::tuple(cell.head_begin, cell.head_end, cell.value.identity.rank, cell.value.identity.head_shift);
  };
  const auto rows = [](const Cell& cell) { return cell.value.identity.rows(cell.tokens()); };
  std::stable_sort(cells.begin(), cells.end(), [&](const Cell& a, const Cell& b) {
    return std::tuple(source(a), rows(a).begin) < std::tuple(source(b), rows(b).begin);
  });
  // A row that stands in two cells is in two blocks, and so is folded in twice.
  std::vector<Block> blocks;
  while (!cells.empty()) {
    std::vector<Cell> block, others;
    for (Cell& cell : cells) {
      const bool fits =
          block.empty() || (source(cell) == source(block.back()) && rows(cell).begin >= rows(block.back()).end);
      (fits ? block : others).push_back(std::move(cell));
    }
    blocks.emplace_back(std::move(block), context, mask);
    cells = std::move(others);
  }
  return blocks;
}

// The cells of a block that meet another block.
std::vector<Cell> meeting(const Mask& mask, const Block& block, bool rows_are_keys, const Block& other) {
  if (block.cells.size() == 1) return block.cells;
  std::vector<Cell> met;
  std::int64_t row = 0;
  for (const Cell& cell : block.cells) {
    const Range rows{row, row + cell.tokens().size()};
    row = rows.end;
    if (Meeting(mask, block.rows.at(rows), rows_are_keys).pairs_with(other.rows) > 0) {
      met.push_back(cell);
    }
  }
  return met;
}

}  // namespace

bool Effects::holds(const Cell& cell, const std::vector<Span>& claimed) const {
  if (!cell.value.written || !cell.value.identity.known()) return false;
  const Rows& shard = context_.shards[static_cast<std::size_t>(cell.value.identity.rank)];
  const Range rows = cell.value.identity.rows(cell.tokens());
  return rows.begin >= 0 && rows.end <= shard.count() && same_positions(shard.at(rows), claimed);
}

// The cells of a slice between whose claimed positions and those of the other side the mask admits anything; they have
// been found to hold what is claimed.
std::vector<Cell> Effects::visited(const Slice& slice, const Mask& mask, const Rows& claim, bool rows_are_keys,
                                   const Rows& others) {
  const char* const what = rows_are_keys ? "keys " : "queries ";
  std::vector<Cell> good;
  for (Cell& cell : memory(slice).read(slice)) {
    const std::vector<Span> claimed =
        claim.at(Range{cell.token_begin - slice.token_begin, cell.token_end - slice.token_begin});
    if (Meeting(mask, claimed, rows_are_keys).pairs_with(others) == 0) continue;
    if (!cell.value.written) {
      report(Fault::unwritten, step_, "reads ", what, cell.token_begin, " to ", cell.token_end,
             rows_are_keys ? " that never arrived" : " that nothing wrote");
    } else if (!holds(cell, claimed)) {
      report(Fault::wrong, step_, what, cell.token_begin, " to ", cell.token_end,
             " are not at the positions it claims");
    } else {
      good.push_back(std::move(cell));
    }
  }
  return good;
}

// Calls fold(query cells, query block, key cells, key block) for all cells of two blocks that meet. The query cells are
// cut to the heads that read the keys.
template <typename Fold>
void Effects::visit_blocks(const Attending& s, const Fold& fold) {
  const Mask& mask = this->mask(s.mask);
  const int group = context_.problem.group();
  if (s.mask_free && pairs(mask, s.query_spans, s.key_spans) != s.query.tokens * s.key_value.tokens) {
    report(Fault::wrong, step_, "is not free of the mask");
  }
  const Rows query_claim(s.query_spans), key_claim(s.key_spans);
  const auto key_blocks = blocks_of(visited(s.key_value, mask, key_claim, true, query_claim), context_, s.mask);
  const auto query_blocks = blocks_of(visited(s.query, mask, query_claim, false, key_claim), context_, s.mask);
  for (const Block& keys : key_blocks) {
    // The query heads of the slice that read these KV heads.
    const int first = s.query.head_begin + (keys.head_begin() - s.key_value.head_begin) * group;
    const int last = s.query.head_begin + (keys.head_end() - s.key_value.head_begin) * group;
    for (const Block& queries : query_blocks) {
      const int head_begin = std::max(queries.head_begin(), first), head_end = std::min(queries.head_end(), last);
      if (head_begin >= head_end || pairs(mask, queries.rows.spans(), keys.rows.spans()) == 0) continue;
      const int query_head = head_begin + queries.head_shift();
      const int kv_head = s.key_value.head_begin + (head_begin - s.query.head_begin) / group + keys.head_shift();
      if (query_head / group != kv_head) {
        report(Fault::wrong, step_, "query head ", query_head, " does not read KV head ", kv_head);
        continue;
      }
      std::vector<Cell> query_cells = meeting(mask, queries, false, keys);
      const std::vector<Cell> key_cells = meeting(mask, keys, true, queries);
      for (Cell& cell : query_cells) {
        cell.head_begin = head_begin;
        cell.head_end = head_end;
      }
      for (const Cell& cell : query_cells) context_.lineage.used(cell.value.writer, node_);
      for (const Cell& cell : key_cells) context_.lineage.used(cell.value.writer, node_);
      fold(query_cells, queries.share, key_cells, keys.share);
    }
  }
}

// Adds a share to the accumulated rows of one identity, where the mask admits any of it.
void Effects::fold_rows(const Slice& rows, const Identity& identity, const std::shared_ptr<const Share>& share,
                        bool rows_are_keys) {
  const Rows& shard = context_.shards[static_cast<std::size_t>(share->rank)];
  memory(rows).update(rows, [&](Cell& cell) {
    const Meeting own(mask(share->mask), positions(identity, cell.tokens()), rows_are_keys);
    if (own.pairs(shard.at(intersection(shard.within(own.reach()), share->rows))) == 0) return;
    if (!cell.value.written) {
      report(Fault::unwritten, step_, "adds to rows ", cell.token_begin, " to ", cell.token_end,
             " that were never cleared");
    } else if (cell.value.identity.known() && cell.value.identity != identity) {
      report(Fault::wrong, step_, "adds to rows of rank ", cell.value.identity.rank, " what belongs to rank ",
             identity.rank);
    } else {
      cell.value.identity = identity;
      cell.value.shares.push_back(share);
      context_.lineage.used(cell.value.writer, node_);
      cell.value.writer = node_;
    }
  });
}

void Effects::apply(const Attend& s) {
  if (s.begins) clear(s.owned);
  visit_blocks(s, [&](const auto& query_cells, const auto&, const auto&, const auto& keys) {
    for (const Cell& q : query_cells) {
      fold_rows(corresponding(s.owned, s.query, q), shifted(q.value.identity, s.owned, s.query), keys, false);
    }
  });
  finish(s);
}

void Effects::apply(const AttendBackward& s) {
  const int group = context_.problem.group();
  if (s.begins) clear(s.owned);
  visit_blocks(s, [&](const auto& query_cells, const auto& queries, const auto& key_cells, const auto& keys) {
    for (const Cell& q : query_cells) {
      const Identity& id = q.value.identity;
      for (const Slice* rows : {&s.grad_output, &s.output, &s.delta}) {
        expect_rows_of(corresponding(*rows, s.query, q), corresponding(s.query, s.query, q), id);
      }
      fold_rows(corresponding(s.grad_query, s.query, q), shifted(id, s.grad_query, s.query), keys, false);
    }
    const Cell& heads = query_cells.front();
    for (Cell kv : key_cells) {
      kv.head_begin = s.key_value.head_begin + (heads.head_begin - s.query.head_begin) / group;
      kv.head_end = s.key_value.head_begin + (heads.head_end - s.query.head_begin) / group;
      fold_rows(corresponding(s.owned, s.key_value, kv), shifted(kv.value.identity, s.owned, s.key_value), queries,
                true);
    }
  });
  finish(s);
}

}  // namespace orrery::coverage
