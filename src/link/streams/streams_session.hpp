// The exchanges of one plan on the lanes of a transport of streams. On a lane's stream an exchange is: a wait for what
// it depends on, the packing of rows that do not lie together, one group of sends and receives, and the unpacking.
// Everything else is the order of streams: the host waits only when it is asked to.
//
// Runs may follow each other faster than the device works them off. Two are kept apart, each with events of its own;
// the third waits on the host for the first.
#pragma once

#include <array>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "device/stream.hpp"
#include "link/outstanding.hpp"
#include "link/stream_link.hpp"
#include "link/streams/names_in_band.hpp"
#include "link/streams/streams_link.hpp"

namespace orrery {

class StreamsSession final : public StreamSession {
 public:
  StreamsSession(StreamsLink& link, const std::vector<LinkExchange>& exchanges, std::byte* staging);
  ~StreamsSession() override;

  void begin_run(const RunName& run) override;
  void start(int exchange, device::EventHandle ready) override;
  void join(int exchange, device::StreamHandle stream, double timeout_seconds) override;
  void end_run() noexcept override;
  void wait(int exchange, double timeout_seconds) override;
  ExchangeTimes times(int exchange, device::EventHandle origin) const override;

  // Where a lane is: the first exchange that is not complete, and since when it could have moved.
  struct Clock {
    long run = 0;
    std::size_t at = 0;  // among the exchanges of the lane
    double since = -1;   // steady seconds; -1: it waits for this rank's own computation
  };
  using Clocks = std::vector<Clock>;  // one for each lane that the exchanges name
  // Moves the clocks on, and says what is outstanding where a lane has not moved for this long; with a complaint of the
  // transport, the complaint and all that is outstanding. Any thread.
  std::optional<Error> fault(Clocks& clocks, double timeout_seconds, const std::string& complaint);

  Clocks watched;  // the watchdog's

  // Of each lane: the most that one of its exchanges has to pack.
  static std::vector<std::size_t> staging_bytes(const std::vector<LinkExchange>& exchanges);

 private:
  // One message, contiguous on the wire.
  struct Transfer {
    int peer = 0;
    Region region;              // simplified
    std::byte* wire = nullptr;  // [region.bytes()]: the region itself, or its place in the staging
    bool packed() const { return wire != region.data; }
  };
  struct Exchange {
    int lane = 0;
    std::vector<Transfer> sends, receives;
    std::vector<int> after;  // of other lanes; those of its own lane are done before it anyway
  };
  struct Marks {
    device::Event began{device::Timing::on}, ended{device::Timing::on};
  };
  struct Run {
    long number = 0;
    std::vector<Marks> marks;
    int started = 0;
    bool captured = false;  // into a CUDA graph: its events mean nothing outside of the graph
  };

  Run& run(long number) { return runs_[static_cast<std::size_t>(number % 2)]; }
  const Run& run(long number) const { return runs_[static_cast<std::size_t>(number % 2)]; }
  void hand_over(int exchange, bool captured);  // to the transport
  void settle(long number);
  void wait_until_complete(const Run& run, int exchange, double timeout_seconds);
  static int copy(long number) { return static_cast<int>(number % 2); }  // of the names, for a run that is not captured
  // Both of an exchange that is complete.
  void check_names(const Run& run, int exchange);
  std::optional<Error> wrong_names(const Run& run, int exchange) const;
  // The caller holds the mutex. False when everything that was started on the lane is complete, or the names of what is
  // are wrong.
  bool catch_up(Clock& clock, int lane, std::optional<Error>& wrong) const;
  void add_messages(std::vector<Outstanding>& list, int exchange) const;

  StreamsLink& link_;
  std::vector<Exchange> exchanges_;
  std::vector<std::vector<int>> on_lane_;
  std::optional<NamesInBand> names_;  // once the exchanges are there
  Clocks awaited_;                    // the caller's
  bool running_ = false;

  std::mutex mutex_;  // guards what follows, but for the events themselves
  std::array<Run, 2> runs_;
  long run_ = 0;      // counted from 1
  int entered_ = -1;  // the exchange that is being handed to the transport; NCCL waits there for unwarmed peers
  double entered_at_ = 0;
};

}  // namespace orrery
