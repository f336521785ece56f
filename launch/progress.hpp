// What is going on, for who watches a terminal. Where standard error is one, a line that says it appears after two
// seconds, counts its seconds and is wiped at the end. In a pipe or a file nothing is written.
#pragma once

#include <memory>
#include <string>

namespace orrery::launch {

class Progress {
 public:
  // `wanted` by the one rank that speaks. One such line is there at a time.
  Progress(bool wanted, std::string what);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void now(std::string what);

 private:
  struct Line;
  std::unique_ptr<Line> line_;  // null where nobody watches
};

}  // namespace orrery::launch
