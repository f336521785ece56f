#include "link/streams/streams_session.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

#include "core/alignment.hpp"
#include "device/check.hpp"
#include "kernels/cuda/copy_region.hpp"
#include "link/deadline.hpp"
#include "link/region.hpp"
#include "link/streams/capture.hpp"

namespace orrery {
namespace {

using device::EventHandle;
using device::StreamHandle;

constexpr std::chrono::microseconds kPause(20);

std::size_t packed_bytes(const Region& region) {
  if (simplified(region).contiguous()) return 0;
  return aligned(static_cast<std::size_t>(region.bytes()), kDeviceAlignment);
}

}  // namespace

std::vector<std::size_t> StreamsSession::staging_bytes(const std::vector<LinkExchange>& exchanges) {
  std::vector<std::size_t> most;
  for (const LinkExchange& exchange : exchanges) {
    ORRERY_CHECK(exchange.lane >= 0, "lane ", exchange.lane);
    most.resize(std::max(most.size(), static_cast<std::size_t>(exchange.lane) + 1));
    std::size_t bytes = 0;
    for (const Message& message : exchange.sends) bytes += packed_bytes(message.region);
    for (const Message& message : exchange.receives) bytes += packed_bytes(message.region);
    most[exchange.lane] = std::max(most[exchange.lane], bytes);
  }
  return most;
}

StreamsSession::StreamsSession(StreamsLink& link, const std::vector<LinkExchange>& exchanges, std::byte* staging)
    : link_(link), exchanges_(exchanges.size()) {
  const std::vector<std::size_t> bytes = staging_bytes(exchanges);
  const int lanes = static_cast<int>(bytes.size());
  ORRERY_CHECK(lanes <= link.transport().lanes(), "lane ", lanes - 1, " of a link with ", link.transport().lanes());
  watched.resize(bytes.size());
  awaited_.resize(bytes.size());
  on_lane_.resize(bytes.size());
  std::vector<std::byte*> of_lane(bytes.size());
  for (int lane = 0; lane < lanes; ++lane) {
    ORRERY_CHECK(bytes[lane] == 0 || staging != nullptr, bytes[lane], " bytes of staging at no address");
    of_lane[lane] = staging;
    if (staging != nullptr) staging += bytes[lane];
  }
  std::vector<NamesInBand::Moved> moved;
  for (std::size_t index = 0; index < exchanges.size(); ++index) {
    const LinkExchange& asked = exchanges[index];
    Exchange& mine = exchanges_[index];
    mine.lane = asked.lane;
    on_lane_[asked.lane].push_back(static_cast<int>(index));
    for (const int earlier : asked.after) {
      if (exchanges[earlier].lane != asked.lane) mine.after.push_back(earlier);
    }
    std::byte* place = of_lane[asked.lane];
    const auto add = [&](const Message& message, std::vector<Transfer>& list) {
      if (message.region.bytes() == 0) return;  // both sides leave it out
      const Region region = simplified(message.region);
      list.push_back({message.peer, region, region.contiguous() ? region.data : place});
      if (!region.contiguous()) place += packed_bytes(region);
    };
    for (const Message& message : asked.sends) add(message, mine.sends);
    for (const Message& message : asked.receives) add(message, mine.receives);
    NamesInBand::Moved& one = moved.emplace_back(NamesInBand::Moved{asked.lane, {}});
    for (const bool receive : {false, true}) {
      for (const Transfer& each : receive ? mine.receives : mine.sends) {
        one.messages.push_back({each.peer, receive, each.wire, static_cast<std::size_t>(each.region.bytes())});
      }
    }
  }
  names_.emplace(std::move(moved));
  for (Run& run : runs_) run.marks = std::vector<Marks>(exchanges.size());
}

StreamsSession::~StreamsSession() {
  try {
    settle(run_ - 1);
    settle(run_);
  } catch (const Error&) {  // the link is broken, and knows it
  }
  link_.forget(*this);
}

void StreamsSession::begin_run(const RunName& name) {
  ORRERY_CHECK(!running_, "a run begins inside a run");
  link_.throw_if_broken();
  settle(run_ - 1);
  const std::lock_guard lock(mutex_);
  ++run_;
  names_->begin_run(copy(run_), name);
  run(run_).number = run_;
  run(run_).started = 0;
  run(run_).captured = false;
  running_ = true;
}

void StreamsSession::start(int exchange, EventHandle ready) {
  link_.throw_if_broken();
  Run& now = run(run_);
  ORRERY_CHECK(running_ && exchange == now.started, "exchange ", exchange, " is started where ", now.started,
               " is next");
  const device::DeviceGuard guard(link_.transport().device().index);
  const Exchange& mine = exchanges_[exchange];
  const Marks& marks = now.marks[exchange];
  const StreamHandle stream = link_.stream(mine.lane);
  device::wait(stream, ready);
  for (const int earlier : mine.after) device::wait(stream, now.marks[earlier].ended.handle());
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;  // `ready` may have drawn the lane into one
  ORRERY_CUDA_CHECK(cudaStreamIsCapturing(stream, &capture));
  marks.began.record(stream);
  for (const Transfer& send : mine.sends) {
    if (send.packed()) kernels::cuda::copy_region(one_run(send.wire, send.region.bytes()), send.region, stream);
  }
  hand_over(exchange, capture != cudaStreamCaptureStatusNone);
  for (const Transfer& receive : mine.receives) {
    if (receive.packed())
      kernels::cuda::copy_region(receive.region, one_run(receive.wire, receive.region.bytes()), stream);
  }
  marks.ended.record(stream);
  const std::lock_guard lock(mutex_);
  if (capture != cudaStreamCaptureStatusNone) now.captured = true;
  ++now.started;
}

void StreamsSession::hand_over(int exchange, bool captured) {
  const std::vector<StreamMessage>& group = captured ? names_->captured(exchange) : names_->group(copy(run_), exchange);
  if (group.empty()) return;
  const auto enter = [this](int entered) {
    const std::lock_guard lock(mutex_);
    entered_ = entered;
    entered_at_ = steady_seconds();
  };
  enter(exchange);
  try {
    link_.transport().enqueue(exchanges_[exchange].lane, group);
  } catch (const Error&) {
    enter(-1);
    link_.throw_if_broken();  // the watchdog may have been what ended it
    throw;
  }
  enter(-1);
}

void StreamsSession::join(int exchange, StreamHandle stream, double /* timeout_seconds: the watchdog's business */) {
  link_.throw_if_broken();
  ORRERY_CHECK(running_ && exchange < run(run_).started, "exchange ", exchange, " is joined, but was not started");
  device::wait(stream, run(run_).marks[exchange].ended.handle());
}

void StreamsSession::end_run() noexcept {
  if (!running_) return;
  running_ = false;
  const int started = run(run_).started, all = static_cast<int>(exchanges_.size());
  // Peers would take the messages of the next run for those that never came.
  if (started < all) {
    link_.break_down(Error(ErrorCode::peer, concat("a run was abandoned after ", started, " of ", all, " exchanges")));
  }
}

void StreamsSession::wait(int exchange, double timeout_seconds) {
  const Run& now = run(run_);
  ORRERY_CHECK(exchange < now.started, "exchange ", exchange, " is awaited, but was not started");
  ORRERY_CHECK(!now.captured, "exchange ", exchange, " was captured; the launches of its graph are awaited by stream");
  wait_until_complete(now, exchange, timeout_seconds);
  for (const int earlier : on_lane_[exchanges_[exchange].lane]) {  // complete too
    if (earlier <= exchange) check_names(now, earlier);
  }
}

ExchangeTimes StreamsSession::times(int exchange, EventHandle origin) const {
  const Run& now = run(run_);
  if (now.captured) return {};
  return {now.marks[exchange].began.seconds_since(origin), now.marks[exchange].ended.seconds_since(origin)};
}

void StreamsSession::settle(long number) {
  const Run& old = run(std::max(number, 0L));
  if (number < 1 || old.captured) return;
  for (int exchange = 0; exchange < old.started; ++exchange) {
    wait_until_complete(old, exchange, link_.timeout_seconds());
    check_names(old, exchange);
  }
}

void StreamsSession::wait_until_complete(const Run& run, int exchange, double timeout_seconds) {
  const RelaxedCapture relaxed;
  constexpr double kForEver = 1e9;  // fault() keeps the time
  const Deadline deadline(kForEver, link_.interrupted());
  std::fill(awaited_.begin(), awaited_.end(), Clock{});
  while (!run.marks[exchange].ended.reached()) {
    link_.throw_if_broken();
    static_cast<void>(deadline.passed());
    const std::optional<Error> met = fault(awaited_, timeout_seconds, link_.transport().complaint());
    if (met) link_.break_down(*met);
    std::this_thread::sleep_for(kPause);
  }
  link_.throw_if_broken();  // an aborted exchange ends as well
}

void StreamsSession::check_names(const Run& run, int exchange) {
  const std::optional<Error> wrong = wrong_names(run, exchange);
  if (!wrong) return;
  link_.break_down(*wrong);
  link_.throw_if_broken();
}

std::optional<Error> StreamsSession::wrong_names(const Run& run, int exchange) const {
  const std::optional<std::string> said = names_->fault(copy(run.number), exchange, link_.transport().rank());
  if (!said) return std::nullopt;
  return Error(ErrorCode::peer, *said);
}

std::optional<Error> StreamsSession::fault(Clocks& clocks, double timeout_seconds, const std::string& complaint) {
  const double patience = complaint.empty() ? timeout_seconds : 0;
  const std::lock_guard lock(mutex_);
  const double now = steady_seconds();
  double longest = 0;
  std::vector<Outstanding> list;
  const auto judge = [&](int exchange, double since) {
    if (now - since < patience) return;
    longest = std::max(longest, now - since);
    add_messages(list, exchange);
  };
  for (int lane = 0; lane < static_cast<int>(clocks.size()); ++lane) {
    Clock& clock = clocks[lane];
    std::optional<Error> wrong;
    const bool waits = catch_up(clock, lane, wrong);
    if (wrong) return wrong;
    if (!waits) continue;
    const int exchange = on_lane_[lane][clock.at];
    if (clock.since < 0 && run(clock.run).marks[exchange].began.reached()) clock.since = now;
    if (clock.since >= 0) judge(exchange, clock.since);
  }
  if (entered_ >= 0) judge(entered_, entered_at_);
  if (list.empty() && complaint.empty()) return {};
  if (list.empty()) return Error(ErrorCode::peer, complaint);
  const std::string text = describe(list, patience > 0 ? patience : longest);
  return Error(ErrorCode::peer, complaint.empty() ? text : complaint + ": " + text);
}

bool StreamsSession::catch_up(Clock& clock, int lane, std::optional<Error>& wrong) const {
  const std::vector<int>& on_lane = on_lane_[lane];
  if (clock.run < run_ - 1) clock = {run_ - 1};
  for (; clock.run <= run_; clock = {clock.run + 1}) {
    const Run& one = run(clock.run);
    for (; !one.captured && clock.at < on_lane.size() && on_lane[clock.at] < one.started;
         clock = {clock.run, clock.at + 1}) {
      if (!one.marks[on_lane[clock.at]].ended.reached()) return true;
      wrong = wrong_names(one, on_lane[clock.at]);
      if (wrong) return false;
    }
    if (clock.run == run_) return false;
  }
  return false;
}

void StreamsSession::add_messages(std::vector<Outstanding>& list, int exchange) const {
  // A transport of streams does not tell what of a message has moved.
  const Exchange& one = exchanges_[exchange];
  for (const bool receive : {true, false}) {
    for (const Transfer& transfer : receive ? one.receives : one.sends) {
      add_outstanding(list, {receive, transfer.peer, one.lane, transfer.region.bytes(), transfer.region.bytes()});
    }
  }
}

}  // namespace orrery
