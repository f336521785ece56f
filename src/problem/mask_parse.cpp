// The text form of masks. The text comes from command lines, configuration files and other people's programs, so every
// refusal is one line that quotes what was wrong, shortened and with unprintable bytes replaced, and says what is
// allowed.
#include <algorithm>
#include <charconv>
#include <fstream>

#include "mask_terms.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

// Far above any training batch, and low enough that a runaway file is refused before it fills the memory.
constexpr std::size_t kMaxDocuments = std::size_t{1} << 24;
constexpr std::size_t kMaxDocumentFileBytes = std::size_t{1} << 28;
constexpr std::int64_t kMaxMaskTokens = std::int64_t{1} << 40;
constexpr const char* kTermsAllowed =
    "allowed are full, causal, prefix:N, window:LEFT[,RIGHT], sinks:N and documents:LEN,LEN,... or documents:@FILE, "
    "joined by '+'";

std::string quoted(std::string_view text) {
  constexpr std::size_t kShown = 80;
  std::string result = "\"";
  for (char c : text.substr(0, kShown)) result += c >= ' ' && c <= '~' ? c : '?';
  return result + (text.size() > kShown ? "...\"" : "\"");
}

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

// A number of tokens: decimal digits and nothing else. `where` is the whole term, for the message.
std::int64_t parse_tokens(std::string_view digits, std::string_view where) {
  std::int64_t value = 0;
  const char* const end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value);
  if (error == std::errc::result_out_of_range && digits.front() != '-') {
    refuse("mask: ", quoted(digits), " in ", quoted(where), " is too large: at most 9223372036854775807 is allowed");
  }
  if (error != std::errc{} || stop != end || digits.front() == '-') {
    refuse("mask: ", quoted(digits), " in ", quoted(where), " is not a whole number of tokens (0, 1, 2, ...)");
  }
  return value;
}

// One side of a window; -1 is no limit, as in FlashAttention.
std::int64_t parse_side(std::string_view digits, std::string_view where) {
  return digits == "-1" ? MaskTerms::Window::kNoLimit : parse_tokens(digits, where);
}

MaskTerms::Window parse_window(std::string_view value, std::string_view term) {
  const std::size_t comma = value.find(',');
  if (comma == std::string_view::npos) return {parse_side(value, term), 0};
  const std::string_view right = value.substr(comma + 1);
  if (right.find(',') != std::string_view::npos) {
    refuse("mask: ", quoted(term), " has more than two numbers: window:LEFT or window:LEFT,RIGHT is allowed");
  }
  return {parse_side(value.substr(0, comma), term), parse_side(right, term)};
}

std::string read_document_file(std::string_view path, std::string_view term) {
  std::ifstream file{std::string(path), std::ios::binary};
  std::string contents;
  char block[4096];
  while (file && contents.size() <= kMaxDocumentFileBytes) {
    file.read(block, sizeof block);
    contents.append(block, static_cast<std::size_t>(file.gcount()));
  }
  if (!file.eof() && contents.size() <= kMaxDocumentFileBytes) {
    refuse("mask: the file of ", quoted(term),
           " cannot be read: a file of document lengths, separated by commas or white space, is expected");
  }
  if (contents.size() > kMaxDocumentFileBytes) {
    refuse("mask: the file of ", quoted(term), " is longer than ", kMaxDocumentFileBytes, " bytes");
  }
  return contents;
}

// Lengths separated by commas, or, where `spaces` says so, by a comma or white space or both.
std::vector<std::int64_t> parse_bounds(std::string_view lengths, bool spaces, std::string_view term,
                                       std::int64_t seq_len) {
  std::vector<std::int64_t> bounds{0};
  std::size_t at = 0;
  const auto skip_spaces = [&] {
    while (spaces && at < lengths.size() && is_space(lengths[at])) ++at;
  };
  skip_spaces();
  for (bool more = true; more;) {
    const std::size_t start = at;
    while (at < lengths.size() && lengths[at] != ',' && !(spaces && is_space(lengths[at]))) ++at;
    const std::int64_t length = parse_tokens(lengths.substr(start, at - start), term);
    if (length > seq_len - bounds.back()) {
      refuse("mask: the lengths in ", quoted(term), " sum to more than the sequence, which has ", seq_len, " tokens");
    }
    if (bounds.size() > kMaxDocuments) refuse("mask: ", quoted(term), " has more than ", kMaxDocuments, " documents");
    bounds.push_back(bounds.back() + length);
    skip_spaces();
    more = at < lengths.size();
    if (more && lengths[at] == ',') {
      ++at;
      skip_spaces();
    }
  }
  if (bounds.back() != seq_len) {
    refuse("mask: the lengths in ", quoted(term), " sum to ", bounds.back(), ", but the sequence has ", seq_len,
           " tokens");
  }
  return bounds;
}

