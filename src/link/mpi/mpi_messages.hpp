// Messages as MPI prepares them: persistent requests made once, started together and tested together.
#pragma once

#include <vector>

#include "link/mpi/handles.hpp"
#include "link/mpi/pieces.hpp"
#include "orrery/transport.hpp"

namespace orrery {

class MpiMessages final : public PreparedMessages {
 public:
  MpiMessages(MPI_Comm comm, const std::vector<TransportMessage>& messages, std::int64_t piece_bytes);
  ~MpiMessages() override;

  void post(std::span<const int> messages) override;
  std::size_t poll(std::span<int> complete) override;

 private:
  struct Request {
    int message = 0;
    Piece piece;
  };
  void add(MPI_Comm comm, int number, std::int64_t piece_bytes);
  void start(int first, int end);
  bool finish(const Request& request, const MPI_Status& status);  // true when it was the last of its message
  [[noreturn]] void wrong_size(const Request& request, const MPI_Status& status, bool truncated) const;

  std::vector<TransportMessage> messages_;
  PersistentRequests requests_;
  std::vector<Request> described_;  // by request
  std::vector<int> first_request_;  // by message, with one more at the end
  std::vector<int> unfinished_;     // requests, by message

  // The requests in flight, packed so that a poll looks at no other.
  int active_count_ = 0;
  std::vector<MPI_Request> active_;
  std::vector<int> active_request_;
  std::vector<int> finished_;
  std::vector<MPI_Status> statuses_;
};

}  // namespace orrery
