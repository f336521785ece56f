#include "launch/turns.hpp"

#include <filesystem>
#include <fstream>

#include "orrery/machine.hpp"
#include "support/catch.hpp"

using namespace orrery;
using launch::Seat;
using launch::turns_text;

TEST_CASE("ranks that have fewer cores or devices between them than they use take turns") {
  const Seat two{0, "", {0, 1}, 1};
  CHECK(turns_text({two, two}).empty());
  CHECK(turns_text({two, two, two}) == "3 ranks take turns on 2 cores");
  CHECK(turns_text({{0, "", {0, 1}, 2}, two}) == "2 ranks take turns on 2 cores");
  CHECK(turns_text({{0, "", {0, 1}, 4}}).empty());                // threads of one rank are its own affair
  CHECK(turns_text({{0, "", {0}, 1}, {0, "", {1}, 1}}).empty());  // bound to a core each
  CHECK(turns_text({{0, "", {0}, 1}, {1, "", {0}, 1}}).empty());  // of different hosts
  CHECK(turns_text({two, {0, "", {1}, 1}, {0, "", {1}, 1}}) == "3 ranks take turns on 2 cores");
  CHECK(turns_text({{0, "uuid a", {}, 1}, {0, "uuid b", {}, 1}}).empty());
  CHECK(turns_text({{0, "uuid a", {}, 1}, {0, "uuid a", {}, 1}}) == "2 ranks take turns on one CUDA device");
}

TEST_CASE("a driver is found by what it leaves in the file system") {
  const auto root = std::filesystem::temp_directory_path() / "orrery_driver_test";
  std::filesystem::create_directories(root / "dev");
  CHECK_FALSE(has_cuda_driver(root.string()));
  std::ofstream(root / "dev" / "nvidiactl").put('\n');
  CHECK(has_cuda_driver(root.string()));
  std::filesystem::remove_all(root);
}
