// Signals that ask the program to end: INT, TERM and HUP. Whatever the ranks are doing, files that are half written are
// removed, and the process ends with 128 + the signal's number. More signals meanwhile change nothing. A signal that
// was ignored when the program began, as under nohup, stays ignored.
#pragma once

#include "orrery/output_file.hpp"

namespace orrery::launch {

// Once, before anything opens a file or starts a thread: waits for these signals from then on. A file that grows too
// large becomes an error of its write, and a standard descriptor that is closed does not lend its number to a file.
// Throws ErrorCode::resource when the waiting thread cannot start.
void prepare_process();

// While it lives, the output is one of those that a signal ends.
class Watched {
 public:
  explicit Watched(OutputFile& output);
  ~Watched();
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

 private:
  OutputFile& output_;
};

}  // namespace orrery::launch
