#include "link/staged/lone_link.hpp"

#include "device/check.hpp"
#include "device/stream.hpp"
#include "link/region.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

using device::EventHandle;

class LoneSession final : public StreamSession {
 public:
  explicit LoneSession(std::size_t exchanges) : ready_(exchanges) {}

  void begin_run(const RunName&) override { started_ = 0; }
  void start(int exchange, EventHandle ready) override {
    ORRERY_CHECK(exchange == started_, "exchange ", exchange, " is started where ", started_, " is next");
    ready_[started_++] = ready;
  }
  void join(int exchange, device::StreamHandle stream, double) override { device::wait(stream, ready_[exchange]); }
  void end_run() noexcept override {}
  void wait(int exchange, double) override { ORRERY_CUDA_CHECK(cudaEventSynchronize(ready_[exchange])); }
  ExchangeTimes times(int, EventHandle) const override { return {}; }

 private:
  std::vector<EventHandle> ready_;
  int started_ = 0;
};

}  // namespace

std::unique_ptr<StreamSession> LoneStreamLink::prepare(std::vector<LinkExchange> exchanges, std::byte*) {
  check_exchanges(exchanges, 0, 1);
  return std::make_unique<LoneSession>(exchanges.size());
}

}  // namespace orrery
