// What an output file is inside, for those who fill it piece by piece.
#pragma once

#include <mutex>
#include <string>

#include "io/file.hpp"
#include "orrery/output_file.hpp"

namespace orrery {

struct OutputFile::State {
  std::string path;           // as given
  std::string target;         // where all links lead; of a regular file
  io::FileDescriptor stream;  // open when the output is a stream
  double timeout_seconds = 0;

  // A new file of `bytes` bytes, beside the target; of a stream, in the folder for temporary files. Its name is
  // `temporary`.
  io::FileDescriptor begin(std::int64_t bytes);
  // What lies in the new file becomes the output.
  void commit(const io::FileDescriptor& file);
  void discard() noexcept;

  std::mutex mutex;       // of what follows
  std::string temporary;  // the new file's name until it is committed
  bool abandoned = false;
};

}  // namespace orrery
