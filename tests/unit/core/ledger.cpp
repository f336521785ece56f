#include "core/ledger.hpp"

#include <vector>

#include "support/catch.hpp"

using namespace orrery;

namespace {

struct Example {
  std::vector<std::byte> memory = std::vector<std::byte>(1024);
  Ledger ledger;
  TensorView bytes(std::size_t begin, std::size_t count) { return bytes_view(std::span(memory).subspan(begin, count)); }
};

}  // namespace

TEST_CASE("an entry holds until a byte of it is written over") {
  Example e;
  const Ledger::Entry one{e.ledger.new_owner(), {e.bytes(0, 64), e.bytes(256, 64)}};
  const Ledger::Entry other{e.ledger.new_owner(), {e.bytes(64, 64)}};
  REQUIRE(one.owner() != other.owner());
  e.ledger.note(one);
  e.ledger.note(other);
  e.ledger.overwrite(e.bytes(128, 128));
  REQUIRE(e.ledger.holds(one));
  REQUIRE(e.ledger.holds(other));
  e.ledger.overwrite(e.bytes(252, 8));
  REQUIRE_FALSE(e.ledger.holds(one));
  REQUIRE(e.ledger.holds(other));
}

TEST_CASE("an entry is its owner's, and of these tensors") {
  Example e;
  const Ledger::Entry entry{e.ledger.new_owner(), {e.bytes(0, 64)}};
  e.ledger.note(entry);
  REQUIRE(e.ledger.holds({entry.owner(), {e.bytes(0, 64)}}));
  REQUIRE_FALSE(e.ledger.holds({e.ledger.new_owner(), {e.bytes(0, 64)}}));
  REQUIRE_FALSE(e.ledger.holds({entry.owner(), {e.bytes(0, 64), e.bytes(64, 64)}}));
  e.ledger.forget(entry.owner());
  REQUIRE_FALSE(e.ledger.holds(entry));
}
