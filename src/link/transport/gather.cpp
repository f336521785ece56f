#include "link/transport/gather.hpp"

#include <sched.h>

#include <chrono>
#include <cstring>
#include <numeric>
#include <thread>

#include "link/deadline.hpp"
#include "link/outstanding.hpp"
#include "link/reduce.hpp"

namespace orrery {
namespace {

constexpr double kPatienceForRoot = 1;  // seconds for which the other ranks let rank 0 speak first
constexpr auto kSpinning = std::chrono::milliseconds(1);
constexpr auto kNap = std::chrono::microseconds(50);
constexpr std::int64_t kLargestRecords = std::int64_t{1} << 30;  // all_gather is for small records
constexpr const char* kTookNothing = " took nothing of the result of all_gather for ";

}  // namespace

// One all_gather under way. Everything that the transport may write to lives here.
struct Gather::Round {
  Round(Transport& transport_, const Deadline& deadline_) : transport(transport_), deadline(deadline_) {}

  Transport& transport;
  Deadline deadline;
  std::vector<std::int64_t> sizes;
  std::vector<std::vector<std::byte>> records;
  std::vector<std::byte> mine, all;
  std::vector<TransportMessage> asked;  // to be posted together
  std::vector<bool> complete;           // of these
  std::unique_ptr<PreparedMessages> messages;

  void add(bool receive, void* data, std::size_t bytes, int peer) {
    const Region region{.data = static_cast<std::byte*>(data), .run_bytes = static_cast<std::int64_t>(bytes)};
    asked.push_back({kRecordsLane, peer, receive, region});
  }
  // What is sent is not written to, but regions do not say so.
  void send(void* data, std::size_t bytes, int peer) { add(false, data, bytes, peer); }
  void receive(void* data, std::size_t bytes, int peer) { add(true, data, bytes, peer); }

  // Posts what was asked for and polls until it is complete; false when the deadline passes first.
  bool finish() {
    if (asked.empty()) return true;
    std::vector<int> numbers(asked.size());
    std::iota(numbers.begin(), numbers.end(), 0);
    complete.assign(asked.size(), false);
    messages = transport.prepare(asked);
    messages->post(numbers);
    const auto spin_until = std::chrono::steady_clock::now() + kSpinning;
    for (std::size_t left = asked.size();;) {
      const std::size_t count = messages->poll(numbers);
      for (std::size_t i = 0; i < count; ++i) complete[static_cast<std::size_t>(numbers[i])] = true;
      left -= count;
      if (left == 0) break;
      if (deadline.passed()) return false;
      if (std::chrono::steady_clock::now() < spin_until) {
        sched_yield();
      } else {
        std::this_thread::sleep_for(kNap);
      }
    }
    messages.reset();
    asked.clear();
    return true;
  }

  std::vector<int> late_peers() const {
    std::vector<int> late;
    for (std::size_t i = 0; i < asked.size(); ++i) {
      if (!complete[i] && (late.empty() || late.back() != asked[i].peer)) late.push_back(asked[i].peer);
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

Gather::Gather(Transport& transport, const Interrupted* interrupted)
    : transport_(transport), rank_(transport.rank()), world_size_(transport.world_size()), interrupted_(interrupted) {}
Gather::~Gather() {
  if (transport_.lets_go()) return;
  for (std::unique_ptr<Round>& round : abandoned_) static_cast<void>(round.release());
}

// Rank 0: the sizes of all, then the records of all.
bool Gather::Round::collect(std::span<const std::byte> own) {
  const int world_size = static_cast<int>(sizes.size());
  sizes[0] = static_cast<std::int64_t>(own.size());
  records[0].assign(own.begin(), own.end());
  for (int rank = 1; rank < world_size; ++rank) receive(&sizes[rank], sizeof(std::int64_t), rank);
  if (!finish()) return false;
  for (int rank = 1; rank < world_size; ++rank) {
    records[rank].resize(sizes[rank]);
    if (sizes[rank] > 0) receive(records[rank].data(), records[rank].size(), rank);
  }
  return finish();
}

bool Gather::Round::share() {
  ORRERY_CHECK(total() <= kLargestRecords, "all_gather of ", total(), " bytes");
  for (const std::vector<std::byte>& record : records) all.insert(all.end(), record.begin(), record.end());
  for (int rank = 1; rank < static_cast<int>(sizes.size()); ++rank) {
    send(sizes.data(), sizes.size() * sizeof(std::int64_t), rank);
    if (!all.empty()) send(all.data(), all.size(), rank);
  }
  return finish();
}

// Every other rank.
bool Gather::Round::ask(std::span<const std::byte> own, int rank) {
  mine.assign(own.begin(), own.end());
  std::int64_t& my_size = sizes.emplace_back(static_cast<std::int64_t>(mine.size()));
  const std::size_t world_size = sizes.size() - 1;
  send(&my_size, sizeof(std::int64_t), 0);
  if (!mine.empty()) send(mine.data(), mine.size(), 0);
  receive(sizes.data(), world_size * sizeof(std::int64_t), 0);
  if (!finish()) return false;
  sizes.pop_back();
  ORRERY_CHECK(sizes[rank] == static_cast<std::int64_t>(mine.size()), "rank 0 took ", sizes[rank], " bytes of ",
               mine.size());
  all.resize(total());
  if (!all.empty()) receive(all.data(), all.size(), 0);
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
    send(all.data(), all.size(), rank);
  }
  return finish();
}

bool Gather::Round::ask_result(std::span<const std::byte> own) {
  mine.assign(own.begin(), own.end());
  sizes[0] = static_cast<std::int64_t>(mine.size());
  all.resize(mine.size());
  send(sizes.data(), sizeof(std::int64_t), 0);
  if (!mine.empty()) {
    send(mine.data(), mine.size(), 0);
    receive(all.data(), all.size(), 0);
  }
  return finish();
}

template <typename Body>
std::unique_ptr<Gather::Round> Gather::run(std::size_t bytes, double timeout_seconds, const Body& body) {
  if (broken()) fail(ErrorCode::peer, "an earlier all_gather missed its deadline");
  ORRERY_CHECK(bytes <= static_cast<std::size_t>(kLargestRecords), "all_gather of ", bytes, " bytes");
  const double patience = rank_ == 0 ? timeout_seconds : timeout_seconds + kPatienceForRoot;
  auto round = std::make_unique<Round>(transport_, Deadline(patience, interrupted_));
  round->sizes.reserve(world_size_ + 1);  // one more, so that ask() has a place that does not move
  round->sizes.resize(world_size_);
  round->records.resize(world_size_);
  const char* complaint = rank_ == 0 ? " did not come to all_gather within " : " gave no result of all_gather within ";
  bool finished = false;
  try {
    finished = body(*round, complaint);
  } catch (const Error&) {  // interrupted, or of the transport
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
