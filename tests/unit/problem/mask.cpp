// A mask in interval form admits exactly what the definitions of its terms admit.
#include "orrery/mask.hpp"

#include "definition.hpp"
#include "orrery/error.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

// The number of pairs on which the mask and the definition differ, and the ways in which the interval form is broken.
std::string difference(const Definition& definition) {
  const Mask mask = Mask::parse(definition.text(), definition.seq_len);
  for (std::int64_t i = 0; i < definition.seq_len; ++i) {
    const VisibleKeys seen = mask.visible(i);
    if (seen.keys.empty()) return concat("query ", i, " sees nothing, not even itself");
    if (seen.sinks.empty() ? seen.sinks != Range{0, 0} : seen.sinks.end >= seen.keys.begin) {
      return concat("query ", i, ": sinks are not in front of the keys with a gap");
    }
    for (std::int64_t j = 0; j < definition.seq_len; ++j) {
      if (mask.admits(i, j) != definition.admits(i, j)) return concat("query ", i, ", key ", j);
    }
  }
  // The pieces cover the sequence in order, and give what visible() gives.
  std::int64_t at = 0, pieces = 0;
  bool same = true;
  mask.for_each_piece(0, definition.seq_len, [&](const MaskPiece& piece) {
    same = same && piece.begin == at && piece.end > piece.begin;
    for (std::int64_t i = piece.begin; i < piece.end; ++i) {
      const VisibleKeys seen = mask.visible(i);
      same = same && seen.keys == Range{piece.keys_begin.at(i), piece.keys_end.at(i)} &&
             seen.sinks == Range{piece.sinks_begin.at(i), piece.sinks_end.at(i)};
    }
    at = piece.end;
    ++pieces;
  });
  if (!same || at != definition.seq_len) return "pieces do not cover the sequence";
  const std::int64_t documents = std::max<std::int64_t>(1, static_cast<std::int64_t>(definition.documents.size()));
  if (pieces > 7 * documents) return concat(pieces, " pieces for ", documents, " documents");
  return "";
}

}  // namespace

TEST_CASE("every combination of terms admits what its definition admits") {
  using Optional = std::optional<std::int64_t>;
  const std::vector<std::vector<std::int64_t>> documents = {{},     {9},          {0, 9},       {9, 0},   {4, 5},
                                                            {1, 8}, {2, 0, 0, 7}, {3, 1, 1, 4}, {1, 1, 7}};
  for (const auto& lengths : documents) {
    for (int causal = 0; causal < 2; ++causal) {
      for (Optional prefix : {Optional(), Optional(0), Optional(1), Optional(3), Optional(6), Optional(20)}) {
        for (Optional left : {Optional(), Optional(0), Optional(1), Optional(2), Optional(5), Optional(30)}) {
          for (Optional right : {Optional(), Optional(1), Optional(3), Optional(40)}) {
            for (Optional sinks : {Optional(), Optional(0), Optional(1), Optional(2), Optional(4), Optional(50)}) {
              if ((prefix && causal == 0) || (!left && (right || sinks))) continue;
              const Definition definition{causal == 1, prefix, left, right, sinks, lengths, 9};
              INFO(definition.text());
              const std::string found = difference(definition);
              if (!found.empty()) FAIL(found);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("random masks of every length up to 40 admit what their definitions admit") {
  Random random(1);
  for (int round = 0; round < 4000; ++round) {
    const Definition definition = random.mask(random.at_most(40));
    INFO(definition.text() << " over " << definition.seq_len);
    const std::string found = difference(definition);
    if (!found.empty()) FAIL(found);
  }
}

TEST_CASE("the interval form of known masks") {
  const Mask sliding = Mask::parse("causal+window:4+sinks:2", 100);
  CHECK(sliding.visible(0) == VisibleKeys{{0, 1}, {0, 0}});
  CHECK(sliding.visible(6) == VisibleKeys{{0, 7}, {0, 0}});  // keys 2..6 touch the sinks
  CHECK(sliding.visible(7) == VisibleKeys{{3, 8}, {0, 2}});  // key 2 is the gap
  CHECK(Mask::parse("causal+prefix:10", 100).visible(3) == VisibleKeys{{0, 10}, {0, 0}});
  CHECK(Mask::parse("window:2,3", 100).visible(50) == VisibleKeys{{48, 54}, {0, 0}});
  CHECK(Mask::parse("causal+documents:3,0,4", 7).visible(5) == VisibleKeys{{3, 6}, {0, 0}});
}

TEST_CASE("neighbouring queries with the same formulas are one piece") {
  const auto pieces = [](const char* text, std::int64_t seq_len) {
    int count = 0;
    Mask::parse(text, seq_len).for_each_piece(0, seq_len, [&](const MaskPiece&) { ++count; });
    return count;
  };
  CHECK(pieces("full", 1000) == 1);
  CHECK(pieces("causal", 1000) == 1);
  CHECK(pieces("causal+window:10", 1000) == 2);
  CHECK(pieces("causal+window:10+sinks:4", 1000) == 2);
  CHECK(pieces("window:10,10", 1000) == 3);
  CHECK(pieces("causal+prefix:10", 1000) == 2);
  CHECK(pieces("causal+documents:300,0,700", 1000) == 2);
  CHECK(pieces("full", 0) == 0);
}

TEST_CASE("pieces are clipped to the queries that are asked for") {
  const Mask mask = Mask::parse("causal+window:10", 1000);
  std::vector<Range> seen;
  mask.for_each_piece(5, 20, [&](const MaskPiece& piece) { seen.push_back({piece.begin, piece.end}); });
  REQUIRE(seen.size() == 2);
  CHECK(seen.front().begin == 5);
  CHECK(seen.front().end == seen.back().begin);
  CHECK(seen.back().end == 20);
  mask.for_each_piece(20, 20, [](const MaskPiece&) { FAIL("an empty range has no piece"); });
}

TEST_CASE("numbers far beyond the sequence do not overflow") {
  const std::int64_t seq_len = std::int64_t{1} << 40;
  const std::string huge = std::to_string(std::int64_t{1} << 62);
  const Mask mask =
      Mask::parse("causal+prefix:" + huge + "+window:" + huge + "," + huge + "+sinks:9223372036854775807", seq_len);
  CHECK(mask.visible(0) == VisibleKeys{{0, seq_len}, {0, 0}});
  CHECK(mask.visible(seq_len - 1) == VisibleKeys{{0, seq_len}, {0, 0}});
  CHECK(Mask::parse("causal+window:" + huge, seq_len).visible(seq_len - 1).keys == Range{0, seq_len});
}

TEST_CASE("a query outside the sequence is a bug of the caller") {
  const Mask mask = Mask::causal(4);
  CHECK_THROWS_AS(mask.visible(4), Error);
  CHECK_THROWS_AS(mask.visible(-1), Error);
}

}  // namespace orrery::test