// A window that only repeats other terms is dropped, with its sinks, and one that is causal is called so: a mask is
// planned by its terms, and a window is planned as a narrow one.
void drop_idle_window(MaskTerms& terms) {
  if (!terms.window || terms.window->left != MaskTerms::Window::kNoLimit) return;
  if (terms.window->right == 0 && !terms.sinks && !terms.prefix) terms.causal = true;
  if (terms.window->right != MaskTerms::Window::kNoLimit && (!terms.causal || terms.prefix)) return;
  terms.window.reset();
  terms.sinks.reset();
}

void parse_term(std::string_view term, std::string_view text, std::int64_t seq_len, MaskTerms& terms) {
  const std::size_t colon = term.find(':');
  const std::string_view name = term.substr(0, colon);
  const bool has_value = colon != std::string_view::npos;
  const std::string_view value = has_value ? term.substr(colon + 1) : std::string_view();
  const auto once = [&](bool seen) {
    if (seen) refuse("mask: ", quoted(text), " has the term ", quoted(name), " twice: each is allowed once");
  };
  const auto flag = [&](bool& seen) {
    once(seen);
    if (has_value) refuse("mask: ", quoted(term), " has a value, but ", quoted(name), " takes none");
    seen = true;
  };
  const auto needs_value = [&](bool seen, const char* form) {
    once(seen);
    if (value.empty()) refuse("mask: ", quoted(term), " has no value: ", form, " is allowed");
  };
  if (term.empty()) {
    refuse("mask: ", quoted(text), " has an empty term: ", kTermsAllowed);
  } else if (name == "full") {
    flag(terms.full);
  } else if (name == "causal") {
    flag(terms.causal);
  } else if (name == "prefix") {
    needs_value(terms.prefix.has_value(), "prefix:N");
    terms.prefix = parse_tokens(value, term);
  } else if (name == "window") {
    needs_value(terms.window.has_value(), "window:LEFT or window:LEFT,RIGHT");
    terms.window = parse_window(value, term);
  } else if (name == "sinks") {
    needs_value(terms.sinks.has_value(), "sinks:N");
    terms.sinks = parse_tokens(value, term);
  } else if (name == "documents") {
    needs_value(terms.documents, "documents:LEN,LEN,... or documents:@FILE");
    terms.documents = true;
    terms.bounds = value.front() == '@' ? parse_bounds(read_document_file(value.substr(1), term), true, term, seq_len)
                                        : parse_bounds(value, false, term, seq_len);
  } else {
    refuse("mask: ", quoted(term), " is not a term: ", kTermsAllowed);
  }
}

}  // namespace

MaskTerms parse_terms(std::string_view text, std::int64_t seq_len) {
  if (seq_len < 0 || seq_len > kMaxMaskTokens) {
    refuse("mask: a sequence of ", seq_len, " tokens: 0 to ", kMaxMaskTokens, " are allowed");
  }
  MaskTerms terms;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t plus = std::min(text.find('+', begin), text.size());
    parse_term(text.substr(begin, plus - begin), text, seq_len, terms);
    begin = plus + 1;
  }
  if (terms.full && (terms.causal || terms.window || terms.sinks || terms.prefix)) {
    refuse("mask: ", quoted(text), ": beside full only documents is allowed");
  }
  if (terms.sinks && !terms.window) {
    refuse("mask: ", quoted(text), ": sinks widens a window, so it is allowed only beside window:LEFT[,RIGHT]");
  }
  if (terms.prefix && !terms.causal) {
    refuse("mask: ", quoted(text), ": prefix widens causal, so it is allowed only beside causal");
  }
  drop_idle_window(terms);
  if (!terms.documents) terms.bounds = {0, seq_len};
  return terms;
}

std::string canonical_text(const MaskTerms& terms) {
  std::string text;
  const auto term = [&](const std::string& added) { text += (text.empty() ? "" : "+") + added; };
  if (terms.causal) term("causal");
  if (terms.prefix) term("prefix:" + std::to_string(*terms.prefix));
  if (terms.window) {
    const auto side = [](std::int64_t tokens) {
      return tokens == MaskTerms::Window::kNoLimit ? "-1" : std::to_string(tokens);
    };
    term("window:" + side(terms.window->left) + "," + side(terms.window->right));
  }
  if (terms.sinks) term("sinks:" + std::to_string(*terms.sinks));
  if (terms.documents) {
    term("documents:");
    for (std::size_t d = 0; d + 1 < terms.bounds.size(); ++d) {
      if (d > 0) text += ',';
      text += std::to_string(terms.bounds[d + 1] - terms.bounds[d]);
    }
  }
  return text.empty() ? "full" : text;
}

}  // namespace orrery
