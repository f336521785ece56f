#include "link/inprocess/hub.hpp"

#include <cstring>
#include <utility>

#include "link/outstanding.hpp"
#include "link/reduce.hpp"

namespace orrery {

Hub::Hub(int world_size, double timeout_seconds, Interrupted interrupted)
    : timeout_seconds_(timeout_seconds), interrupted_(std::move(interrupted)), seats_(world_size), failure_{} {}

void Hub::throw_if_failed(int rank) const {
  if (!failed()) return;
  if (rank == failure_.rank) throw Error(failure_.code, failure_.message);
  orrery::fail(ErrorCode::peer, "rank ", failure_.rank, " failed: ", failure_.message);
}

void Hub::fail_locked(int rank, ErrorCode code, const std::string& message, std::exception_ptr cause) {
  if (failed()) return;
  failure_ = {rank, code, message, cause ? cause : std::make_exception_ptr(Error(code, message))};
  failed_.store(true, std::memory_order_release);
  wake_all();
}

void Hub::fail(int rank, ErrorCode code, const std::string& message, std::exception_ptr cause) {
  const std::lock_guard lock(mutex_);
  fail_locked(rank, code, message, cause);
}

void Hub::set_run(int rank, const std::optional<RunName>& run) {
  seats_[rank].run = run;
  if (run) wake_all();  // who waits for this rank in another run waits for ever
}

void Hub::leave(int rank) {
  const std::lock_guard lock(mutex_);
  seats_[rank].left = true;
  wake_all();
}

void Hub::rethrow_failure() {
  const std::lock_guard lock(mutex_);
  if (failed()) std::rethrow_exception(failure_.cause);
}

Records Hub::all_gather(int rank, std::span<const std::byte> mine) {
  return Records(gather(rank, mine, std::nullopt));
}

void Hub::all_reduce(int rank, std::span<double> values, Reduction reduction) {
  const auto result = gather(rank, std::as_bytes(values), reduction);
  const std::vector<std::byte>& bytes = result->front();
  ORRERY_CHECK(bytes.size() == values.size_bytes(), "all_reduce of ", values.size(), " values gave ", bytes.size(),
               " bytes");
  if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
}

Hub::Given Hub::take_records() {
  Given records;
  for (Seat& seat : seats_) {
    records.push_back(std::move(seat.given));
    seat.arrived = false;
  }
  return records;
}

std::shared_ptr<const Hub::Given> Hub::gather(int rank, std::span<const std::byte> mine,
                                              std::optional<Reduction> reduction) {
  const Deadline deadline(timeout_seconds_, &interrupted_);
  std::unique_lock lock(mutex_);
  throw_if_failed(rank);
  Seat& seat = seats_[rank];
  seat.given.assign(mine.begin(), mine.end());
  seat.arrived = true;
  const long present = gathers_;
  if (++arrivals_ == world_size()) {
    auto records = std::make_shared<Given>(take_records());
    if (reduction) {
      std::vector<double> values(mine.size() / sizeof(double));
      reduce(*records, *reduction, values);
      const auto bytes = std::as_bytes(std::span(values));
      records->assign(1, {bytes.begin(), bytes.end()});
    }
    gathered_ = std::move(records);
    arrivals_ = 0;
    ++gathers_;
    wake_all();
  }
  while (gathers_ == present) {
    throw_if_failed(rank);
    const std::vector<int> gone = missing_for_good();
    const bool late = deadline.passed();
    if (late || !gone.empty()) {
      // Several ranks may give up at once, and each leaves; who was absent is what the first of them saw.
      if (given_up_ != present) absent_ = missing();
      given_up_ = present;
      seat.arrived = false;
      --arrivals_;
      if (!gone.empty()) orrery::fail(ErrorCode::peer, ranks_text(gone), " returned without coming to all_gather");
      orrery::fail(ErrorCode::peer, ranks_text(absent_), " did not come to all_gather within ",
                   seconds_text(timeout_seconds_), " s");
    }
    seat.wake.wait_until(lock, deadline.at());
  }
  return gathered_;
}

std::vector<int> Hub::missing() const {
  std::vector<int> ranks;
  for (int rank = 0; rank < static_cast<int>(seats_.size()); ++rank) {
    if (!seats_[rank].arrived) ranks.push_back(rank);
  }
  return ranks;
}

std::vector<int> Hub::missing_for_good() const {
  std::vector<int> ranks;
  for (int rank : missing()) {
    if (seats_[rank].left) ranks.push_back(rank);
  }
  return ranks;
}

void Hub::wake_all() {
  for (Seat& seat : seats_) seat.wake.notify_all();
}

}  // namespace orrery
