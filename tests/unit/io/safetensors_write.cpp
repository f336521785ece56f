// Writing together: the file is the same whatever the world and the layout, and a write that fails leaves nothing
// behind.
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <limits>
#include <vector>

#include "orrery/error.hpp"
#include "orrery/generate.hpp"
#include "orrery/io.hpp"
#include "support/catch.hpp"
#include "unit/io/files.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

using Shards = std::vector<std::vector<Span>>;  // by rank

const WorldOptions kOptions{.timeout_seconds = 20};
constexpr std::int64_t kTokens = 24, kBatch = 2, kHeads = 3, kWidth = 4;

// What a rank gives: generated rows with gaps between tokens where `padding` is not 0, and an lse whose value tells
// where it belongs.
struct RankRows {
  std::vector<std::uint16_t> out;
  std::vector<float> lse;
  std::vector<OutputTensor> tensors;

  RankRows(std::span<const Span> positions, std::int64_t padding) {
    const std::int64_t tokens = token_count(positions), token_stride = kHeads * (kWidth + padding) + padding;
    out.assign(static_cast<std::size_t>(kBatch * tokens * token_stride), 0xffff);
    const TensorView view{out.data(), Dtype::bf16,           kBatch,       tokens,          kHeads,
                          kWidth,     tokens * token_stride, token_stride, kWidth + padding};
    generate(view, Generated::query, 7, positions);
    lse.resize(static_cast<std::size_t>(kBatch * kHeads * tokens));
    const TensorView rows = TensorView::rows(lse.data(), kBatch, kHeads, tokens);
    for (std::int64_t b = 0; b < kBatch; ++b) {
      for (std::int64_t h = 0; h < kHeads; ++h) {
        std::int64_t token = 0;
        for (const Span& span : positions) {
          for (std::int64_t i = 0; i < span.count; ++i) {
            lse[rows.offset(b, token++, h)] = static_cast<float>(1000 * b + 100 * h + span.at(i));
          }
        }
      }
    }
    tensors = {{"out", view}, {"lse", rows, true}};
  }
};

void write(const std::string& path, const Shards& shards, std::int64_t padding = 0) {
  run_in_process(static_cast<int>(shards.size()), kOptions, [&](World& world) {
    const auto& positions = shards[static_cast<std::size_t>(world.rank())];
    const RankRows rows(positions, padding);
    write_safetensors(world, path, kTokens, positions, rows.tensors);
  });
}

std::string failing_write(const std::string& path, ErrorCode code = ErrorCode::invalid) {
  const auto error = refusal([&] { write(path, {{{0, 12, 1}}, {{12, 12, 1}}}); });
  REQUIRE(error);
  CHECK(error->code == code);
  CHECK(error->message.find('\n') == std::string::npos);
  return error->message;
}

}  // namespace

TEST_CASE("what was written is read back, tensor by tensor") {
  const TemporaryFolder folder;
  write(folder / "out", {{{0, kTokens, 1}}});
  const SafetensorsFile file(folder / "out");
  CHECK(file.info("out").shape == std::vector<std::int64_t>{kBatch, kTokens, kHeads, kWidth});
  CHECK(file.info("out").dtype == Dtype::bf16);
  CHECK(file.info("lse").shape == std::vector<std::int64_t>{kBatch, kHeads, kTokens});
  CHECK(file.info("lse").dtype == Dtype::fp32);
  for (const char* name : {"out", "lse"}) CHECK(file.info(name).file_offset % 8 == 0);

  const std::vector<Span> all = {{0, kTokens, 1}};
  const RankRows rows(all, 0);
  std::vector<std::uint16_t> out(rows.out.size());
  file.read(file.info("out"), all, TensorView::dense(out.data(), Dtype::bf16, kBatch, kTokens, kHeads, kWidth));
  CHECK(out == rows.out);
  const std::string bytes = read_text(folder / "out");
  CHECK(std::memcmp(bytes.data() + file.info("lse").file_offset, rows.lse.data(), rows.lse.size() * 4) == 0);
}

