// Who owns what. A piece of length n cut in c parts begins its part k at floor(k * n / c): the parts differ by at most
// one token, and the part that holds a position is found without a search. contiguous cuts the sequence in P parts,
// zigzag each document in 2P; stripes need only division.
#include "orrery/layout.hpp"

#include <algorithm>
#include <charconv>

namespace orrery {
namespace {

constexpr int kMaxWorldSize = 1 << 20;  // keeps part * length below 2^63 for the longest mask

std::int64_t part_begin(Range whole, std::int64_t part, std::int64_t parts) {
  return whole.begin + part * whole.size() / parts;
}

Range part_of(Range whole, std::int64_t part, std::int64_t parts) {
  return {part_begin(whole, part, parts), part_begin(whole, part + 1, parts)};
}

// The part that holds a position, the inverse of part_of.
std::int64_t part_holding(Range whole, std::int64_t position, std::int64_t parts) {
  return ((position - whole.begin + 1) * parts - 1) / whole.size();
}

// The two chunks of a document that a rank owns under zigzag, in position order.
std::pair<Range, Range> zigzag_chunks(Range document, int rank, int world_size) {
  const std::int64_t chunks = 2 * std::int64_t{world_size};
  return {part_of(document, rank, chunks), part_of(document, chunks - 1 - rank, chunks)};
}

// Ranges of ranks that come in any order and overlap. They are joined whenever they have doubled, so there are never
// many more than need be.
class RankRanges {
 public:
  explicit RankRanges(std::int64_t all) : all_(all) {}

  void add(Range ranks) {
    ranges_.push_back(ranks);
    if (ranges_.size() >= most_) {
      join();
      most_ = std::max(kFew, 2 * ranges_.size());
    }
  }
  bool all() const { return ranges_.size() == 1 && ranges_.front() == Range{0, all_}; }

  std::vector<Range> take() {
    join();
    return std::move(ranges_);
  }

 private:
  static constexpr std::size_t kFew = 32;

  void join() {
    std::sort(ranges_.begin(), ranges_.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
    std::size_t count = 0;
    for (const Range& range : ranges_) {
      if (count > 0 && range.begin <= ranges_[count - 1].end) {
        ranges_[count - 1].end = std::max(ranges_[count - 1].end, range.end);
      } else {
        ranges_[count++] = range;
      }
    }
    ranges_.resize(count);
  }

  std::int64_t all_;
  std::size_t most_ = kFew;
  std::vector<Range> ranges_;
};

// Appends a run of positions, joined to the last one if they touch.
void append(std::vector<Span>& spans, Range run) {
  if (run.empty()) return;
  if (!spans.empty() && spans.back().last() + 1 == run.begin) {
    spans.back().count += run.size();
  } else {
    spans.push_back({run.begin, run.size(), 1});
  }
}

std::int64_t parse_stripe(std::string_view text) {
  const std::string_view digits = text.substr(text.find(':') + 1);
  std::int64_t stripe = 0;
  const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), stripe);
  if (error != std::errc{} || stop != digits.data() + digits.size() || stripe < 1) {
    refuse("layout: \"", text, "\": striped:B takes a whole number of tokens, at least 1");
  }
  return stripe;
}

}  // namespace

Layout Layout::make(std::string_view text, const Mask& mask, int world_size) {
  if (world_size < 1 || world_size > kMaxWorldSize) {
    refuse("layout: ", world_size, " ranks: 1 to ", kMaxWorldSize, " are allowed");
  }
  Layout layout;
  layout.world_size_ = world_size;
  layout.seq_len_ = mask.seq_len();
  layout.documents_ = {0, mask.seq_len()};
  layout.text_ = text;
  if (text == "contiguous") {
    layout.kind_ = Kind::contiguous;
  } else if (text == "zigzag") {
    layout.kind_ = Kind::zigzag;
    layout.documents_.assign(mask.document_bounds().begin(), mask.document_bounds().end());
  } else if (text == "striped" || text.starts_with("striped:")) {
    layout.kind_ = Kind::striped;
    const std::int64_t stripe = text == "striped" ? 1 : parse_stripe(text);
    layout.text_ = stripe == 1 ? "striped" : concat("striped:", stripe);
    layout.stripe_ = std::min(stripe, std::max(layout.seq_len_, std::int64_t{1}));
  } else {
    refuse("layout: \"", text, "\" is not a layout: contiguous, zigzag, striped and striped:B are allowed");
  }
  return layout;
}

