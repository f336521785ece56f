// The thread that makes a transport move. Most transfer nothing between calls (MPI does not, on shared memory or TCP),
// so while ranks compute, somebody must keep calling them; and they allow only one thread at a time. While the thread
// serves some work it alone calls the transport; before take() and after release() it does not.
//
// It is hot, polling and yielding, for a moment after anything happened and as long as the caller is blocked; else it
// naps between polls, longer and longer, so that computation keeps the core; with nothing in flight it sleeps. Where it
// has a core to spare it stays hot while anything is in flight: shared memory without single copies (in containers that
// forbid process_vm_readv) moves a small fragment a poll, and naps would throttle it.
#pragma once

#include <memory>

namespace orrery {

class ProgressWork {
 public:
  virtual ~ProgressWork() = default;
  struct State {
    int events = 0;  // transfers that began or completed in this poll
    bool in_flight = false;
  };
  // Called by the thread alone. What it throws is handed to fail(), and the work is released.
  virtual State poll() = 0;
  virtual void fail(std::exception_ptr error) noexcept = 0;
};

class ProgressThread {
 public:
  ProgressThread();
  ~ProgressThread();
  ProgressThread(const ProgressThread&) = delete;
  ProgressThread& operator=(const ProgressThread&) = delete;

  void take(ProgressWork& work);
  void kick();  // there is something new to begin
  void core_to_spare(bool spare);
  void caller_blocks(bool blocked);  // somebody needs the next completion at once
  bool serving() const;
  // Returns true when the thread no longer touches the work or the transport; false when it is stuck in there for
  // this long.
  bool release(double seconds) noexcept;

 private:
  struct Shared;
  static void serve(Shared& shared, ProgressWork& work);
  static void main(Shared& shared);

  std::unique_ptr<Shared> shared_;
};

}  // namespace orrery
