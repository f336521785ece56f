#include "mask_documents.hpp"

#include <algorithm>
#include <string>

#include "mask_text.hpp"
#include "orrery/file.hpp"

namespace orrery {
namespace {

using mask_text::quoted;

// Far above any training batch, and low enough that a runaway file is refused before it fills the memory.
constexpr std::size_t kMaxDocuments = std::size_t{1} << 24;
constexpr std::size_t kMaxFileBytes = std::size_t{1} << 28;
constexpr std::size_t kPathShown = 200;
constexpr std::string_view kOffsets = "offsets";

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

// The numbers of a list: separated by commas or, in a file, by a comma or white space or both.
class Numbers {
 public:
  Numbers(std::string_view text, bool in_file, std::string_view source)
      : text_(text), in_file_(in_file), source_(source) {
    skip_spaces();
  }

  bool more() const { return more_; }

  std::int64_t next() {
    begin_ = at_;
    while (at_ < text_.size() && text_[at_] != ',' && !(in_file_ && is_space(text_[at_]))) ++at_;
    end_ = at_;
    const std::int64_t value = mask_text::parse_tokens(last(), [&] { return place(); });
    skip_spaces();
    more_ = at_ < text_.size();
    if (more_ && text_[at_] == ',') {
      ++at_;
      skip_spaces();
    }
    return value;
  }

  // The number that came last, as it is written, and where it stands.
  std::string_view last() const { return text_.substr(begin_, end_ - begin_); }
  std::string place() const {
    if (!in_file_) return source();
    const std::string_view before = text_.substr(0, begin_);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const std::size_t line_begin = before.rfind('\n') + 1;  // npos + 1 is 0
    return concat(source(), ", line ", line, ", column ", begin_ - line_begin + 1, ",");
  }
  std::string source() const { return in_file_ ? quoted(source_, kPathShown) : quoted(source_); }

 private:
  void skip_spaces() {
    while (in_file_ && at_ < text_.size() && is_space(text_[at_])) ++at_;
  }

  std::string_view text_;
  bool in_file_;
  std::string_view source_;
  std::size_t at_ = 0, begin_ = 0, end_ = 0;
  bool more_ = true;
};

// "3 less than the sequence, which has 10 tokens"
std::string beside(std::int64_t tokens, std::int64_t seq_len) {
  const bool less = tokens < seq_len;
  return concat(less ? seq_len - tokens : tokens - seq_len, less ? " less" : " more", " than the sequence, which has ",
                seq_len, " tokens");
}

void append(std::vector<std::int64_t>& bounds, std::int64_t bound, const Numbers& numbers) {
  if (bounds.size() > kMaxDocuments) {
    refuse("mask: ", numbers.source(), " has more than ", kMaxDocuments, " documents");
  }
  bounds.push_back(bound);
}

std::vector<std::int64_t> bounds_of_lengths(Numbers numbers, std::int64_t seq_len) {
  std::vector<std::int64_t> bounds{0};
  std::string passed;  // where the lengths pass the end of the sequence
  bool like_offsets = true;
  std::int64_t length = 0;
  while (numbers.more()) {
    const std::int64_t before = length;
    length = numbers.next();
    like_offsets = like_offsets && (bounds.size() == 1 ? length == 0 : length >= before);
    std::int64_t end = 0;
    if (__builtin_add_overflow(bounds.back(), length, &end)) {
      refuse("mask: the lengths in ", numbers.source(), " sum to more than 9223372036854775807; the sequence has ",
             seq_len, " tokens");
    }
    if (end > seq_len && bounds.back() <= seq_len) passed = numbers.place();
    append(bounds, end, numbers);
  }
  if (bounds.back() != seq_len) {
    const bool offsets = like_offsets && length == seq_len && bounds.size() > 2;
    refuse("mask: the lengths in ", numbers.source(), " sum to ", bounds.back(), ", ", beside(bounds.back(), seq_len),
           passed.empty() ? "" : concat("; the one in ", passed, " passes its end"),
           offsets ? "; offsets, as these seem to be, are read by documents:offsets@FILE" : "");
  }
  return bounds;
}

std::vector<std::int64_t> bounds_of_offsets(Numbers numbers, std::int64_t seq_len) {
  std::vector<std::int64_t> bounds;
  while (numbers.more()) {
    const std::int64_t offset = numbers.next();
    if (bounds.empty() && offset != 0) {
      refuse("mask: ", quoted(numbers.last()), " in ", numbers.place(), " is not 0, with which offsets begin");
    }
    if (!bounds.empty() && offset < bounds.back()) {
      refuse("mask: ", quoted(numbers.last()), " in ", numbers.place(), " is below the offset before, ", bounds.back(),
             ": offsets rise");
    }
    append(bounds, offset, numbers);
  }
  if (bounds.back() != seq_len) {
    refuse("mask: the last offset in ", numbers.source(), " is ", bounds.back(), ", ", beside(bounds.back(), seq_len));
  }
  if (bounds.size() == 1) bounds.push_back(seq_len);
  return bounds;
}

// The value without the word `offsets`, when it stands there.
std::string_view list_of(std::string_view value) {
  const bool offsets = value.starts_with("offsets:") || value.starts_with("offsets@");
  return offsets ? value.substr(kOffsets.size()) : value;
}

}  // namespace

std::string_view documents_file_in(std::string_view text) {
  const std::string_view list = list_of(text);
  if (list.empty() || list.front() != '@') return {};
  const std::string_view name = list.substr(1), existing = longest_file(name, '+');
  return existing.empty() ? name.substr(0, name.find('+')) : existing;
}

std::vector<std::int64_t> parse_documents(std::string_view value, std::string_view term, std::int64_t seq_len) {
  const std::string_view list = list_of(value);
  const bool offsets = list.size() < value.size();
  const auto bounds_of = offsets ? bounds_of_offsets : bounds_of_lengths;
  if (list.front() == '@') {
    const std::string_view path = list.substr(1);
    std::string contents;
    try {
      contents = read_text_file(std::string(path), kMaxFileBytes);
    } catch (const Error& error) {
      refuse("mask: the file of ", quoted(term, kPathShown), " ", error.what(),
             "; numbers separated by commas or white space are expected");
    }
    return bounds_of(Numbers(contents, true, path), seq_len);
  }
  return bounds_of(Numbers(offsets ? list.substr(1) : list, false, term), seq_len);
}

}  // namespace orrery
