// Streams and events that close themselves. All belong to the device that was current when they were made; using them
// needs no current device, except where work is launched.
#pragma once

#include <memory>

#include "device/handles.hpp"

namespace orrery::device {

// Makes a device current for this thread as long as it lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device);  // throws ErrorCode::invalid when there is no such device
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_;
};

enum class Timing { off, on };

// A point in a stream's work.
class Event {
 public:
  explicit Event(Timing timing = Timing::off);

  EventHandle handle() const { return event_.get(); }
  void record(StreamHandle stream) const;
  bool reached() const;             // also true of an event never recorded
  void wait_until_reached() const;  // blocks this thread
  // Both with timing, recorded and reached.
  double seconds_since(EventHandle earlier) const;

 private:
  struct Destroy {
    void operator()(EventHandle event) const noexcept;
  };
  std::unique_ptr<CUevent_st, Destroy> event_;
};

// What is put on a stream later waits for the event's last record before now.
void wait(StreamHandle stream, EventHandle event);

enum class Priority { normal, high };

class Stream {
 public:
  explicit Stream(Priority priority = Priority::normal);  // independent of the legacy default stream

  StreamHandle handle() const { return stream_.get(); }
  void synchronize() const;

 private:
  struct Destroy {
    void operator()(StreamHandle stream) const noexcept;
  };
  std::unique_ptr<CUstream_st, Destroy> stream_;
};

}  // namespace orrery::device
