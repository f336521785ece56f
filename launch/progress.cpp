#include "launch/progress.hpp"

#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "orrery/error.hpp"

namespace orrery::launch {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kQuiet(2), kPeriod(1);
constexpr std::string_view kWipe = "\r\033[K";

void write_line(std::string_view text) {
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace

struct Progress::Line {
  explicit Line(std::string text) : what(std::move(text)) {}

  void watch() {
    const auto began = Clock::now();
    auto next = began + kQuiet;
    std::unique_lock lock(mutex);
    while (!ended.wait_until(lock, next, [this] { return over; })) {
      const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - began);
      write_line(concat(kWipe, what, ", ", seconds.count(), " s"));
      drawn = true;
      next += kPeriod;
    }
    if (drawn) write_line(kWipe);
  }

  std::string what;
  std::mutex mutex;
  std::condition_variable ended;
  bool over = false, drawn = false;
  std::thread thread;
};

Progress::Progress(bool wanted, std::string what) {
  if (!wanted || ::isatty(STDERR_FILENO) == 0) return;
  line_ = std::make_unique<Line>(std::move(what));
  try {
    line_->thread = std::thread([line = line_.get()] { line->watch(); });
  } catch (const std::system_error&) {  // no thread to spare for this
    line_.reset();
  }
}

Progress::~Progress() {
  if (!line_) return;
  {
    const std::lock_guard lock(line_->mutex);
    line_->over = true;
    line_->ended.notify_one();
  }
  line_->thread.join();
}

void Progress::now(std::string what) {
  if (!line_) return;
  const std::lock_guard lock(line_->mutex);
  line_->what = std::move(what);
}

}  // namespace orrery::launch
