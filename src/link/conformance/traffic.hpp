// Bytes that tell where they come from, and the small vocabulary in which the suite writes exchanges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "link/link.hpp"
#include "orrery/error.hpp"
#include "orrery/world.hpp"

namespace orrery::conformance {

constexpr double kWait = 60;  // seconds; far more than anything here takes

using Bytes = std::vector<std::byte>;

inline std::byte byte_of(int owner, int series, std::int64_t index) {
  const std::uint64_t mixed =
      (static_cast<std::uint64_t>(owner) * 1000003 + static_cast<std::uint64_t>(series)) * 40503 +
      static_cast<std::uint64_t>(index) * 2654435761u;
  return static_cast<std::byte>(mixed >> 13);
}

inline Bytes bytes_of(int owner, int series, std::int64_t count) {
  Bytes bytes(count);
  for (std::int64_t i = 0; i < count; ++i) bytes[i] = byte_of(owner, series, i);
  return bytes;
}

template <typename... Parts>
void expect(bool condition, const Parts&... what) {
  if (!condition) fail(ErrorCode::bug, "expected: ", what...);
}

inline void expect_bytes(const Bytes& got, int owner, int series) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    expect(got[i] == byte_of(owner, series, static_cast<std::int64_t>(i)), "byte ", i, " of ", got.size(), " of rank ",
           owner, ", series ", series);
  }
}

// Runs `body` and returns the error that it throws.
template <typename Body>
Error error_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  fail(ErrorCode::bug, "expected an error");
}

inline Region whole(Bytes& bytes) {
  return {.data = bytes.data(), .run_bytes = static_cast<std::int64_t>(bytes.size())};
}

inline int right_of(const World& world) {
  return (world.rank() + 1) % world.world_size();
}
inline int left_of(const World& world) {
  return (world.rank() + world.world_size() - 1) % world.world_size();
}

// Starts and awaits all exchanges, one after the other or all at once.
inline void run_each(LinkSession& session, int exchanges) {
  session.begin_run();
  for (int i = 0; i < exchanges; ++i) {
    session.start(i);
    session.wait(i, kWait);
  }
  session.end_run();
}

inline void run_all(LinkSession& session, int exchanges) {
  session.begin_run();
  for (int i = 0; i < exchanges; ++i) session.start(i);
  for (int i = exchanges - 1; i >= 0; --i) session.wait(i, kWait);
  session.end_run();
}

}  // namespace orrery::conformance
