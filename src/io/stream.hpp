// Writing into what is no regular file, where a reader at the other end sets the pace, or leaves.
#pragma once

#include <string>
#include <string_view>

#include "io/file.hpp"

namespace orrery::io {

// Opens a FIFO for writing when somebody has it open for reading; waits for that at most `timeout_seconds`, and then
// throws ErrorCode::peer.
FileDescriptor open_fifo(const std::string& fifo, const std::string& path, double timeout_seconds);

// Writes everything from where the stream stands. Throws ErrorCode::peer when it takes nothing for `timeout_seconds`,
// ErrorCode::resource when the reader is gone.
void write_stream(const FileDescriptor& stream, const std::string& path, std::string_view content,
                  double timeout_seconds);

}  // namespace orrery::io
