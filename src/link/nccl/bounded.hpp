// Calls that may never come back. NCCL sets no bound on making, warming, aborting or destroying a communicator, so such
// work runs on a thread of its own, which is waited for until a deadline and then left behind with all that it holds:
// the work must own what it touches.
#pragma once

#include <future>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>

#include "link/deadline.hpp"
#include "orrery/error.hpp"

namespace orrery::nccl {

template <typename Work>
std::future<std::invoke_result_t<Work&>> begin(Work work) {
  std::packaged_task<std::invoke_result_t<Work&>()> task(std::move(work));
  auto result = task.get_future();
  try {
    std::thread(std::move(task)).detach();
  } catch (const std::system_error& error) {
    fail(ErrorCode::resource, "cannot start a thread for a call of NCCL: ", error.what());
  }
  return result;
}

template <typename Result>
bool ready(const std::future<Result>& result, const Deadline& deadline) {  // throws when interrupted
  do {
    if (result.wait_until(deadline.at()) == std::future_status::ready) return true;
  } while (!deadline.passed());
  return false;
}

}  // namespace orrery::nccl
