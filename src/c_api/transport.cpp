// A transport of C functions. Each call gets a buffer for its complaint, and a status other than ORRERY_OK becomes the
// error that it stands for.
#include "orrery/transport.hpp"

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "c_api/opening.hpp"
#include "orrery/conformance.hpp"

using namespace orrery;
using namespace orrery::c_api;

namespace {

// Calls a function of the transport, with `arguments` between its `user` and its text.
template <typename Function, typename... Arguments>
void call(const orrery_transport& transport, Function function, const char* name, Arguments... arguments) {
  std::array<char, 512> text{};
  const orrery_status status = function(transport.user, arguments..., text.data(), text.size());
  if (status == ORRERY_OK) return;
  text.back() = '\0';
  if (text.front() != '\0') throw Error(code_of(status), text.data());
  fail(code_of(status), "the transport's ", name, " failed with status ", status, " and without a word");
}

class CMessages final : public PreparedMessages {
 public:
  CMessages(const orrery_transport& transport, const std::vector<TransportMessage>& messages)
      : transport_(transport), count_(messages.size()) {
    std::vector<orrery_message> theirs;
    theirs.reserve(messages.size());
    for (const TransportMessage& message : messages) {
      theirs.push_back({message.lane, message.peer, message.receive ? 1 : 0, message.region.data,
                        static_cast<std::size_t>(message.region.bytes())});
    }
    call(transport_, transport_.prepare, "prepare", theirs.data(), static_cast<int>(theirs.size()), &prepared_);
  }
  ~CMessages() override { transport_.release(transport_.user, prepared_); }

  void post(std::span<const int> messages) override {
    call(transport_, transport_.post, "post", prepared_, messages.data(), static_cast<int>(messages.size()));
  }
  std::size_t poll(std::span<int> complete) override {
    int count = 0;
    call(transport_, transport_.poll, "poll", prepared_, complete.data(), &count);
    const bool possible = count >= 0 && static_cast<std::size_t>(count) <= count_;
    if (!possible) fail(ErrorCode::bug, "the transport's poll completed ", count, " of ", count_, " messages");
    return static_cast<std::size_t>(count);
  }

 private:
  const orrery_transport& transport_;
  std::size_t count_;
  void* prepared_ = nullptr;
};

class CTransport final : public Transport {
 public:
  explicit CTransport(const orrery_transport& given)
      : given_(given),
        name_(text_or(given.name, "transport")),
        host_(given.host == nullptr ? Transport::host() : given.host) {
    require(given_.prepare, "the transport's prepare");
    require(given_.post, "the transport's post");
    require(given_.poll, "the transport's poll");
    require(given_.release, "the transport's release");
  }
  ~CTransport() override {
    if (ours_ && given_.close != nullptr) given_.close(given_.user);
  }

  int rank() const override { return given_.rank; }
  int world_size() const override { return given_.world_size; }
  std::string name() const override { return name_; }
  std::string host() const override { return host_; }
  std::unique_ptr<PreparedMessages> prepare(std::vector<TransportMessage> messages) override {
    return std::make_unique<CMessages>(given_, messages);
  }
  void abort(ErrorCode code, std::string_view message) noexcept override {
    if (given_.abort == nullptr) return;
    const std::string text(message);
    given_.abort(given_.user, static_cast<orrery_status>(code), text.c_str());
  }

  // It is closed with this from now on.
  void take() { ours_ = true; }

 private:
  const orrery_transport given_;
  const std::string name_, host_;
  bool ours_ = false;
};

}  // namespace

orrery_status orrery_context_from_transport(const orrery_transport* transport, const orrery_context_options* options,
                                            orrery_context** context, char* message, size_t message_size) {
  return open_context(context, {message, message_size}, [&] {
    require(transport, "transport");
    const orrery_transport defaults = ORRERY_TRANSPORT_INIT;
    auto made = std::make_unique<CTransport>(read(transport, defaults, "transport"));
    CTransport& known = *made;
    std::unique_ptr<World> world = open_world(std::move(made), options_of(options));
    known.take();
    return world;
  });
}

int64_t orrery_conformance_cases(char* text, size_t text_size) {
  return guarded_number(ToNobody{}, [&] {
    std::string lines;
    for (const ConformanceCase& each : conformance_cases()) {
      lines += concat(each.name, each.fails ? " fails " : " good ", each.shows, "\n");
    }
    return give(lines, text, text_size);
  });
}

orrery_status orrery_context_conform(orrery_context* context, const char* name) {
  if (context == nullptr) return ORRERY_INVALID;
  return guarded(ToRank{*context->rank}, [&] {
    World& world = *context->rank->world;
    name == nullptr ? conform(world) : conform(world, name);
  });
}
