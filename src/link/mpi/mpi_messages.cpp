#include "link/mpi/mpi_messages.hpp"

#include <algorithm>
#include <utility>

namespace orrery {
namespace {

// A lane is its own tag, and Orrery's own lanes have those above all others: MPI promises tags up to 32767.
constexpr int kLanes = 32000;

int tag_of(int lane) {
  ORRERY_CHECK(lane < kLanes, "lane ", lane, " is beyond the tags of MPI");
  return lane >= 0 ? lane : kLanes - lane;
}

}  // namespace

MpiMessages::MpiMessages(MPI_Comm comm, const std::vector<TransportMessage>& messages, std::int64_t piece_bytes)
    : messages_(messages), unfinished_(messages.size()) {
  for (std::size_t number = 0; number < messages.size(); ++number) {
    first_request_.push_back(requests_.size());
    add(comm, static_cast<int>(number), piece_bytes);
  }
  first_request_.push_back(requests_.size());
  active_.resize(described_.size());
  active_request_.resize(described_.size());
  finished_.resize(described_.size());
  statuses_.resize(described_.size());
}

// MPI cannot be made to let go of what is in flight; only the end of the process does.
MpiMessages::~MpiMessages() {
  if (active_count_ > 0) requests_.forget();
}

void MpiMessages::add(MPI_Comm comm, int number, std::int64_t piece_bytes) {
  const TransportMessage& message = messages_[static_cast<std::size_t>(number)];
  const int tag = tag_of(message.lane);
  for (Piece& piece : cut(message.region, piece_bytes)) {
    const MPI_Datatype type = piece.mpi_type();
    const int code = message.receive
                         ? MPI_Recv_init(piece.address, piece.count, type, message.peer, tag, comm, requests_.add())
                         : MPI_Send_init(piece.address, piece.count, type, message.peer, tag, comm, requests_.add());
    check_mpi(code, message.receive ? "MPI_Recv_init" : "MPI_Send_init");
    described_.push_back({number, std::move(piece)});
  }
}

void MpiMessages::post(std::span<const int> messages) {
  for (std::size_t at = 0; at < messages.size();) {  // those that follow one another start in one call
    const int first = messages[at];
    int end = first;
    while (at < messages.size() && messages[at] == end) ++at, ++end;
    start(first, end);
  }
}

void MpiMessages::start(int first, int end) {
  const int first_request = first_request_[first], end_request = first_request_[end];
  check_mpi(MPI_Startall(end_request - first_request, requests_.at(first_request)), "MPI_Startall");
  for (int message = first; message < end; ++message) {
    unfinished_[message] = first_request_[message + 1] - first_request_[message];
  }
  for (int request = first_request; request < end_request; ++request) {
    active_[active_count_] = *requests_.at(request);
    active_request_[active_count_] = request;
    ++active_count_;
  }
}

std::size_t MpiMessages::poll(std::span<int> complete) {
  if (active_count_ == 0) return 0;
  int count = 0;
  const int code = MPI_Testsome(active_count_, active_.data(), &count, finished_.data(), statuses_.data());
  if (code != MPI_ERR_IN_STATUS) check_mpi(code, "MPI_Testsome");
  if (count == MPI_UNDEFINED) count = 0;
  for (int i = 0; i < count; ++i) {
    const Request& request = described_[active_request_[finished_[i]]];
    const int error = code == MPI_SUCCESS ? MPI_SUCCESS : statuses_[i].MPI_ERROR;
    if (error == MPI_ERR_TRUNCATE) wrong_size(request, statuses_[i], true);
    if (error != MPI_SUCCESS) {
      const TransportMessage& message = messages_[request.message];
      throw mpi_error(error, concat(message.receive ? "receiving from" : "sending to", " rank ", message.peer,
                                    " on lane ", message.lane));
    }
  }
  std::size_t whole = 0;
  for (int i = 0; i < count; ++i) {
    const Request& request = described_[active_request_[finished_[i]]];
    if (finish(request, statuses_[i])) complete[whole++] = request.message;
  }
  // Closes the gaps from the end, so that no index moves before its turn.
  std::sort(finished_.begin(), finished_.begin() + count);
  for (int i = count - 1; i >= 0; --i) {
    --active_count_;
    active_[finished_[i]] = active_[active_count_];
    active_request_[finished_[i]] = active_request_[active_count_];
  }
  return whole;
}

bool MpiMessages::finish(const Request& request, const MPI_Status& status) {
  if (messages_[request.message].receive) {
    MPI_Count bytes = 0;
    check_mpi(MPI_Get_elements_x(&status, request.piece.mpi_type(), &bytes), "MPI_Get_elements_x");
    if (bytes != request.piece.bytes) wrong_size(request, status, false);
  }
  return --unfinished_[request.message] == 0;
}

void MpiMessages::wrong_size(const Request& request, const MPI_Status& status, bool truncated) const {
  MPI_Count bytes = MPI_UNDEFINED;
  MPI_Get_elements_x(&status, MPI_BYTE, &bytes);
  const TransportMessage& message = messages_[request.message];
  const std::string sent = truncated && bytes <= request.piece.bytes ? "more" : std::to_string(bytes);
  fail(ErrorCode::bug, "rank ", message.peer, " sent ", sent, " bytes on lane ", message.lane, " where ",
       request.piece.bytes, " are received");
}

}  // namespace orrery
