#include "launch/interrupt.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "orrery/error.hpp"

namespace orrery::launch {
namespace {

constexpr unsigned kMostSeconds = 5;  // for removing files, should a file system hang

struct Watch {
  std::mutex mutex;
  std::vector<OutputFile*> outputs;
};

// Never destroyed, for the waiting thread outlives main.
Watch& watch() {
  static Watch* const only = new Watch;
  return *only;
}

volatile std::sig_atomic_t exit_code = 0;

[[noreturn]] void end_after(int signal) {
  exit_code = 128 + signal;
  std::signal(SIGALRM, [](int) { ::_exit(exit_code); });
  ::alarm(kMostSeconds);
  const std::lock_guard lock(watch().mutex);
  for (OutputFile* output : watch().outputs) output->abandon();
  ::_exit(exit_code);
}

// Open for the direction that it is not used in, so that its use stays an error.
void hold_standard_descriptors() {
  for (const int number : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(number, F_GETFD) < 0) ::open("/dev/null", number == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

}  // namespace

void prepare_process() {
  hold_standard_descriptors();
  std::signal(SIGXFSZ, SIG_IGN);
  sigset_t watched;
  ::sigemptyset(&watched);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action {};
    if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) ::sigaddset(&watched, signal);
  }
  // Threads inherit this, so that the signals wait for the one that asks for them.
  ::pthread_sigmask(SIG_BLOCK, &watched, nullptr);
  try {
    std::thread([watched] {
      int signal = 0;
      while (::sigwait(&watched, &signal) != 0) {
      }
      end_after(signal);
    }).detach();
  } catch (const std::system_error& error) {
    fail(ErrorCode::resource, "cannot start the thread that waits for signals: ", error.what());
  }
}

Watched::Watched(OutputFile& output) : output_(output) {
  const std::lock_guard lock(watch().mutex);
  watch().outputs.push_back(&output_);
}

Watched::~Watched() {
  const std::lock_guard lock(watch().mutex);
  auto& outputs = watch().outputs;
  outputs.erase(std::find(outputs.begin(), outputs.end(), &output_));
}

}  // namespace orrery::launch
