// Masks as the glossary defines them, pair by pair, and the generators of masks and span lists that tests compare with
// them. Nothing here knows of intervals or pieces.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "orrery/mask.hpp"

namespace orrery::test {

struct Definition {
  bool causal = false;
  std::optional<std::int64_t> prefix, left, right, sinks;  // right and sinks only with left, prefix only with causal
  std::vector<std::int64_t> documents;                     // lengths; empty without the term
  std::int64_t seq_len = 0;

  std::string text() const {
    std::string text;
    const auto term = [&](const std::string& t) { text += (text.empty() ? "" : "+") + t; };
    if (causal) term("causal");
    if (prefix) term("prefix:" + std::to_string(*prefix));
    if (left) term("window:" + std::to_string(*left) + "," + std::to_string(right.value_or(0)));
    if (sinks) term("sinks:" + std::to_string(*sinks));
    for (std::size_t d = 0; d < documents.size(); ++d) {
      if (d == 0) {
        term("documents:" + std::to_string(documents[d]));
      } else {
        text += "," + std::to_string(documents[d]);
      }
    }
    return text.empty() ? "full" : text;
  }

  // The first position of the document that holds position i.
  std::int64_t document_begin(std::int64_t i) const {
    std::int64_t begin = 0;
    for (std::int64_t length : documents) {
      if (i < begin + length) return begin;
      begin += length;
    }
    return 0;
  }

  bool admits(std::int64_t i, std::int64_t j) const {
    const bool same_document = document_begin(i) == document_begin(j);
    const bool under_causal = !causal || j <= i || (prefix && j < *prefix);
    const auto within = [](std::int64_t distance, std::int64_t limit) { return limit == -1 || distance <= limit; };
    const bool in_window = !left || (within(i - j, *left) && within(j - i, right.value_or(0)));
    const bool is_sink = sinks && j < document_begin(i) + *sinks;
    return same_document && under_causal && (in_window || is_sink);
  }
};

class Random {
 public:
  explicit Random(unsigned seed) : generator_(seed) {}
  std::int64_t below(std::int64_t end) { return at_most(end - 1); }
  std::int64_t at_most(std::int64_t last) { return std::uniform_int_distribution<std::int64_t>(0, last)(generator_); }
  bool chance(int percent) { return below(100) < percent; }

  Definition mask(std::int64_t seq_len) {
    Definition mask;
    mask.seq_len = seq_len;
    mask.causal = chance(60);
    if (mask.causal && chance(40)) mask.prefix = at_most(seq_len);
    if (chance(60)) {
      mask.left = at_most(chance(50) ? 4 : seq_len);
      if (chance(50)) mask.right = at_most(chance(50) ? 4 : seq_len);
      if (chance(60)) mask.sinks = at_most(chance(60) ? 3 : seq_len);
    }
    if (chance(50)) {
      const std::int64_t longest = chance(50) ? 3 : seq_len;
      for (std::int64_t left = seq_len; left > 0;) {
        mask.documents.push_back(std::min(left, at_most(longest)));
        left -= mask.documents.back();
      }
      if (mask.documents.empty() || chance(20)) mask.documents.push_back(0);
    }
    return mask;
  }

  // A list of disjoint spans in [0, seq_len): strided ones may interleave, and the order is any.
  std::vector<Span> spans(std::int64_t seq_len) {
    std::vector<bool> taken(static_cast<std::size_t>(seq_len));
    std::vector<Span> spans;
    const std::int64_t longest = chance(50) ? 4 : seq_len;
    for (std::int64_t tries = at_most(chance(70) ? 3 : 40); tries > 0; --tries) {
      Span span{below(seq_len), 0, chance(50) ? 1 : 1 + at_most(8)};
      const std::int64_t most = at_most(longest);
      while (span.count < most && span.at(span.count) < seq_len && !taken[span.at(span.count)]) {
        taken[span.at(span.count++)] = true;
      }
      spans.push_back(span);
    }
    if (chance(50)) {
      std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
    }
    return spans;
  }

 private:
  std::mt19937 generator_;
};

inline std::vector<std::int64_t> tokens_of(const std::vector<Span>& spans) {
  std::vector<std::int64_t> tokens;
  for (const Span& span : spans) {
    for (std::int64_t t = 0; t < span.count; ++t) tokens.push_back(span.at(t));
  }
  return tokens;
}

}  // namespace orrery::test
