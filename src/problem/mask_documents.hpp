// The value of a mask's `documents` term: where each document ends, as lengths or as offsets (the cu_seqlens of other
// libraries), in the text itself or in a file.
//   LEN,LEN,...   @FILE   offsets:AT,AT,...   offsets@FILE
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace orrery {

// Of text that begins with such a value and may go on with '+' and other terms: the name of its file, which is the
// longest that exists, else what stands before the '+'. Empty when the value names no file.
std::string_view documents_file_in(std::string_view text);

// 0 = b0 <= b1 <= ... = seq_len. `term` is the whole term, for messages. Refused (ErrorCode::invalid, one line with the
// place): what is not a number, lengths that do not sum to seq_len, offsets that do not rise from 0 to seq_len.
std::vector<std::int64_t> parse_documents(std::string_view value, std::string_view term, std::int64_t seq_len);

}  // namespace orrery
