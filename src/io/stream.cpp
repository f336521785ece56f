#include "io/stream.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <ctime>
#include <thread>

#include "orrery/error.hpp"

namespace orrery::io {
namespace {

// While it lives, a reader that is gone is an error of write() and not a signal, which would end the host program.
class NoPipeSignal {
 public:
  NoPipeSignal() {
    sigset_t pending;
    ::sigpending(&pending);
    was_pending_ = ::sigismember(&pending, SIGPIPE) == 1;
    ::sigemptyset(&pipe_);
    ::sigaddset(&pipe_, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~NoPipeSignal() {
    const timespec at_once{};
    while (!was_pending_ && ::sigtimedwait(&pipe_, nullptr, &at_once) < 0 && errno == EINTR) {
    }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoPipeSignal(const NoPipeSignal&) = delete;
  NoPipeSignal& operator=(const NoPipeSignal&) = delete;

 private:
  bool was_pending_ = false;
  sigset_t pipe_{}, before_{};
};

}  // namespace

FileDescriptor open_fifo(const std::string& fifo, const std::string& path, double timeout_seconds) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_seconds);
  for (;;) {
    FileDescriptor stream(::open(fifo.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (stream.is_open()) return stream;
    if (errno != ENXIO && errno != EINTR) fail_file(path, "write", errno);
    if (std::chrono::steady_clock::now() > deadline) {
      fail(ErrorCode::peer, quoted(path), ": is a FIFO, and nobody opened it to read within ", timeout_seconds, " s");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

void write_stream(const FileDescriptor& stream, const std::string& path, std::string_view content,
                  double timeout_seconds) {
  const NoPipeSignal guard;
  const int patience = static_cast<int>(std::min(timeout_seconds * 1000, 1e9));
  while (!content.empty()) {
    pollfd ready{stream.get(), POLLOUT, 0};
    const int events = ::poll(&ready, 1, patience);
    if (events == 0) fail(ErrorCode::peer, quoted(path), ": its reader took nothing for ", timeout_seconds, " s");
    // No more than a pipe that is ready takes at once, for a descriptor that is shared with others may block.
    const ssize_t put =
        events < 0 ? -1 : ::write(stream.get(), content.data(), std::min<std::size_t>(content.size(), PIPE_BUF));
    if (put < 0 && errno == EPIPE) fail(ErrorCode::resource, quoted(path), ": its reader is gone");
    if (put < 0 && errno != EINTR && errno != EAGAIN) fail_file(path, "write", errno);
    if (put > 0) content.remove_prefix(static_cast<std::size_t>(put));
  }
}

}  // namespace orrery::io
