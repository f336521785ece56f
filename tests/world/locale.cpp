// A host program may choose any locale, for C++ and for C. What Orrery writes and reads does not follow it.
#include <unistd.h>

#include <clocale>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <locale>
#include <string>
#include <vector>

#include "link/outstanding.hpp"
#include "support/catch.hpp"
#include "world/sharded.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

namespace fs = std::filesystem;

class German : public std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\1"; }
};

// While it lives, C++ streams group every digit and write commas; so does C, where the machine has a German locale or
// can make one in `folder`.
class GermanProgram {
 public:
  explicit GermanProgram(const fs::path& folder) : cpp_(std::locale::global(std::locale(std::locale(), new German))) {
    const std::string made = (folder / "de_DE.UTF-8").string();
    const std::string command = "localedef -i de_DE -f UTF-8 '" + made + "' > /dev/null 2>&1";
    if (std::system(command.c_str()) == 0) ::setenv("LOCPATH", folder.c_str(), 1);
    for (const char* name : {"de_DE.UTF-8", "de_DE.utf8", "de_DE"}) {
      if (std::setlocale(LC_ALL, name) != nullptr) return;
    }
    WARN("no German locale for C is here: only that of C++ is tried");
  }
  ~GermanProgram() {
    std::setlocale(LC_ALL, "C");
    ::unsetenv("LOCPATH");
    std::locale::global(cpp_);
  }

 private:
  std::locale cpp_;
};

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string refusal_of(const char* mask) {
  try {
    Mask::parse(mask, 12345);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

// Everything that leaves the library as text, by way of every room that writes or reads numbers.
std::vector<std::string> texts(const fs::path& folder) {
  AttentionProblem problem;
  problem.seq_len = 12345;
  problem.heads = problem.kv_heads = 2;
  problem.head_dim = 16;
  problem.mask = Mask::parse("causal+window:1234,5678+documents:10000,2345", problem.seq_len);
  const Plan plan = make_plan(problem, Topology::single_node(4), {"striped:1000", "ring", true});
  const RankProgram program = plan.program(1, Pass::forward);
  std::vector<std::string> all = {plan.text(),
                                  plan.layout.text(),
                                  problem.mask.text(),
                                  to_text(program),
                                  concat(1234567, ' ', 1234.5, ' ', 1e-9),
                                  seconds_text(1234.5),
                                  seconds_text(0.0125),
                                  refusal_of("documents:1000,2000"),
                                  refusal_of("window:1.5")};

  const std::vector<Timeline> timelines = {
      {1000, Pass::forward, 1234.5, 1.25, 0.125, {{"attend", to_text(program, 0), 1000, {0.5, 1.5, 1234.5}, 123456}}}};
  all.push_back(to_svg(timelines));
  all.push_back(to_chrome_json(timelines));
  all.push_back(serialize(parse_timeline(serialize(timelines.front()))));

  run_in_process(1, {.timeout_seconds = 60}, [&](World& world) {
    const std::vector<Span> positions = {{0, 1234, 1}};
    const OwnedTensor rows(Dtype::fp32, 1, 1234, 2, 16, 0);
    const std::string path = (folder / "tensors").string();
    const std::vector<OutputTensor> outputs = {{"out", rows.view()}};
    write_safetensors(world, path, 1234, positions, outputs);
    all.push_back(contents(path).substr(0, 200));
    all.push_back(concat(SafetensorsFile(path).info("out").bytes));
  });

  ::setenv("ORRERY_TIMEOUT_SECONDS", "1234.5", 1);
  all.push_back(concat(Env::read().timeout_seconds));
  ::unsetenv("ORRERY_TIMEOUT_SECONDS");
  return all;
}

}  // namespace

TEST_CASE("the locale of a host program changes no text") {
  const fs::path folder = fs::temp_directory_path() / ("orrery-locale-" + std::to_string(::getpid()));
  fs::create_directory(folder);
  const std::vector<std::string> before = texts(folder);
  std::vector<std::string> german;
  {
    const GermanProgram program(folder);
    std::ostringstream grouped;
    grouped << 1234.5;
    REQUIRE(grouped.str() == "1.2.3.4,5");
    german = texts(folder);
  }
  fs::remove_all(folder);
  REQUIRE(german.size() == before.size());
  for (std::size_t i = 0; i < before.size(); ++i) CHECK(german[i] == before[i]);
}
