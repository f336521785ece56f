#include "link/mpi/gather.hpp"

#include <sched.h>

#include <chrono>
#include <cstring>
#include <numeric>
#include <thread>

#include "link/deadline.hpp"
#include "link/mpi/handles.hpp"
#include "link/mpi/mpi_tags.hpp"
#include "link/outstanding.hpp"
#include "link/reduce.hpp"

namespace orrery {
namespace {

constexpr double kPatienceForRoot = 1;  // seconds for which the other ranks let rank 0 speak first
constexpr auto kSpinning = std::chrono::milliseconds(1);
constexpr auto kNap = std::chrono::microseconds(50);
constexpr const char* kTookNothing = " took nothing of the result of all_gather for ";

}  // namespace

// One all_gather under way. Everything that MPI may write to lives here.
struct Gather::Round {
  Round(MPI_Comm comm_, const Deadline& deadline_) : comm(comm_), deadline(deadline_) {}

  MPI_Comm comm;
  Deadline deadline;
  std::vector<std::int64_t> sizes;
  std::vector<std::vector<std::byte>> records;
  std::vector<std::byte> mine, all;
  std::vector<MPI_Request> requests;
  std::vector<int> peers;  // by request

  void send(const void* data, std::size_t bytes, int peer, int tag) {
    peers.push_back(peer);
    check_mpi(MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, peer, tag, comm, &requests.emplace_back()),
              "MPI_Isend");
  }
  void receive(void* data, std::size_t bytes, int peer, int tag) {
    peers.push_back(peer);
    check_mpi(MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, peer, tag, comm, &requests.emplace_back()),
              "MPI_Irecv");
  }

  // Polls until all is done; false when the deadline passes first, and then the peers of what is not done are left.
  bool finish() {
    const auto spin_until = std::chrono::steady_clock::now() + kSpinning;
    for (;;) {
      int done = 0;
      check_mpi(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE),
                "MPI_Testall");
      if (done != 0) break;
      if (deadline.passed()) return false;
      if (std::chrono::steady_clock::now() < spin_until) {
        sched_yield();
      } else {
        std::this_thread::sleep_for(kNap);
      }
    }
    requests.clear();
    peers.clear();
    return true;
  }

  std::vector<int> late_peers() {
    std::vector<int> late;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      int done = 0;
      if (requests[i] == MPI_REQUEST_NULL) continue;
      check_mpi(MPI_Test(&requests[i], &done, MPI_STATUS_IGNORE), "MPI_Test");
      if (done == 0 && (late.empty() || late.back() != peers[i])) late.push_back(peers[i]);
    }
    return late;
  }

  std::int64_t total() const { return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}); }
  bool collect(std::span<const std::byte> own);
  bool share();
  bool ask(std::span<const std::byte> own, int rank);
  bool share_result(std::span<const double> result);
  bool ask_result(std::span<const std::byte> own);
};

Gather::Gather(MPI_Comm comm, int rank, int world_size, const Interrupted* interrupted)
    : comm_(comm), rank_(rank), world_size_(world_size), interrupted_(interrupted) {}
Gather::~Gather() {
  for (std::unique_ptr<Round>& round : abandoned_) static_cast<void>(round.release());
}

// Rank 0: the sizes of all, then the records of all.
bool Gather::Round::collect(std::span<const std::byte> own) {
  const int world_size = static_cast<int>(sizes.size());
  sizes[0] = static_cast<std::int64_t>(own.size());
  records[0].assign(own.begin(), own.end());
  for (int rank = 1; rank < world_size; ++rank) receive(&sizes[rank], sizeof(std::int64_t), rank, kGatherSizeTag);
  if (!finish()) return false;
  for (int rank = 1; rank < world_size; ++rank) {
    records[rank].resize(sizes[rank]);
    if (sizes[rank] > 0) receive(records[rank].data(), records[rank].size(), rank, kGatherDataTag);
  }
  return finish();
}

bool Gather::Round::share() {
  ORRERY_CHECK(total() <= kLargestRecords, "all_gather of ", total(), " bytes");
  for (const std::vector<std::byte>& record : records) all.insert(all.end(), record.begin(), record.end());
  for (int rank = 1; rank < static_cast<int>(sizes.size()); ++rank) {
    send(sizes.data(), sizes.size() * sizeof(std::int64_t), rank, kGatherSizeTag);
    if (!all.empty()) send(all.data(), all.size(), rank, kGatherDataTag);
  }
  return finish();
}

