// Counting and reaching over span lists, compared with a walk over all pairs.
#include "definition.hpp"
#include "orrery/error.hpp"
#include "support/catch.hpp"
#include "support/processor_time.hpp"

namespace orrery::test {
namespace {

struct Case {
  Definition definition;
  std::vector<Span> queries, keys;
};

// Empty when the answers of the library are the ones that a walk over all pairs gives.
std::string difference(const Case& c) {
  const Mask mask = Mask::parse(c.definition.text(), c.definition.seq_len);
  const std::vector<std::int64_t> queries = tokens_of(c.queries), keys = tokens_of(c.keys);
  std::int64_t count = 0;
  Range seeing, positions;  // hulls: of query indices that see a key, and of the positions that the queries see
  std::vector<bool> seen(keys.size());
  const auto extend = [](Range& hull, std::int64_t at) {
    hull = hull.empty() ? Range{at, at + 1} : Range{std::min(hull.begin, at), std::max(hull.end, at + 1)};
  };
  for (std::size_t q = 0; q < queries.size(); ++q) {
    for (std::size_t k = 0; k < keys.size(); ++k) {
      if (!c.definition.admits(queries[q], keys[k])) continue;
      ++count;
      seen[k] = true;
      extend(seeing, static_cast<std::int64_t>(q));
    }
    for (std::int64_t j = 0; j < c.definition.seq_len; ++j) {
      if (c.definition.admits(queries[q], j)) extend(positions, j);
    }
  }

  if (pairs(mask, c.queries, c.keys) != count) {
    return concat("pairs gives ", pairs(mask, c.queries, c.keys), ", not ", count);
  }
  const std::int64_t all = static_cast<std::int64_t>(queries.size() * keys.size());
  const Coverage coverage = count == 0 ? Coverage::empty : count == all ? Coverage::full : Coverage::partial;
  if (classify(mask, c.queries, c.keys) != coverage) return "classify";

  const Range range = queries_seeing(mask, c.queries, c.keys);
  if (range != seeing) {
    return concat("queries_seeing gives [", range.begin, ", ", range.end, "), not [", seeing.begin, ", ", seeing.end,
                  ")");
  }

  const bool dense = std::all_of(c.queries.begin(), c.queries.end(), [](const Span& s) { return s.stride == 1; });
  std::vector<bool> given(keys.size());
  std::int64_t end = -1;
  for (const Range& r : keys_seen(mask, c.queries, c.keys)) {
    if (r.empty() || r.begin <= end || r.end > static_cast<std::int64_t>(keys.size())) return "keys_seen: bad ranges";
    for (std::int64_t k = r.begin; k < r.end; ++k) {
      given[k] = true;
      if (keys[k] < positions.begin || keys[k] >= positions.end) return concat("keys_seen: key ", k, " is far outside");
    }
    end = r.end;
  }
  for (std::size_t k = 0; k < keys.size(); ++k) {
    if (seen[k] && !given[k]) return concat("keys_seen leaves out key ", k);
    if (dense && given[k] && !seen[k]) return concat("keys_seen: queries without gaps do not see key ", k);
  }
  return "";
}

std::string text_of(const std::vector<Span>& spans) {
  std::string text;
  for (const Span& s : spans) text += concat(" {", s.begin, ",", s.count, ",", s.stride, "}");
  return text;
}

void check(const Case& c) {
  const std::string found = difference(c);
  if (found.empty()) return;
  FAIL(c.definition.text() << " queries" << text_of(c.queries) << " keys" << text_of(c.keys) << ": " << found);
}

}  // namespace

TEST_CASE("random masks and span lists agree with a walk over all pairs") {
  Random random(3);
  for (int round = 0; round < 20000; ++round) {
    const std::int64_t seq_len = 1 + random.below(random.chance(20) ? 120 : 30);
    check({random.mask(seq_len), random.spans(seq_len), random.spans(seq_len)});
  }
}

TEST_CASE("narrow windows between two strides agree with a walk over all pairs") {
  // The next visible key is then a question about residues, not about bounds.
  for (std::int64_t left = 0; left < 3; ++left) {
    for (std::int64_t query_stride = 1; query_stride <= 9; ++query_stride) {
      for (std::int64_t key_stride = 1; key_stride <= 9; ++key_stride) {
        for (std::int64_t begin = 0; begin < 10; ++begin) {
          Case c{{}, {{3, (60 - 3) / query_stride, query_stride}}, {{begin, (60 - begin) / key_stride, key_stride}}};
          c.definition.seq_len = 60;
          c.definition.left = left;
          check(c);
        }
      }
    }
  }
}

TEST_CASE("lists without tokens admit nothing") {
  const Mask mask = Mask::causal(8);
  const std::vector<Span> none, hollow = {{3, 0, 1}}, some = {{0, 8, 1}};
  for (const auto& list : {none, hollow}) {
    CHECK(pairs(mask, list, some) == 0);
    CHECK(pairs(mask, some, list) == 0);
    CHECK(classify(mask, list, some) == Coverage::empty);
    CHECK(classify(mask, some, list) == Coverage::empty);
    CHECK(keys_seen(mask, list, some).empty());
    CHECK(keys_seen(mask, some, list).empty());
    CHECK(queries_seeing(mask, list, some) == Range{});
    CHECK(queries_seeing(mask, some, list) == Range{});
  }
  CHECK(pairs(Mask::full(0), none, none) == 0);
}

TEST_CASE("counts of long sequences are exact, and no walk along them") {
  const std::int64_t n = std::int64_t{1} << 30;
  const std::vector<Span> whole = {{0, n, 1}}, even = {{0, n / 2, 2}}, odd = {{1, n / 2, 2}};
  CHECK(pairs(Mask::causal(n), whole, whole) == n / 2 * (n + 1));
  CHECK(pairs(Mask::causal(n), even, odd) == n / 4 * (n / 2 - 1));
  CHECK(pairs(Mask::causal(n), odd, even) == n / 4 * (n / 2 + 1));
  CHECK(pairs(Mask::full(n), whole, whole) == n * n);
  const std::int64_t endless = std::int64_t{1} << 40;  // no test would come to the end of a walk
  const std::vector<Span> all_of_it = {{0, endless, 1}};
  CHECK(pairs(Mask::parse("causal+window:1023+sinks:4", endless), all_of_it, all_of_it) ==
        1024 * 1025 / 2 + (endless - 1024) * 1024 + 1 + 2 + 3 + (endless - 1024 - 3) * 4);

  const std::int64_t longest = (std::int64_t{1} << 31) - 1;
  const std::vector<Span> all = {{0, longest, 1}};
  CHECK(pairs(Mask::full(longest), all, all) == longest * longest);
}

TEST_CASE("a count that 63 bits do not hold is refused, and still classified") {
  const std::int64_t n = std::int64_t{1} << 40;
  const std::vector<Span> whole = {{0, n, 1}};
  CHECK_THROWS_WITH(pairs(Mask::full(n), whole, whole), ContainsSubstring("63 bits"));
  CHECK(classify(Mask::full(n), whole, whole) == Coverage::full);
  CHECK(classify(Mask::causal(n), whole, whole) == Coverage::partial);
}

TEST_CASE("many documents and many stripes are never compared pair by pair") {
  // Documents of 10 tokens, of which the queries hold the even halves and the keys the odd ones.
  const auto seconds = [](std::int64_t count) {
    std::string lengths = "10";
    std::vector<Span> low, high;
    for (std::int64_t d = 0; d < count; ++d) {
      if (d > 0) lengths += ",10";
      low.push_back({10 * d, 5, 1});
      high.push_back({10 * d + 5, 5, 1});
    }
    std::reverse(low.begin(), low.end());
    const Mask documents = Mask::parse("causal+documents:" + lengths, 10 * count), causal = Mask::causal(10 * count);
    return test::processor_seconds([&] {
      CHECK(pairs(documents, low, high) == 0);
      CHECK(pairs(documents, high, low) == 25 * count);
      CHECK(pairs(causal, low, high) == 25 * (count * (count - 1) / 2));
      CHECK(keys_seen(documents, high, high).size() == 1);
      CHECK(queries_seeing(documents, low, high) == Range{});
    });
  };
  CHECK(test::in_proportion(seconds(10'000), seconds(100'000)));
}

TEST_CASE("span lists are counted and sliced by index") {
  const std::vector<Span> spans = {{10, 3, 1}, {20, 0, 1}, {0, 4, 5}};
  CHECK(token_count(spans) == 7);
  CHECK(slice(spans, {0, 7}) == std::vector<Span>{{10, 3, 1}, {0, 4, 5}});
  CHECK(slice(spans, {2, 5}) == std::vector<Span>{{12, 1, 1}, {0, 2, 5}});
  CHECK(slice(spans, {4, 6}) == std::vector<Span>{{5, 2, 5}});
  CHECK(slice(spans, {5, 5}).empty());
  CHECK_THROWS_AS(slice(spans, {5, 8}), Error);
  CHECK_THROWS_AS(slice(spans, {-1, 3}), Error);
}

}  // namespace orrery::test
