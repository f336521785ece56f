#include "orrery/world.hpp"

#include <algorithm>
#include <cstring>
#include <optional>

#include "core/ledger.hpp"

namespace orrery {

World::World() : ledger_(std::make_unique<Ledger>()) {}
World::~World() = default;

std::vector<double> all_gather(World& world, double mine) {
  std::vector<double> all;
  for (const Records::Bytes& bytes : world.all_gather(std::as_bytes(std::span(&mine, 1)))) {
    ORRERY_CHECK(bytes.size() == sizeof(double), "rank ", all.size(), " gave ", bytes.size(), " bytes");
    std::memcpy(&all.emplace_back(), bytes.data(), sizeof(double));
  }
  return all;
}

std::vector<std::string> all_gather(World& world, const std::string& mine) {
  std::vector<std::string> all;
  for (const Records::Bytes& bytes : world.all_gather(std::as_bytes(std::span(mine)))) {
    all.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return all;
}

std::optional<AgreedError> agree_on_error(World& world, const Error* mine) {
  // The code as one character, then the message; nothing at all stands for no error.
  std::string record;
  if (mine != nullptr) record = static_cast<char>(static_cast<int>(mine->code())) + std::string(mine->what());
  const std::vector<std::string> records = all_gather(world, record);
  const auto met = std::find_if(records.begin(), records.end(), [](const std::string& one) { return !one.empty(); });
  if (met == records.end()) return std::nullopt;
  const bool of_all = std::all_of(records.begin(), records.end(), [&](const std::string& one) { return one == *met; });
  return AgreedError{Error(static_cast<ErrorCode>(met->front()), met->substr(1)),
                     static_cast<int>(met - records.begin()), of_all};
}

void agree_no_error(World& world, const Error* mine) {
  const std::optional<AgreedError> agreed = agree_on_error(world, mine);
  if (agreed) fail(agreed->error.code(), "rank ", agreed->rank, ": ", agreed->error.what());
}

void all_or_none(World& world, const std::function<void()>& body) {
  std::optional<Error> met;
  try {
    body();
  } catch (...) {
    met = current_error();
  }
  agree_no_error(world, met ? &*met : nullptr);
}

}  // namespace orrery