std::vector<Span> Layout::shard(int rank) const {
  ORRERY_CHECK(rank >= 0 && rank < world_size_, "rank ", rank, " of ", world_size_);
  std::vector<Span> spans;
  switch (kind_) {
    case Kind::contiguous:
      append(spans, part_of({0, seq_len_}, rank, world_size_));
      break;
    case Kind::zigzag:
      for (std::size_t d = 0; d + 1 < documents_.size(); ++d) {
        const auto [low, high] = zigzag_chunks({documents_[d], documents_[d + 1]}, rank, world_size_);
        append(spans, low);
        append(spans, high);
      }
      break;
    case Kind::striped:
      if (stripe_ == 1) {
        if (rank < seq_len_) spans.push_back({rank, tokens(rank), world_size_});
        break;
      }
      for (std::int64_t begin = rank * stripe_; begin < seq_len_; begin += world_size_ * stripe_) {
        append(spans, {begin, std::min(begin + stripe_, seq_len_)});
      }
      break;
  }
  return spans;
}

std::int64_t Layout::tokens(int rank) const {
  ORRERY_CHECK(rank >= 0 && rank < world_size_, "rank ", rank, " of ", world_size_);
  if (kind_ == Kind::contiguous) return part_of({0, seq_len_}, rank, world_size_).size();
  if (kind_ == Kind::striped) {
    const std::int64_t round = stripe_ * world_size_;
    return seq_len_ / round * stripe_ + std::clamp(seq_len_ % round - rank * stripe_, std::int64_t{0}, stripe_);
  }
  std::int64_t count = 0;
  for (std::size_t d = 0; d + 1 < documents_.size(); ++d) {
    const auto [low, high] = zigzag_chunks({documents_[d], documents_[d + 1]}, rank, world_size_);
    count += low.size() + high.size();
  }
  return count;
}

std::int64_t Layout::max_tokens() const {
  if (kind_ == Kind::contiguous) return (seq_len_ + world_size_ - 1) / world_size_;
  if (kind_ == Kind::striped) return tokens(0);
  // Two chunks of a document of n tokens hold 2 floor(n / 2P), and more as n mod 2P has it: documents are counted by
  // that.
  const std::int64_t chunks = 2 * std::int64_t{world_size_};
  std::int64_t common = 0;
  std::vector<std::pair<std::int64_t, std::int64_t>> left_over;  // n mod 2P, and how many documents
  for (std::size_t d = 0; d + 1 < documents_.size(); ++d) {
    common += 2 * ((documents_[d + 1] - documents_[d]) / chunks);
    left_over.emplace_back((documents_[d + 1] - documents_[d]) % chunks, 1);
  }
  std::sort(left_over.begin(), left_over.end());
  std::size_t count = 0;
  for (const auto& [tokens, documents] : left_over) {
    if (count > 0 && left_over[count - 1].first == tokens) {
      left_over[count - 1].second += documents;
    } else {
      left_over[count++] = {tokens, documents};
    }
  }
  left_over.resize(count);
  std::int64_t most = 0;
  for (int rank = 0; rank < world_size_; ++rank) {
    std::int64_t more = 0;
    for (const auto& [tokens, documents] : left_over) {
      const auto [low, high] = zigzag_chunks({0, tokens}, rank, world_size_);
      more += documents * (low.size() + high.size());
    }
    most = std::max(most, common + more);
  }
  return most;
}

std::vector<Span> Layout::shards_hull(int first, int count) const {
  if (count <= 0) return {};
  first = (first % world_size_ + world_size_) % world_size_;
  std::vector<Span> spans;
  if (count >= world_size_ || (kind_ == Kind::striped && count > 1)) {
    append(spans, {0, seq_len_});
    return spans;
  }
  if (count == 1) return shard(first);
  // As ranks in order: [first, ...) up to the last one and, where the range wraps, [0, wrapped) in front of it.
  const std::int64_t ranks = world_size_;
  const std::int64_t end = std::min<std::int64_t>(first + std::int64_t{count}, ranks);
  const std::int64_t wrapped = std::max<std::int64_t>(first + std::int64_t{count} - ranks, 0);
  const auto append_parts = [&](Range whole, Range parts, std::int64_t of) {
    append(spans, {part_begin(whole, parts.begin, of), part_begin(whole, parts.end, of)});
  };
  if (kind_ == Kind::contiguous) {
    append_parts({0, seq_len_}, {0, wrapped}, ranks);
    append_parts({0, seq_len_}, {first, end}, ranks);
    return spans;
  }
  for (std::size_t d = 0; d + 1 < documents_.size(); ++d) {
    const Range document{documents_[d], documents_[d + 1]};
    append_parts(document, {0, wrapped}, 2 * ranks);
    append_parts(document, {first, end}, 2 * ranks);
    append_parts(document, {2 * ranks - end, 2 * ranks - first}, 2 * ranks);
    append_parts(document, {2 * ranks - wrapped, 2 * ranks}, 2 * ranks);
  }
  return spans;
}

