// The text form of masks. The text comes from command lines, configuration files and other people's programs, so every
// refusal is one line that quotes what was wrong, shortened and with unprintable bytes replaced, and says what is
// allowed.
#include <algorithm>

#include "mask_documents.hpp"
#include "mask_terms.hpp"
#include "mask_text.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

using mask_text::quoted;

constexpr std::int64_t kMaxMaskTokens = std::int64_t{1} << 40;
constexpr const char* kTermsAllowed =
    "allowed are full, causal, prefix:N, window:LEFT[,RIGHT], sinks:N and documents:LEN,LEN,... or documents:@FILE, "
    "joined by '+'; documents:offsets:AT,... and documents:offsets@FILE take offsets";

std::int64_t parse_tokens(std::string_view digits, std::string_view where) {
  return mask_text::parse_tokens(digits, [&] { return quoted(where); });
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

// Where the term that begins at `begin` ends: at the next '+', but not within the name of a file.
std::size_t end_of_term(std::string_view text, std::size_t begin) {
  constexpr std::string_view kDocuments = "documents:";
  const std::string_view rest = text.substr(begin);
  if (rest.starts_with(kDocuments)) {
    const std::string_view file = documents_file_in(rest.substr(kDocuments.size()));
    if (!file.empty()) return static_cast<std::size_t>(file.data() + file.size() - text.data());
  }
  return std::min(text.find('+', begin), text.size());
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
    terms.bounds = parse_documents(value, term, seq_len);
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
    const std::size_t end = end_of_term(text, begin);
    parse_term(text.substr(begin, end - begin), text, seq_len, terms);
    begin = end + 1;
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

std::string documents_file(std::string_view text) {
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = end_of_term(text, begin);
    const std::string_view term = text.substr(begin, end - begin);
    const std::size_t at = term.find('@');
    if (term.starts_with("documents:") && at != std::string_view::npos) return std::string(term.substr(at + 1));
    begin = end + 1;
  }
  return {};
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