// Every other rank.
bool Gather::Round::ask(std::span<const std::byte> own, int rank) {
  mine.assign(own.begin(), own.end());
  std::int64_t& my_size = sizes.emplace_back(static_cast<std::int64_t>(mine.size()));
  const std::size_t world_size = sizes.size() - 1;
  send(&my_size, sizeof(std::int64_t), 0, kGatherSizeTag);
  if (!mine.empty()) send(mine.data(), mine.size(), 0, kGatherDataTag);
  receive(sizes.data(), world_size * sizeof(std::int64_t), 0, kGatherSizeTag);
  if (!finish()) return false;
  sizes.pop_back();
  ORRERY_CHECK(sizes[rank] == static_cast<std::int64_t>(mine.size()), "rank 0 took ", sizes[rank], " bytes of ",
               mine.size());
  all.resize(total());
  if (!all.empty()) receive(all.data(), all.size(), 0, kGatherDataTag);
  if (!finish()) return false;
  const std::byte* at = all.data();
  for (std::size_t each = 0; each < world_size; ++each) {
    records[each].assign(at, at + sizes[each]);
    at += sizes[each];
  }
  return true;
}

// Of a reduction: the result is as long as what each rank gave.
bool Gather::Round::share_result(std::span<const double> result) {
  const auto bytes = std::as_bytes(result);
  all.assign(bytes.begin(), bytes.end());
  for (int rank = 1; rank < static_cast<int>(sizes.size()) && !all.empty(); ++rank) {
    send(all.data(), all.size(), rank, kGatherDataTag);
  }
  return finish();
}

bool Gather::Round::ask_result(std::span<const std::byte> own) {
  mine.assign(own.begin(), own.end());
  sizes[0] = static_cast<std::int64_t>(mine.size());
  all.resize(mine.size());
  send(sizes.data(), sizeof(std::int64_t), 0, kGatherSizeTag);
  if (!mine.empty()) {
    send(mine.data(), mine.size(), 0, kGatherDataTag);
    receive(all.data(), all.size(), 0, kGatherDataTag);
  }
  return finish();
}

template <typename Body>
std::unique_ptr<Gather::Round> Gather::run(std::size_t bytes, double timeout_seconds, const Body& body) {
  if (broken()) fail(ErrorCode::peer, "an earlier all_gather missed its deadline");
  ORRERY_CHECK(bytes <= static_cast<std::size_t>(kLargestRecords), "all_gather of ", bytes, " bytes");
  const double patience = rank_ == 0 ? timeout_seconds : timeout_seconds + kPatienceForRoot;
  auto round = std::make_unique<Round>(comm_, Deadline(patience, interrupted_));
  round->sizes.reserve(world_size_ + 1);  // one more, so that ask() has a place that does not move
  round->sizes.resize(world_size_);
  round->records.resize(world_size_);
  const char* complaint = rank_ == 0 ? " did not come to all_gather within " : " gave no result of all_gather within ";
  bool finished = false;
  try {
    finished = body(*round, complaint);
  } catch (const Error&) {  // interrupted, or of MPI
    abandoned_.push_back(std::move(round));
    throw;
  }
  if (!finished) {
    const std::vector<int> late = round->late_peers();
    abandoned_.push_back(std::move(round));
    fail(ErrorCode::peer, ranks_text(late), complaint, seconds_text(patience), " s");
  }
  return round;
}

std::vector<std::vector<std::byte>> Gather::operator()(std::span<const std::byte> mine, double timeout_seconds) {
  const auto round = run(mine.size(), timeout_seconds, [&](Round& at, const char*& complaint) {
    if (rank_ != 0) return at.ask(mine, rank_);
    if (!at.collect(mine)) return false;
    complaint = kTookNothing;
    return at.share();
  });
  return std::move(round->records);
}

void Gather::all_reduce(std::span<double> values, Reduction reduction, double timeout_seconds) {
  const auto mine = std::as_bytes(values);
  const auto round = run(mine.size(), timeout_seconds, [&](Round& at, const char*& complaint) {
    if (rank_ != 0) return at.ask_result(mine);
    if (!at.collect(mine)) return false;
    reduce(at.records, reduction, values);
    complaint = kTookNothing;
    return at.share_result(values);
  });
  if (rank_ != 0 && !values.empty()) std::memcpy(values.data(), round->all.data(), mine.size());
}

}  // namespace orrery
