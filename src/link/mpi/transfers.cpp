#include "link/mpi/transfers.hpp"

#include <sched.h>

#include <algorithm>

#include "link/mpi/mpi_tags.hpp"

namespace orrery {
namespace {

// The caller looks this often, yielding, before it sleeps: a small message is there sooner than a sleeper wakes.
constexpr int kLooks = 20;

}  // namespace

Transfers::Transfers(MPI_Comm comm, const std::vector<LinkExchange>& exchanges, std::int64_t piece_bytes)
    : order_(exchanges), unfinished_(exchanges.size()), times_(exchanges.size()), done_(exchanges.size()) {
  for (std::size_t index = 0; index < exchanges.size(); ++index) {
    first_request_.push_back(requests_.size());
    lane_.push_back(exchanges[index].lane);
    add(comm, exchanges[index], static_cast<int>(index), piece_bytes);
  }
  first_request_.push_back(requests_.size());
  active_.resize(requests_.size());
  active_request_.resize(requests_.size());
  finished_.resize(requests_.size());
  statuses_.resize(requests_.size());
}

// Sends stand before receives, because they are started in this order: two ranks that exchange over TCP and start their
// receives first can end up transferring one direction after the other.
void Transfers::add(MPI_Comm comm, const LinkExchange& exchange, int index, std::int64_t piece_bytes) {
  ORRERY_CHECK(exchange.lane < kLanes, "lane ", exchange.lane, " is beyond the tags of MPI");
  for (bool receive : {false, true}) {
    for (const Message& message : receive ? exchange.receives : exchange.sends) {
      for (Piece& piece : cut(message.region, piece_bytes)) {
        const MPI_Datatype type = piece.mpi_type();
        const int code =
            receive
                ? MPI_Recv_init(piece.address, piece.count, type, message.peer, exchange.lane, comm, requests_.add())
                : MPI_Send_init(piece.address, piece.count, type, message.peer, exchange.lane, comm, requests_.add());
        check_mpi(code, receive ? "MPI_Recv_init" : "MPI_Send_init");
        described_.push_back({index, message.peer, receive, piece.bytes, false, std::move(piece)});
      }
    }
  }
}

void Transfers::begin_run() {
  order_.begin_run();
  for (std::size_t exchange = 0; exchange < lane_.size(); ++exchange) {
    unfinished_[exchange] = first_request_[exchange + 1] - first_request_[exchange];
    times_[exchange] = {};
    done_[exchange].store(false, std::memory_order_relaxed);
  }
  for (Request& request : described_) request.complete = false;
  started_.store(0, std::memory_order_relaxed);
}

std::vector<Outstanding> Transfers::outstanding(int exchange) const {
  const int obstacle = order_.obstacle(exchange);
  const auto begin = described_.begin() + first_request_[obstacle];
  const auto end = described_.begin() + first_request_[obstacle + 1];
  std::vector<Outstanding> list;
  for (auto request = begin; request != end; ++request) {
    if (request->complete) continue;
    add_outstanding(list, {request->receive, request->peer, lane_[obstacle], request->bytes, request->bytes});
  }
  for (auto request = begin; request != end; ++request) {  // what did move of the same messages
    for (Outstanding& one : list) {
      if (request->complete && request->receive == one.receive && request->peer == one.peer) {
        one.of_bytes += request->bytes;
      }
    }
  }
  return list;
}

void Transfers::rethrow() const {
  std::rethrow_exception(failure_);
}

void Transfers::sleep_until_done(int exchange, const Deadline& deadline) {
  for (int look = 0; look < kLooks; ++look) {
    if (done(exchange) || failed()) return;
    sched_yield();
  }
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline.at(), [&] { return done(exchange) || failed(); });
}

ProgressWork::State Transfers::poll() {
  State state;
  const int started = started_.load(std::memory_order_acquire);
  for (int exchange = order_.next(started); exchange >= 0; exchange = order_.next(started)) {
    post(exchange);
    ++state.events;
  }
  if (active_count_ > 0) {
    int count = 0;
    const int code = MPI_Testsome(active_count_, active_.data(), &count, finished_.data(), statuses_.data());
    if (code != MPI_ERR_IN_STATUS) check_mpi(code, "MPI_Testsome");
    if (count == MPI_UNDEFINED) count = 0;
    for (int i = 0; i < count; ++i) {
      const Request& request = described_[active_request_[finished_[i]]];
      const int error = code == MPI_SUCCESS ? MPI_SUCCESS : statuses_[i].MPI_ERROR;
      if (error == MPI_ERR_TRUNCATE) wrong_size(request, statuses_[i], true);
      if (error != MPI_SUCCESS) {
        throw mpi_error(error, concat(request.receive ? "receiving from" : "sending to", " rank ", request.peer,
                                      " on lane ", lane_[request.exchange]));
      }
    }
    for (int i = 0; i < count; ++i) finish(active_request_[finished_[i]], statuses_[i]);
    // Closes the gaps from the end, so that no index moves before its turn.
    std::sort(finished_.begin(), finished_.begin() + count);
    for (int i = count - 1; i >= 0; --i) {
      --active_count_;
      active_[finished_[i]] = active_[active_count_];
      active_request_[finished_[i]] = active_request_[active_count_];
    }
    state.events += count;
  }
  state.in_flight = active_count_ > 0;
  return state;
}

void Transfers::fail(std::exception_ptr error) noexcept {
  const std::lock_guard lock(mutex_);
  failure_ = error;
  failed_.store(true, std::memory_order_release);
  changed_.notify_all();
}

void Transfers::post(int exchange) {
  const int first = first_request_[exchange], count = first_request_[exchange + 1] - first;
  times_[exchange].began = steady_seconds();
  if (count == 0) return complete(exchange);
  check_mpi(MPI_Startall(count, requests_.at(first)), "MPI_Startall");
  for (int request = first; request < first + count; ++request) {
    active_[active_count_] = *requests_.at(request);
    active_request_[active_count_] = request;
    ++active_count_;
  }
}

void Transfers::finish(int index, const MPI_Status& status) {
  Request& request = described_[index];
  if (request.receive) {
    MPI_Count bytes = 0;
    check_mpi(MPI_Get_elements_x(&status, request.piece.mpi_type(), &bytes), "MPI_Get_elements_x");
    if (bytes != request.bytes) wrong_size(request, status, false);
  }
  request.complete = true;
  if (--unfinished_[request.exchange] == 0) complete(request.exchange);
}

void Transfers::complete(int exchange) {
  times_[exchange].ended = steady_seconds();
  order_.complete(exchange);
  const std::lock_guard lock(mutex_);
  done_[exchange].store(true, std::memory_order_release);
  changed_.notify_all();
}

void Transfers::wrong_size(const Request& request, const MPI_Status& status, bool truncated) const {
  MPI_Count bytes = MPI_UNDEFINED;
  MPI_Get_elements_x(&status, MPI_BYTE, &bytes);
  const std::string sent = truncated && bytes <= request.bytes ? "more" : std::to_string(bytes);
  orrery::fail(ErrorCode::bug, "rank ", request.peer, " sent ", sent, " bytes on lane ", lane_[request.exchange],
               " where ", request.bytes, " are received");
}

}  // namespace orrery
