// The text of a mask: "SEQ_LEN MASK". What is accepted has a text of its own, which is accepted as the same mask, and
// every query sees keys that exist.
#include "orrery/mask.hpp"

#include "fuzz/fuzz.hpp"

using namespace orrery;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view text = fuzz::text_of(data, size);
  const auto seq_len = fuzz::take_number(text);
  if (!seq_len || text.find('@') != std::string_view::npos) return -1;  // no files
  const auto mask = fuzz::accepted([&] { return Mask::parse(text, *seq_len); });
  if (!mask) return 0;
  const Mask again = Mask::parse(mask->text(), *seq_len);
  fuzz::require(again.text() == mask->text());
  const std::int64_t step = 1 + *seq_len / 64;
  for (std::int64_t query = 0; query < *seq_len; query += step) {
    const VisibleKeys seen = mask->visible(query);
    fuzz::require(seen == again.visible(query));
    for (const Range& keys : {seen.keys, seen.sinks}) {
      fuzz::require(keys.empty() || (keys.begin >= 0 && keys.end <= *seq_len));
    }
  }
  return 0;
}