TEST_CASE("the file does not depend on the world, the layout or the strides") {
  const TemporaryFolder folder;
  write(folder / "one", {{{0, kTokens, 1}}});
  const std::string expected = read_text(folder / "one");
  const std::vector<Shards> worlds = {
      {{{0, 10, 1}}, {{10, 14, 1}}},                                                // uneven
      {{}, {{0, 24, 1}}, {}},                                                       // empty shards
      {{{0, 4, 1}, {20, 4, 1}}, {{4, 4, 1}, {16, 4, 1}}, {{8, 4, 1}, {12, 4, 1}}},  // zigzag
      {{{0, 8, 3}}, {{1, 8, 3}}, {{2, 8, 3}}},                                      // striped
      {{{12, 12, 1}, {0, 12, 1}}},                                                  // stored out of order
  };
  for (const Shards& shards : worlds) {
    for (const std::int64_t padding : {0, 3}) {
      write(folder / "many", shards, padding);
      CHECK(read_text(folder / "many") == expected);
    }
  }
  CHECK(folder.files() == 2);
}

TEST_CASE("the batch dimension can be left out when it is 1") {
  const TemporaryFolder folder;
  run_in_process(1, kOptions, [&](World& world) {
    std::vector<float> values(6, 1.f);
    const std::vector<Span> all = {{0, 3, 1}};
    const std::vector<OutputTensor> tensors = {
        {"out", TensorView::dense(values.data(), Dtype::fp32, 1, 3, 2, 1), false, false},
        {"lse", TensorView::rows(values.data(), 1, 2, 3), true, false}};
    write_safetensors(world, folder / "out", 3, all, tensors);
  });
  const SafetensorsFile file(folder / "out");
  CHECK(file.info("out").shape == std::vector<std::int64_t>{3, 2, 1});
  CHECK(file.info("lse").shape == std::vector<std::int64_t>{2, 3});
}

TEST_CASE("rows larger than the buffer are written whole") {
  const TemporaryFolder folder;
  const std::int64_t tokens = 3000, width = 300;
  std::vector<float> padded(static_cast<std::size_t>(tokens * 400)), read(static_cast<std::size_t>(tokens * width));
  for (std::size_t i = 0; i < padded.size(); ++i) padded[i] = static_cast<float>(i);
  const std::vector<Span> all = {{0, tokens, 1}};
  run_in_process(1, kOptions, [&](World& world) {
    const TensorView view{padded.data(), Dtype::fp32, 1, tokens, 1, width, 0, 400, 0};
    write_safetensors(world, folder / "out", tokens, all, std::vector<OutputTensor>{{"out", view}});
  });
  const SafetensorsFile file(folder / "out");
  file.read(file.info("out"), all, TensorView::dense(read.data(), Dtype::fp32, 1, tokens, 1, width));
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < tokens * width; ++i) wrong += read[i] != padded[i / width * 400 + i % width];
  CHECK(wrong == 0);
}

TEST_CASE("an existing file is replaced, a symbolic link is followed, and the umask is honoured") {
  const TemporaryFolder folder;
  write_text(folder / "real", "old");
  std::filesystem::create_symlink("real", folder / "link");
  std::filesystem::create_symlink("new", folder / "dangling");
  const mode_t before = ::umask(027);
  write(folder / "link", {{{0, kTokens, 1}}});
  ::umask(before);
  CHECK(read_text(folder / "real") != "old");
  CHECK(std::filesystem::is_symlink(std::filesystem::symlink_status(folder / "link")));
  CHECK(static_cast<int>(std::filesystem::status(folder / "real").permissions()) == 0640);
  write(folder / "dangling", {{{0, kTokens, 1}}});
  CHECK(read_text(folder / "real") == read_text(folder / "new"));
  CHECK(folder.files() == 4);
}

