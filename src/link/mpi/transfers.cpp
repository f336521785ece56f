#include "link/mpi/transfers.hpp"

#include <sched.h>

#include <algorithm>

#include "link/mpi/mpi_tags.hpp"

namespace orrery {
namespace {

// The caller looks this often, yielding, before it sleeps: a small message is there sooner than a sleeper wakes.
constexpr int kLooks = 20;

}  // namespace

Transfers::Transfers(MPI_Comm comm, int rank, const std::vector<LinkExchange>& exchanges, std::int64_t piece_bytes)
    : rank_(rank), order_(exchanges), unfinished_(exchanges.size()), times_(exchanges.size()), done_(exchanges.size()) {
  for (std::size_t index = 0; index < exchanges.size(); ++index) {
    first_request_.push_back(requests_.size());
    lane_.push_back(exchanges[index].lane);
    add(comm, exchanges[index], static_cast<int>(index), piece_bytes);
  }
  first_request_.push_back(requests_.size());
  add_names(comm);
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
    if (receive) first_receive_.push_back(requests_.size());
    for (const Message& message : receive ? exchange.receives : exchange.sends) {
      for (Piece& piece : cut(message.region, piece_bytes)) {
        const MPI_Datatype type = piece.mpi_type();
        const int code =
            receive
                ? MPI_Recv_init(piece.address, piece.count, type, message.peer, exchange.lane, comm, requests_.add())
                : MPI_Send_init(piece.address, piece.count, type, message.peer, exchange.lane, comm, requests_.add());
        check_mpi(code, receive ? "MPI_Recv_init" : "MPI_Send_init");
        const std::int64_t bytes = piece.bytes;
        const int source = receive ? add_source(message.peer) : -1;
        described_.push_back({index, message.peer, receive, bytes, false, false, std::move(piece), source});
      }
    }
  }
}

// The source's number. Called for each request in order, it notes the first ones.
int Transfers::add_source(int rank) {
  const auto known =
      std::find_if(sources_.begin(), sources_.end(), [=](const Source& one) { return one.rank == rank; });
  const auto number = static_cast<int>(known - sources_.begin());
  if (known == sources_.end()) sources_.push_back({rank, {}, false, {}});
  const auto request = static_cast<int>(described_.size());
  const bool goes_on = request > first_receive_.back() && described_.back().source == number;
  if (!goes_on) sources_[static_cast<std::size_t>(number)].receives.push_back(request);
  return number;
}

// A name belongs to the first exchange with its peer, which is not complete before the name has moved.
void Transfers::add_names(MPI_Comm comm) {
  constexpr int kBytes = sizeof(RunName);
  for (Source& source : sources_) {  // all are there, so a name stays where it is
    check_mpi(MPI_Recv_init(&source.name, kBytes, MPI_BYTE, source.rank, kRunNameTag, comm, requests_.add()),
              "MPI_Recv_init");
    const int exchange = described_[source.receives.front()].exchange;
    described_.push_back({exchange, source.rank, true, kBytes, false, false, {}, -1});
  }
  std::vector<int> told;
  for (int request = 0; request < first_request_.back(); ++request) {
    const int exchange = described_[request].exchange, peer = described_[request].peer;
    if (described_[request].receive || std::find(told.begin(), told.end(), peer) != told.end()) continue;
    told.push_back(peer);
    check_mpi(MPI_Send_init(&run_, kBytes, MPI_BYTE, peer, kRunNameTag, comm, requests_.add()), "MPI_Send_init");
    described_.push_back({exchange, peer, false, kBytes, false, false, {}, -1});
  }
}

void Transfers::begin_run(const RunName& run) {
  order_.begin_run();
  for (std::size_t exchange = 0; exchange < lane_.size(); ++exchange) {
    unfinished_[exchange] = first_request_[exchange + 1] - first_request_[exchange];
    times_[exchange] = {};
    done_[exchange].store(false, std::memory_order_relaxed);
  }
  for (Request& request : described_) request.started = request.complete = false;
  for (int request = first_request_.back(); request < requests_.size(); ++request) {
    ++unfinished_[described_[request].exchange];
  }
  run_ = run;
  for (Source& source : sources_) source.known = false;
  names_begun_ = false;
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
  while (!done(exchange) && !failed() && !deadline.passed()) changed_.wait_until(lock, deadline.at());
}

ProgressWork::State Transfers::poll() {
  State state;
  if (!names_begun_) {
    start(first_request_.back(), requests_.size());
    names_begun_ = true;
  }
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

void Transfers::start(int first, int end) {
  if (first == end) return;
  check_mpi(MPI_Startall(end - first, requests_.at(first)), "MPI_Startall");
  for (int request = first; request < end; ++request) {
    described_[request].started = true;
    active_[active_count_] = *requests_.at(request);
    active_request_[active_count_] = request;
    ++active_count_;
  }
}

void Transfers::post(int exchange) {
  times_[exchange].began = steady_seconds();
  if (unfinished_[exchange] == 0) return complete(exchange);
  start(first_request_[exchange], first_receive_[exchange]);
  for (int first = first_receive_[exchange]; first < first_request_[exchange + 1]; ++first) {
    const Source& source = sources_[described_[first].source];
    if (source.known && !described_[first].started) receive(source, first);
  }
}

// Starts the receives from a source that stand together from this one on.
void Transfers::receive(const Source& source, int first) {
  const int exchange = described_[first].exchange;
  int end = first;
  while (end < first_request_[exchange + 1] && described_[end].peer == source.rank) ++end;
  start(first, end);
}

// What has been waiting for the source's name, in order.
void Transfers::meet(Source& source) {
  if (source.name != run_) orrery::fail(ErrorCode::peer, not_the_same(source.rank, source.name, rank_, run_));
  source.known = true;
  for (const int first : source.receives) {
    if (order_.begun(described_[first].exchange)) receive(source, first);
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
  const int name = index - first_request_.back();
  if (name >= 0 && name < static_cast<int>(sources_.size())) meet(sources_[static_cast<std::size_t>(name)]);
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
