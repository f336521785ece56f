// Layouts deal out every token once, say where each of them is, and bound what a range of ranks holds.
#include "orrery/layout.hpp"

#include "definition.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

const std::vector<std::string> kLayouts = {"contiguous", "zigzag", "striped", "striped:2", "striped:3", "striped:64"};

// Empty when the layout deals every token once, in rising order, and its other answers agree with its shards.
std::string difference(const Layout& layout) {
  const std::int64_t seq_len = layout.seq_len();
  std::vector<int> owners(static_cast<std::size_t>(seq_len));
  std::int64_t most = 0;
  for (int rank = 0; rank < layout.world_size(); ++rank) {
    const std::vector<Span> shard = layout.shard(rank);
    const std::vector<std::int64_t> tokens = tokens_of(shard);
    if (tokens != positions(layout, rank)) return "positions";
    if (token_count(shard) != layout.tokens(rank)) return concat("tokens of rank ", rank);
    most = std::max(most, layout.tokens(rank));
    for (std::size_t s = 0; s < shard.size(); ++s) {
      if (shard[s].count < 1) return "an empty span";
      if (s > 0 && shard[s - 1].last() >= shard[s].begin) return "spans do not rise";
      if (s > 0 && shard[s - 1].last() + 1 == shard[s].begin) return "spans that touch are not joined";
    }
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      const std::int64_t index = static_cast<std::int64_t>(t);
      if (tokens[t] < 0 || tokens[t] >= seq_len) return "a token outside the sequence";
      ++owners[tokens[t]];
      if (layout.position(rank, index) != tokens[t]) return concat("position of rank ", rank, ", token ", t);
      if (layout.owner(tokens[t]) != std::pair{rank, index}) return concat("owner of ", tokens[t]);
    }
  }
  if (std::count(owners.begin(), owners.end(), 1) != seq_len) return "a token is not owned exactly once";
  if (most != layout.max_tokens()) return "max_tokens";
  return "";
}

std::string hull_difference(const Layout& layout, int first, int count, std::size_t spans_allowed) {
  const std::vector<Span> hull = layout.shards_hull(first, count);
  const std::vector<std::int64_t> held = tokens_of(hull);
  if (!std::is_sorted(held.begin(), held.end())) return "not sorted";
  if (std::adjacent_find(held.begin(), held.end()) != held.end()) return "not disjoint";
  if (count > 1 && hull.size() > spans_allowed) return concat(hull.size(), " spans");
  std::vector<std::int64_t> owned;
  for (int r = 0; r < std::min(count, layout.world_size()); ++r) {
    const std::vector<std::int64_t> tokens = positions(layout, (first + r) % layout.world_size());
    owned.insert(owned.end(), tokens.begin(), tokens.end());
  }
  std::sort(owned.begin(), owned.end());
  if (!std::includes(held.begin(), held.end(), owned.begin(), owned.end())) return "a token is not covered";
  if (!layout.text().starts_with("striped") && held != owned) return "more than the shards";
  return "";
}

void check(const std::string& text, const Mask& mask, int world_size) {
  INFO(text << " of " << mask.seq_len() << " tokens over " << world_size << ", " << mask.text());
  const Layout layout = Layout::make(text, mask, world_size);
  REQUIRE(difference(layout) == "");
}

}  // namespace

TEST_CASE("every token has exactly one owner, at any length over any number of ranks") {
  for (const std::string& text : kLayouts) {
    for (int world_size : {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 64}) {
      for (std::int64_t seq_len = 0; seq_len <= 40; ++seq_len) check(text, Mask::full(seq_len), world_size);
      for (std::int64_t seq_len : {127, 128, 1000, 1021}) check(text, Mask::full(seq_len), world_size);
    }
  }
}

TEST_CASE("zigzag cuts each document, other layouts the sequence") {
  for (const std::string& text : kLayouts) {
    for (int world_size : {1, 2, 3, 5, 8, 16}) {
      for (const char* lengths : {"0", "0,0", "7", "0,7,0", "1,1,1,1", "5,0,11,1,30", "64,64", "3,0,0,200,1"}) {
        std::int64_t seq_len = 0;
        for (const char* at = lengths; *at != 0;)
          seq_len += std::strtoll(at + (*at == ','), const_cast<char**>(&at), 10);
        check(text, Mask::parse(std::string("causal+documents:") + lengths, seq_len), world_size);
      }
    }
  }
  const Mask mask = Mask::parse("documents:8,4", 12);
  CHECK(Layout::make("zigzag", mask, 2).shard(0) == std::vector<Span>{{0, 2, 1}, {6, 3, 1}, {11, 1, 1}});
  CHECK(Layout::make("zigzag", mask, 2).shard(1) == std::vector<Span>{{2, 4, 1}, {9, 2, 1}});
  CHECK(Layout::make("contiguous", mask, 2).shard(0) == std::vector<Span>{{0, 6, 1}});
}