TEST_CASE("a target that cannot be is refused, and nothing is left behind") {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "directory");
  write_text(folder / "file", "old");
  CHECK_THAT(failing_write(folder / "directory"), ContainsSubstring("rank 0: ") && ContainsSubstring("is a directory"));
  CHECK_THAT(failing_write(folder / "absent/out"), ContainsSubstring("cannot write: there is no directory"));
  CHECK_THAT(failing_write(folder / "file/out"), ContainsSubstring("Not a directory"));
  CHECK_THAT(failing_write(folder / std::string(300, 'n')), ContainsSubstring("File name too long"));
  CHECK_THAT(failing_write(folder / "slash/"), ContainsSubstring("is not the name of a file"));
  CHECK_THAT(failing_write(""), ContainsSubstring("is not the name of a file"));
  if (::geteuid() != 0) {  // root may write anywhere
    REQUIRE(::chmod((folder / "directory").c_str(), 0500) == 0);
    CHECK_THAT(failing_write(folder / "directory/out"), ContainsSubstring("Permission denied"));
  }
  CHECK(folder.files() == 2);
  CHECK(read_text(folder / "file") == "old");
}

TEST_CASE("a file that may not grow is an error of resources, and the old file stays") {
  const TemporaryFolder folder;
  write_text(folder / "out", "old");
  const auto signal_before = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  rlimit small = before;
  small.rlim_cur = 600;
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const auto error = refusal([&] { write(folder / "out", {{{0, 12, 1}}, {{12, 12, 1}}}); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, signal_before);
  REQUIRE(error);
  CHECK(error->code == ErrorCode::resource);
  CHECK_THAT(error->message, ContainsSubstring("File too large"));
  CHECK(read_text(folder / "out") == "old");
  CHECK(folder.files() == 1);
}

TEST_CASE("one rank's error stops all ranks before a file is made") {
  const TemporaryFolder folder;
  const auto failing = [&](std::int64_t seq_len, std::vector<Span> of_rank_1, const std::string& name_of_rank_1) {
    int thrown[2] = {};
    run_in_process(2, kOptions, [&](World& world) {
      const std::vector<Span> first = {{0, 12, 1}};
      const auto& positions = world.rank() == 0 ? first : of_rank_1;
      std::vector<float> lse(64);
      const TensorView rows = TensorView::rows(lse.data(), 1, 1, 12);
      const std::vector<OutputTensor> tensors = {{world.rank() == 0 ? "lse" : name_of_rank_1, rows, true}};
      const auto error = refusal([&] { write_safetensors(world, folder / "out", seq_len, positions, tensors); });
      thrown[world.rank()] = error && error->code == ErrorCode::invalid;
    });
    CHECK(thrown[0] == 1);
    CHECK(thrown[1] == 1);
  };
  failing(24, {{12, 12, 1}}, "other");         // another tensor
  failing(24, {{12, 12, 1}}, "__metadata__");  // a name that the format keeps to itself
  failing(24, {{12, 12, 1}}, "\xff");          // no UTF-8
  failing(24, {{13, 12, 1}}, "lse");           // beyond the sequence
  failing(24, {{12, 11, 1}}, "lse");           // fewer positions than rows
  failing(25, {{12, 12, 1}}, "lse");           // a position that nobody holds
  failing(std::numeric_limits<std::int64_t>::max(), {{12, 12, 1}}, "lse");
  failing(-1, {{12, 12, 1}}, "lse");
  CHECK(folder.files() == 0);
}

TEST_CASE("views that contradict their tensor are refused") {
  const TemporaryFolder folder;
  const auto writing = [&](const std::vector<OutputTensor>& tensors) {
    const auto error = refusal([&] {
      run_in_process(1, kOptions, [&](World& world) {
        write_safetensors(world, folder / "out", 2, std::vector<Span>{{0, 2, 1}}, tensors);
      });
    });
    REQUIRE(error);
    CHECK(error->code == ErrorCode::invalid);
    return error->message;
  };
  std::vector<float> memory(16);
  const TensorView two = TensorView::dense(memory.data(), Dtype::fp32, 2, 2, 1, 2);
  CHECK_THAT(writing({{"out", two, false, false}}), ContainsSubstring("without its batch of 2"));
  CHECK_THAT(writing({{"lse", two, true}}), ContainsSubstring("width 2"));
  CHECK_THAT(writing({{"a", two}, {"a", two}}), ContainsSubstring("used twice"));
  CHECK_THAT(writing({{"", two}}), ContainsSubstring("empty"));
  CHECK(folder.files() == 0);
}
