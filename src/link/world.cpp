#include "orrery/world.hpp"

#include <cstring>
#include <new>
#include <optional>

#include "core/ledger.hpp"

namespace orrery {

World::World() : ledger_(std::make_unique<Ledger>()) {}
World::~World() = default;

std::vector<double> all_gather(World& world, double mine) {
  std::vector<double> all;
  for (const std::vector<std::byte>& bytes : world.all_gather(std::as_bytes(std::span(&mine, 1)))) {
    ORRERY_CHECK(bytes.size() == sizeof(double), "rank ", all.size(), " gave ", bytes.size(), " bytes");
    std::memcpy(&all.emplace_back(), bytes.data(), sizeof(double));
  }
  return all;
}

std::vector<std::string> all_gather(World& world, const std::string& mine) {
  std::vector<std::string> all;
  for (const std::vector<std::byte>& bytes : world.all_gather(std::as_bytes(std::span(mine)))) {
    all.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return all;
}

void agree_no_error(World& world, const Error* mine) {
  // The code as one character, then the message; nothing at all stands for no error.
  std::string record;
  if (mine != nullptr) record = static_cast<char>(static_cast<int>(mine->code())) + std::string(mine->what());
  const std::vector<std::string> records = all_gather(world, record);
  for (std::size_t rank = 0; rank < records.size(); ++rank) {
    if (records[rank].empty()) continue;
    fail(static_cast<ErrorCode>(records[rank][0]), "rank ", rank, ": ", records[rank].substr(1));
  }
}

void all_or_none(World& world, const std::function<void()>& body) {
  std::optional<Error> met;
  try {
    body();
  } catch (const Error& error) {
    met = error;
  } catch (const std::bad_alloc&) {
    met = Error(ErrorCode::resource, "out of memory");
  } catch (const std::exception& error) {
    met = Error(ErrorCode::bug, error.what());
  }
  agree_no_error(world, met ? &*met : nullptr);
}

}  // namespace orrery