TEST_CASE("shards are the spans that the layout's name says") {
  const Mask mask = Mask::causal(12);
  const auto shard = [&](const char* text, int world_size, int rank) {
    return Layout::make(text, mask, world_size).shard(rank);
  };
  CHECK(shard("contiguous", 5, 1) == std::vector<Span>{{2, 2, 1}});
  CHECK(shard("contiguous", 5, 4) == std::vector<Span>{{9, 3, 1}});
  CHECK(shard("zigzag", 3, 0) == std::vector<Span>{{0, 2, 1}, {10, 2, 1}});
  CHECK(shard("zigzag", 3, 2) == std::vector<Span>{{4, 4, 1}});
  CHECK(shard("zigzag", 1, 0) == std::vector<Span>{{0, 12, 1}});
  CHECK(shard("striped", 5, 1) == std::vector<Span>{{1, 3, 5}});
  CHECK(shard("striped", 5, 2) == std::vector<Span>{{2, 2, 5}});
  CHECK(shard("striped", 13, 12).empty());
  CHECK(shard("striped:5", 2, 0) == std::vector<Span>{{0, 5, 1}, {10, 2, 1}});
  CHECK(shard("striped:5", 2, 1) == std::vector<Span>{{5, 5, 1}});
  CHECK(shard("striped:4", 1, 0) == std::vector<Span>{{0, 12, 1}});
}

TEST_CASE("shares differ by at most one token, two a document under zigzag, or one stripe") {
  const Mask mask = Mask::parse("documents:1,40,0,333,127,500", 1001);
  for (const auto& [text, most] : {std::pair{"contiguous", 1}, {"zigzag", 2 * 6}, {"striped", 1}, {"striped:16", 16}}) {
    for (int world_size : {1, 2, 3, 7, 16, 64}) {
      const Layout layout = Layout::make(text, mask, world_size);
      std::int64_t least = layout.max_tokens();
      for (int rank = 0; rank < world_size; ++rank) least = std::min(least, layout.tokens(rank));
      CHECK(layout.max_tokens() - least <= most);
    }
  }
}

TEST_CASE("the hull of a range of ranks covers their tokens in few spans") {
  const Mask whole = Mask::full(101), documents = Mask::parse("documents:30,0,1,50,20", 101);
  for (int world_size : {1, 2, 3, 4, 5, 8, 16}) {
    for (int first = 0; first < world_size; ++first) {
      for (int count = 0; count <= world_size + 1; ++count) {
        for (const std::string& text : kLayouts) {
          INFO(text << " " << world_size << " ranks, from " << first << ", " << count);
          const bool striped = text.starts_with("striped");
          const std::size_t spans = striped ? 1 : text == "zigzag" ? 4 : 2;
          REQUIRE(hull_difference(Layout::make(text, whole, world_size), first, count, spans) == "");
          const std::size_t document_spans = text == "zigzag" ? 4 * 5 : spans;
          REQUIRE(hull_difference(Layout::make(text, documents, world_size), first, count, document_spans) == "");
        }
      }
    }
  }
  const Layout layout = Layout::make("contiguous", whole, 4);
  CHECK(layout.shards_hull(3, 2) == std::vector<Span>{{0, 25, 1}, {75, 26, 1}});
  CHECK(layout.shards_hull(-1, 1) == layout.shard(3));
  CHECK(layout.shards_hull(4, 1) == layout.shard(0));
  CHECK(layout.shards_hull(2, 1000000000) == std::vector<Span>{{0, 101, 1}});
}

TEST_CASE("long sequences over many ranks do not overflow") {
  const std::int64_t seq_len = std::int64_t{1} << 40;
  for (const char* text : {"contiguous", "zigzag", "striped", "striped:9223372036854775807"}) {
    const Layout layout = Layout::make(text, Mask::full(seq_len), 1 << 20);
    for (std::int64_t position : {std::int64_t{0}, seq_len / 3, seq_len - 1}) {
      const auto [rank, index] = layout.owner(position);
      CHECK(layout.position(rank, index) == position);
    }
  }
}

TEST_CASE("layouts have one text, and other texts are refused") {
  const Mask mask = Mask::full(10);
  CHECK(Layout::make("striped:1", mask, 2).text() == "striped");
  CHECK(Layout::make("striped:016", mask, 2).text() == "striped:16");
  CHECK(Layout::make("zigzag", mask, 2).text() == "zigzag");
  for (const char* text : {"", "ring", "zigzag:2", "Striped", "striped:", "striped:0", "striped:-1", "striped:2,2",
                           "striped:x", "striped:99999999999999999999"}) {
    CHECK_THROWS_WITH(Layout::make(text, mask, 2), ContainsSubstring(std::string("\"") + text + "\""));
  }
  CHECK_THROWS_WITH(Layout::make("zigzag", mask, 0), ContainsSubstring("0 ranks"));
  CHECK_THROWS_WITH(Layout::make("zigzag", mask, -3), ContainsSubstring("-3 ranks"));
}

TEST_CASE("ranks, tokens and positions that do not exist are bugs of the caller") {
  for (const std::string& text : kLayouts) {
    const Layout layout = Layout::make(text, Mask::full(10), 3);
    CHECK_THROWS_AS(layout.shard(3), Error);
    CHECK_THROWS_AS(layout.tokens(-1), Error);
    CHECK_THROWS_AS(layout.position(0, layout.tokens(0)), Error);
    CHECK_THROWS_AS(layout.position(0, -1), Error);
    CHECK_THROWS_AS(layout.owner(10), Error);
    CHECK_THROWS_AS(layout.owner(-1), Error);
  }
}

}  // namespace orrery::test
