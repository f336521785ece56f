#include "launch/seats.hpp"

#include <filesystem>
#include <fstream>

#include "orrery/machine.hpp"
#include "support/catch.hpp"

using namespace orrery;
using launch::crowd_text;
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

TEST_CASE("ranks whose threads have fewer cores than they are crowd") {
  const Seat two{0, "", {0, 1}, 2};
  CHECK(crowd_text({two}).empty());
  CHECK(crowd_text({two, two}) == "the 2 ranks of a node compute with 4 threads on 2 cores");
  CHECK(crowd_text({two, {1, "", {0, 1}, 2}}).empty());           // of different hosts
  CHECK(crowd_text({{0, "", {0}, 1}, {0, "", {0}, 1}}).empty());  // of one thread each
  CHECK(crowd_text({two, {0, "", {2, 3}, 2}}).empty());           // bound to cores of their own
  CHECK(crowd_text({{0, "", {}, 64}, {0, "", {}, 64}}).empty());  // not known
  CHECK(crowd_text({{0, "", {0, 1}, 3}}) == "rank 0 computes with 3 threads on 2 cores");
  CHECK(crowd_text({two, {1, "", {0}, 2}}) ==
        "rank 1 computes with 2 threads on 1 core; mpirun --bind-to none binds no rank to a core");
}

TEST_CASE("a driver is found by what it leaves in the file system") {
  const auto root = std::filesystem::temp_directory_path() / "orrery_driver_test";
  std::filesystem::create_directories(root / "dev");
  CHECK_FALSE(has_cuda_driver(root.string()));
  std::ofstream(root / "dev" / "nvidiactl").put('\n');
  CHECK(has_cuda_driver(root.string()));
  std::filesystem::remove_all(root);
}