std::int64_t Layout::position(int rank, std::int64_t index) const {
  ORRERY_CHECK(rank >= 0 && rank < world_size_ && index >= 0, "token ", index, " of rank ", rank, " of ", world_size_);
  if (kind_ == Kind::contiguous) {
    const Range run = part_of({0, seq_len_}, rank, world_size_);
    if (index < run.size()) return run.begin + index;
  } else if (kind_ == Kind::striped) {
    if (index < tokens(rank)) {
      return (index / stripe_ * world_size_ + rank) * stripe_ + index % stripe_;
    }
  } else {
    std::int64_t left = index;
    for (std::size_t d = 0; d + 1 < documents_.size(); ++d) {
      const auto [low, high] = zigzag_chunks({documents_[d], documents_[d + 1]}, rank, world_size_);
      if (left < low.size()) return low.begin + left;
      left -= low.size();
      if (left < high.size()) return high.begin + left;
      left -= high.size();
    }
  }
  fail(ErrorCode::bug, "layout ", text_, ": rank ", rank, " has ", tokens(rank), " tokens, token ", index,
       " was asked");
}

std::pair<int, std::int64_t> Layout::owner(std::int64_t position) const {
  ORRERY_CHECK(position >= 0 && position < seq_len_, "position ", position, " of ", seq_len_);
  if (kind_ == Kind::contiguous) {
    const Range whole{0, seq_len_};
    const std::int64_t rank = part_holding(whole, position, world_size_);
    return {static_cast<int>(rank), position - part_begin(whole, rank, world_size_)};
  }
  if (kind_ == Kind::striped) {
    const std::int64_t stripe = position / stripe_;
    return {static_cast<int>(stripe % world_size_), stripe / world_size_ * stripe_ + position % stripe_};
  }
  const auto next = std::upper_bound(documents_.begin(), documents_.end(), position);
  const Range document{next[-1], next[0]};
  const std::int64_t chunks = 2 * std::int64_t{world_size_};
  const std::int64_t chunk = part_holding(document, position, chunks);
  const int rank = static_cast<int>(std::min(chunk, chunks - 1 - chunk));
  std::int64_t index = position - part_begin(document, chunk, chunks);
  if (chunk != rank) index += part_of(document, rank, chunks).size();
  for (auto bound = documents_.begin(); bound + 1 != next; ++bound) {
    const auto [low, high] = zigzag_chunks({bound[0], bound[1]}, rank, world_size_);
    index += low.size() + high.size();
  }
  return {rank, index};
}

std::vector<Range> Layout::owners(std::span<const Range> positions) const {
  const std::int64_t ranks = world_size_, chunks = 2 * ranks;
  RankRanges owners(ranks);
  if (kind_ == Kind::striped) {
    for (const Range& run : positions) {
      const std::int64_t first = run.begin / stripe_, last = (run.end - 1) / stripe_;
      if (last - first >= ranks) return {{0, ranks}};
      const std::int64_t from = first % ranks, to = last % ranks;
      owners.add({from, from <= to ? to + 1 : ranks});
      if (from > to) owners.add({0, to + 1});
    }
    return owners.take();
  }
  // Of a piece that is cut in more parts than it has tokens some parts are empty: there, token by token.
  const auto each_part = [&](Range whole, Range run, std::int64_t parts, const auto& add) {
    const auto holding = [&](std::int64_t position) { return part_holding(whole, position, parts); };
    if (whole.size() >= parts) return add({holding(run.begin), holding(run.end - 1) + 1});
    for (std::int64_t p = run.begin; p < run.end; ++p) add({holding(p), holding(p) + 1});
  };
  if (kind_ == Kind::contiguous) {
    for (const Range& run : positions) each_part({0, seq_len_}, run, ranks, [&](Range part) { owners.add(part); });
    return owners.take();
  }
  const auto add_chunks = [&](Range c) {
    if (c.begin < ranks) owners.add({c.begin, std::min(c.end, ranks)});
    if (c.end > ranks) owners.add({chunks - c.end, chunks - std::max(c.begin, ranks)});
  };
  auto document = documents_.begin();  // the begin of the first document that the run may meet
  for (const Range& run : positions) {
    document = std::upper_bound(document, documents_.end(), run.begin) - 1;
    for (auto d = document; d + 1 != documents_.end() && *d < run.end; ++d) {
      const Range whole{d[0], d[1]}, part{std::max(d[0], run.begin), std::min(d[1], run.end)};
      if (!part.empty()) each_part(whole, part, chunks, add_chunks);
      if (owners.all()) return {{0, ranks}};
    }
  }
  return owners.take();
}

std::vector<std::int64_t> positions(const Layout& layout, int rank) {
  std::vector<std::int64_t> result;
  result.reserve(static_cast<std::size_t>(layout.tokens(rank)));
  for (const Span& span : layout.shard(rank)) {
    for (std::int64_t t = 0; t < span.count; ++t) result.push_back(span.at(t));
  }
  return result;
}

}  // namespace orrery
