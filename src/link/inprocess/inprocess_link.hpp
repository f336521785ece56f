// The link between ranks that are threads. A message needs no transport, only a meeting: a send and a receive meet in
// the channel of their pair and lane, in order, and whichever thread brought the second of the two copies the bytes.
// When that completes an exchange on which others of the same rank wait, the same thread posts those on that rank's
// behalf, so a rank that computes does not hold anybody up.
//
// Tickets, one a message, are made by prepare() and only linked and unlinked while a plan runs.
#pragma once

#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "link/inprocess/hub.hpp"
#include "link/link.hpp"

namespace orrery {

class InprocessSession;
struct Channel;

struct Ticket {
  enum class State { idle, queued, copying };

  InprocessSession* session = nullptr;
  Channel* channel = nullptr;
  Region region;
  int exchange = 0;
  int peer = 0;
  bool receive = false;
  State state = State::idle;
  Ticket* next = nullptr;   // in its channel's queue, or among the meetings that wait for their copy
  Ticket* match = nullptr;  // of a receive that has met its send
};

class TicketQueue {
 public:
  void push(Ticket* ticket);
  Ticket* pop();  // nullptr when empty
  void remove(Ticket* ticket);

 private:
  Ticket* first_ = nullptr;
  Ticket* last_ = nullptr;
};

// Of the messages from one rank to another on one lane, those that have not met yet: only sends, or only receives.
struct Channel {
  TicketQueue sends, receives;
};

class Channels {
 public:
  // The caller holds the hub's mutex. The channel stays where it is as long as the world lasts.
  Channel& channel(int from, int to, int lane) { return channels_[{from, to, lane}]; }

 private:
  std::map<std::tuple<int, int, int>, Channel> channels_;
};

class InprocessLink final : public Link {
 public:
  InprocessLink(Hub& hub, Channels& channels, int rank) : hub_(hub), channels_(channels), rank_(rank) {}
  std::unique_ptr<LinkSession> prepare(std::vector<LinkExchange> exchanges) override;

 private:
  Hub& hub_;
  Channels& channels_;
  int rank_;
};

}  // namespace orrery
