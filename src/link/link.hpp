// Links carry slices between ranks. A plan's exchanges are known before it runs, so a link prepares them once and then
// only starts and awaits them: nothing is created, and nothing of ours is allocated, while a plan runs.
//
// Messages have no names. Between two ranks, on one lane, the n-th message sent is the n-th received; the checker
// proves that both sides agree (backend/coverage).
#pragma once

#include <memory>
#include <vector>

#include "link/run_name.hpp"
#include "orrery/transport.hpp"

namespace orrery {

struct Message {
  int peer = 0;  // never the rank itself
  Region region;
};

// Transfers that progress together and are complete together.
struct LinkExchange {
  int lane = 0;
  std::vector<Message> sends, receives;
  // Earlier exchanges of the same session (by index) that must be complete before this one may touch memory.
  // Computation is no concern of a link: start() is called when all computation this exchange depends on is done.
  std::vector<int> after;
};

// When an exchange was at work, in seconds of the steady clock.
struct ExchangeTimes {
  double began = 0, ended = 0;
};

class LinkSession {
 public:
  virtual ~LinkSession() = default;

  // A run starts every exchange once, in order of index, or is abandoned after an error. begin_run() forgets the last
  // run. Messages of ranks whose runs have different names do not meet: a wait throws ErrorCode::peer, naming both.
  virtual void begin_run(const RunName& run) = 0;
  void begin_run() { begin_run({}); }
  virtual void start(int exchange) = 0;  // returns at once
  virtual bool done(int exchange) = 0;
  // Returns when the exchange is complete. Throws ErrorCode::peer when it has waited timeout_seconds, with the peer,
  // the direction and the bytes outstanding; or when the world was aborted.
  virtual void wait(int exchange, double timeout_seconds) = 0;
  virtual ExchangeTimes times(int exchange) const = 0;
  // Called after the last wait of a run, or when a run is abandoned: after it nothing of this session is in flight or
  // will be touched (after an abandoned run, the memory stays valid as long as the session does).
  virtual void end_run() noexcept = 0;
};

class Link {
 public:
  virtual ~Link() = default;
  // Local: no rank needs to call it together with another. The regions must outlive the session.
  virtual std::unique_ptr<LinkSession> prepare(std::vector<LinkExchange> exchanges) = 0;
};

}  // namespace orrery
