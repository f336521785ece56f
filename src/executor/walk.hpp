// The walk over the programs of all ranks in one thread, without memory and without links: which step may begin, which
// message meets which, and who waits for ever.
//
// A rank's computing steps are a queue, and so are its exchanges on each lane: the steps of a queue begin in program
// order. The first step of a queue begins as soon as nothing holds it back any more. What may hold it back are earlier
// steps of its rank alone: those that it depends on, and those that the rank's order adds, which stands for a backend
// and its link. Between two ranks, on one lane, the n-th send that has begun meets the n-th receive.
//
// What steps do, and when they have done it, is the client's: the checker moves provenance and is done at once, a clock
// lets time pass.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "executor/hazards.hpp"
#include "orrery/schedule.hpp"

namespace orrery {

// What holds steps back, beside what they depend on and the order of their queue (the table of docs/schedule.md).
struct Order {
  const char* name;
  bool computation = false;  // an exchange waits until all earlier computation is complete
  bool begun = false;        // an exchange waits until all earlier exchanges have begun
  bool met = false;          // every step waits until all earlier exchanges are complete
  bool lane = false;         // an exchange waits until the one before it on its lane is complete

  // Each step begins when all earlier ones are complete: then dependencies hold nothing back that is not so already.
  bool is_strict() const { return computation && met; }
};
inline constexpr Order kLanesFree{.name = "lanes free"};                                    // devices of threads
inline constexpr Order kHostOrder{.name = "host", .computation = true};                     // the host backend
inline constexpr Order kStagedOrder{.name = "staged", .computation = true, .begun = true};  // devices over MPI
inline constexpr Order kNcclOrder{.name = "NCCL, connected", .lane = true};
inline constexpr Order kNcclConnecting{.name = "NCCL, connecting", .met = true, .lane = true};
inline constexpr Order kProgramOrder{
    .name = "program order", .computation = true, .begun = true, .met = true, .lane = true};

class Walk {
 public:
  struct End {
    int rank, step;
    std::size_t index;  // among the sends or receives of the step
  };
  struct Message {
    End send, receive;
  };
  // Between two ranks, on one lane, where sends or receives have begun that have not met their partners.
  struct Waiting {
    int from, to, lane;
    bool sends;  // else receives
  };

  // What is told may answer with Walk::done(), at once or later.
  class Client {
   public:
    virtual ~Client() = default;
    // A step begins: computation, or an exchange whose messages meet later.
    virtual void begin(int rank, int step) = 0;
    // Both ends of a message have begun.
    virtual void meet(const Message& message) = 0;
    // All parts of a step are done.
    virtual void complete(int /*rank*/, int /*step*/) {}
  };

  // One program a rank, of one world, and one order a rank, or one for all. The programs, validated, and the client
  // must outlive the walk.
  Walk(const std::vector<RankProgram>& programs, const std::vector<Order>& orders, Client& client);

  // Begins whatever may begin, until nothing more may: then everything is complete, or the client owes a done(), or the
  // rest waits for ever.
  void advance();
  // A part of a step that has begun is done. A computing step has one part; an exchange has one a transfer, which the
  // client may say once the transfer's message has met.
  void done(int rank, int step);
  void done(const Message& message);  // at both ends

  bool complete() const;  // all steps of all ranks
  // The first step of a rank that is not complete; nothing when all are.
  std::optional<int> stands_at(int rank) const;
  std::vector<Waiting> waiting() const;  // ascending

 private:
  // Steps that begin in program order.
  struct Queue {
    std::vector<int> steps;
    std::size_t begun = 0, complete = 0;  // so many of the first steps are

    bool before(int step, std::size_t count) const { return count == steps.size() || steps[count] >= step; }
  };
  struct Rank {
    const RankProgram* program;
    Order order;
    std::optional<Dependencies> dependencies;  // not of a strict order
    std::vector<Queue> queues;                 // computation, then one a lane
    Queue exchanges;                           // of all lanes, which need not begin in this order
    std::vector<std::size_t> open;             // by step: its parts that are not done
    std::vector<char> begun;                   // by step
    bool listed = false;                       // among those that may have something to do
  };
  struct Channel {
    std::deque<End> sends, receives;
  };

  bool may_begin(const Rank& rank, const Queue& queue, int step) const;
  void begin(int rank, Queue& queue, int step);
  void meet(Channel& channel);
  void list(int rank);
  static bool is_complete(const Rank& rank, int step);

  Client& client_;
  std::vector<Rank> ranks_;
  std::vector<int> listed_;
  std::map<std::tuple<int, int, int>, Channel> channels_;  // (from, to, lane)
};

}  // namespace orrery
