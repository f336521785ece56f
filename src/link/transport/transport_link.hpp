// The link over a transport: one progress thread, and sessions that hand it their transfers for a run.
#pragma once

#include <memory>
#include <vector>

#include "link/deadline.hpp"
#include "link/link.hpp"
#include "link/transport/progress_thread.hpp"

namespace orrery {

class TransportLink final : public Link {
 public:
  TransportLink(Transport& transport, const Interrupted* interrupted)
      : transport_(transport), interrupted_(interrupted) {}

  std::unique_ptr<LinkSession> prepare(std::vector<LinkExchange> exchanges) override;

  ProgressThread& thread() { return thread_; }
  const Interrupted* interrupted() const { return interrupted_; }
  bool lets_go() const { return transport_.lets_go(); }
  // A run was abandoned, and messages of it may still be under way.
  bool broken() const { return broken_; }
  void set_broken() { broken_ = true; }
  // Keeps the progress thread out of the transport, for a caller that is about to abort.
  void quiesce() noexcept;

 private:
  Transport& transport_;
  const Interrupted* interrupted_;
  bool broken_ = false;
  ProgressThread thread_;
};

}  // namespace orrery
