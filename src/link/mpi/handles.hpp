// MPI's handles as C++ owns things, and its return codes as errors. Like everything beside it, used by one thread at a
// time.
#pragma once

#include <mpi.h>

#include <string>
#include <utility>
#include <vector>

#include "orrery/error.hpp"

namespace orrery {

// An error of MPI with its own description: misuse is ErrorCode::bug, what befalls a transfer is ErrorCode::peer.
Error mpi_error(int code, const std::string& what);
inline void check_mpi(int code, const char* what) {
  if (code != MPI_SUCCESS) throw mpi_error(code, what);
}

class Communicator {
 public:
  Communicator() = default;
  explicit Communicator(MPI_Comm handle) : handle_(handle) {}
  Communicator(Communicator&& other) noexcept : handle_(std::exchange(other.handle_, MPI_COMM_NULL)) {}
  Communicator& operator=(Communicator&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Communicator() {
    if (handle_ != MPI_COMM_NULL) MPI_Comm_free(&handle_);
  }
  MPI_Comm get() const { return handle_; }
  void forget() { handle_ = MPI_COMM_NULL; }  // leaves it to the end of the process

 private:
  MPI_Comm handle_ = MPI_COMM_NULL;
};

class Datatype {
 public:
  Datatype() = default;
  explicit Datatype(MPI_Datatype handle) : handle_(handle) {}
  Datatype(Datatype&& other) noexcept : handle_(std::exchange(other.handle_, MPI_DATATYPE_NULL)) {}
  Datatype& operator=(Datatype&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Datatype() {
    if (handle_ != MPI_DATATYPE_NULL) MPI_Type_free(&handle_);
  }
  MPI_Datatype get() const { return handle_; }

 private:
  MPI_Datatype handle_ = MPI_DATATYPE_NULL;
};

// Persistent requests, in one array so that MPI can start a part of them in one call.
class PersistentRequests {
 public:
  PersistentRequests() = default;
  PersistentRequests(PersistentRequests&&) = default;
  PersistentRequests& operator=(PersistentRequests&& other) noexcept {
    std::swap(handles_, other.handles_);
    return *this;
  }
  ~PersistentRequests() {
    for (MPI_Request& handle : handles_) {
      if (handle != MPI_REQUEST_NULL) MPI_Request_free(&handle);
    }
  }
  // The place for MPI_Send_init or MPI_Recv_init to fill.
  MPI_Request* add() { return &handles_.emplace_back(MPI_REQUEST_NULL); }
  MPI_Request* at(int index) { return &handles_[index]; }
  int size() const { return static_cast<int>(handles_.size()); }
  void forget() { handles_.clear(); }  // they are still active and will never be waited for

 private:
  std::vector<MPI_Request> handles_;
};

}  // namespace orrery
