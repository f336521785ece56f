// Outputs: what is no regular file is written into, files are the same however they are spelled, and an output that is
// abandoned or fails leaves nothing.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <thread>

#include "io/output_state.hpp"
#include "orrery/error.hpp"
#include "orrery/output_file.hpp"
#include "support/catch.hpp"
#include "unit/io/files.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

std::string refusal_of(const std::string& path, ErrorCode code, std::int64_t bytes = 0) {
  const auto error = refusal([&] { OutputFile(path, bytes, 0.05); });
  REQUIRE(error);
  CHECK(error->code == code);
  CHECK(error->message.find('\n') == std::string::npos);
  return error->message;
}

void make_fifo(const std::string& path) {
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
}

}  // namespace

TEST_CASE("a file is the same however it is spelled, whether it exists or not") {
  const TemporaryFolder folder;
  write_text(folder / "a", "");
  std::filesystem::create_directory(folder / "d");
  std::filesystem::create_symlink("a", folder / "link");
  std::filesystem::create_symlink("b", folder / "dangling");
  std::filesystem::create_symlink("d", folder / "d2");
  std::filesystem::create_hard_link(folder / "a", folder / "hard");
  for (const char* name : {"a", "./a", "d/../a", "d2/../a", "link", "hard"}) {
    CHECK(identify_file(folder / name) == identify_file(folder / "a"));
  }
  for (const char* name : {"b", "./b", "d/../b", "dangling"}) {
    CHECK(identify_file(folder / name) == identify_file(folder / "b"));
  }
  CHECK(identify_file(folder / "d/b") == identify_file(folder / "d2/b"));
  CHECK_FALSE(identify_file(folder / "d/b") == identify_file(folder / "b"));
  CHECK_FALSE(identify_file(folder / "c") == identify_file(folder / "b"));
  CHECK(refusal([&] { identify_file(folder / "absent/b"); }));
}

TEST_CASE("a FIFO is written into, through a link as well, when its reader comes late and reads slowly") {
  const TemporaryFolder folder;
  make_fifo(folder / "fifo");
  std::filesystem::create_symlink("fifo", folder / "link");
  std::string read;
  std::thread reader([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    std::ifstream file(folder / "fifo", std::ios::binary);
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    read = {std::istreambuf_iterator<char>(file), {}};
  });
  const std::string text(300'000, 'x');  // more than a pipe holds
  {
    OutputFile output(folder / "link", 0, 20);
    CHECK(output.is_stream());
    output.write(text);
  }
  reader.join();
  CHECK(read == text);
  CHECK(std::filesystem::is_fifo(std::filesystem::symlink_status(folder / "fifo")));
  CHECK(std::filesystem::is_symlink(std::filesystem::symlink_status(folder / "link")));
}

TEST_CASE("a FIFO without a reader, or with one that stalls or leaves, is an error in time") {
  const TemporaryFolder folder;
  make_fifo(folder / "fifo");
  CHECK_THAT(refusal_of(folder / "fifo", ErrorCode::peer), ContainsSubstring("nobody opened it to read within 0.05 s"));
  const int reader = ::open((folder / "fifo").c_str(), O_RDONLY | O_NONBLOCK);
  OutputFile stalls(folder / "fifo", 0, 0.05), leaves(folder / "fifo", 0, 0.05);
  const auto stalled = refusal([&] { stalls.write(std::string(300'000, 'x')); });
  REQUIRE(stalled);
  CHECK(stalled->code == ErrorCode::peer);
  CHECK_THAT(stalled->message, ContainsSubstring("took nothing for 0.05 s"));
  ::close(reader);
  // The signal would end this process.
  const auto left = refusal([&] { leaves.write("x"); });
  REQUIRE(left);
  CHECK(left->code == ErrorCode::resource);
  CHECK_THAT(left->message, ContainsSubstring("its reader is gone"));
  sigset_t pending;
  ::sigpending(&pending);
  CHECK(::sigismember(&pending, SIGPIPE) == 0);
}

TEST_CASE("an open descriptor is written into from where it stands") {
  const TemporaryFolder folder;
  const int file = ::open((folder / "file").c_str(), O_WRONLY | O_CREAT, 0600);
  REQUIRE(::write(file, "before ", 7) == 7);
  for (const char* name : {"/dev/fd/", "/proc/self/fd/"}) OutputFile(name + std::to_string(file)).write("middle ");
  REQUIRE(::write(file, "after", 5) == 5);
  ::close(file);
  CHECK(read_text(folder / "file") == "before middle middle after");
  const int reading = ::open((folder / "file").c_str(), O_RDONLY);
  CHECK_THAT(refusal_of("/dev/fd/" + std::to_string(reading), ErrorCode::invalid), ContainsSubstring("reading only"));
  ::close(reading);
  CHECK(folder.files() == 1);
}

TEST_CASE("what cannot be written is refused when the output is made") {
  const TemporaryFolder folder;
  CHECK_THAT(refusal_of(folder / "absent/x", ErrorCode::invalid), ContainsSubstring("no directory"));
  CHECK_THAT(refusal_of(folder / "", ErrorCode::invalid), ContainsSubstring("not the name of a file"));
  std::filesystem::create_symlink("loop", folder / "loop");
  CHECK_THAT(refusal_of(folder / "loop", ErrorCode::invalid), ContainsSubstring("symbolic links"));
  CHECK_THAT(refusal_of(folder / "x", ErrorCode::resource, std::int64_t{1} << 62), ContainsSubstring("No space left"));
  if (::geteuid() != 0) {  // root may write anywhere
    write_text(folder / "read-only", "");
    REQUIRE(::chmod((folder / "read-only").c_str(), 0400) == 0);
    CHECK_THAT(refusal_of(folder / "read-only", ErrorCode::invalid), ContainsSubstring("Permission denied"));
  }
}

TEST_CASE("an output that is abandoned leaves nothing and writes nothing more") {
  const TemporaryFolder folder;
  OutputFile output(folder / "out");
  const io::FileDescriptor file = output.state().begin(100);
  CHECK(folder.files() == 1);
  output.abandon();
  CHECK(folder.files() == 0);
  CHECK(refusal([&] { output.state().commit(file); }));
  CHECK(refusal([&] { output.write("text"); }));
  CHECK(folder.files() == 0);
}

TEST_CASE("an output that has become something else meanwhile is not replaced") {
  const TemporaryFolder folder;
  OutputFile output(folder / "out");
  make_fifo(folder / "out");
  const auto error = refusal([&] { output.write("text"); });
  REQUIRE(error);
  CHECK_THAT(error->message, ContainsSubstring("not replaced"));
  CHECK(std::filesystem::is_fifo(folder / "out"));
  CHECK(folder.files() == 1);
}
