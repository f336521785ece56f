// The text of masks: what is accepted and how it is written back, and that everything else is refused with a line that
// quotes it and says what is allowed.
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "definition.hpp"
#include "orrery/error.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

std::string refusal(const std::string& text, std::int64_t seq_len = 10) {
  try {
    Mask::parse(text, seq_len);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::invalid);
    const std::string message = error.what();
    CHECK(message.find('\n') == std::string::npos);
    CHECK(message.size() < 400);
    return message;
  }
  return "accepted";
}

// A file in the current directory that lives as long as this.
struct TemporaryFile {
  std::string path;

  explicit TemporaryFile(const std::string& contents, const std::string& end = ".txt")
      : path("orrery-mask-" + std::to_string(getpid()) + end) {
    std::ofstream(path) << contents;
  }
  ~TemporaryFile() { std::remove(path.c_str()); }
};

}  // namespace

TEST_CASE("mask text is written back with the terms in a fixed order") {
  const auto canonical = [](const char* text) { return Mask::parse(text, 10).text(); };
  CHECK(canonical("full") == "full");
  CHECK(canonical("causal") == "causal");
  CHECK(canonical("sinks:4+window:512+causal") == "causal+window:512,0+sinks:4");
  CHECK(canonical("documents:3,0,7+window:2,1") == "window:2,1+documents:3,0,7");
  CHECK(canonical("prefix:5+causal") == "causal+prefix:5");
  CHECK(canonical("full+documents:10") == "documents:10");
  CHECK(canonical("window:007") == "window:7,0");
  CHECK(canonical("window:2,-1") == "window:2,-1");
  CHECK(Mask::full(10).text() == "full");
  CHECK(Mask::causal(10).text() == "causal");
}

TEST_CASE("the canonical text of any mask gives the same mask") {
  Random random(2);
  for (int round = 0; round < 500; ++round) {
    const Definition definition = random.mask(random.at_most(30));
    const Mask mask = Mask::parse(definition.text(), definition.seq_len);
    const Mask again = Mask::parse(mask.text(), definition.seq_len);
    REQUIRE(mask.text() == definition.text());
    REQUIRE(again.text() == mask.text());
    for (std::int64_t i = 0; i < definition.seq_len; ++i) REQUIRE(again.visible(i) == mask.visible(i));
  }
}

TEST_CASE("a side of a window that is -1 has no limit") {
  Random random(3);
  for (int round = 0; round < 500; ++round) {
    Definition definition = random.mask(random.at_most(30));
    if (!definition.left) continue;
    if (random.chance(70)) definition.left = -1;
    if (random.chance(70)) definition.right = random.chance(70) ? -1 : 0;
    const Mask mask = Mask::parse(definition.text(), definition.seq_len);
    REQUIRE(Mask::parse(mask.text(), definition.seq_len).text() == mask.text());
    for (std::int64_t i = 0; i < definition.seq_len; ++i) {
      for (std::int64_t j = 0; j < definition.seq_len; ++j) REQUIRE(mask.admits(i, j) == definition.admits(i, j));
    }
  }
}

TEST_CASE("a window that limits nothing is no window") {
  const auto canonical = [](const char* text) { return Mask::parse(text, 10).text(); };
  CHECK(canonical("window:-1,-1") == "full");
  CHECK(canonical("window:-1,-1+sinks:4+documents:3,7") == "documents:3,7");
  CHECK(canonical("window:-1") == "causal");
  CHECK(canonical("causal+window:-1,3+sinks:2") == "causal");
  CHECK(canonical("causal+prefix:4+window:-1,-1") == "causal+prefix:4");
  CHECK(canonical("causal+prefix:4+window:-1,0") == "causal+prefix:4+window:-1,0");
  CHECK(canonical("window:-1,0+sinks:4") == "window:-1,0+sinks:4");
  CHECK_FALSE(Mask::parse("window:-1,0", 10).has_window());
}

TEST_CASE("what a mask says of itself") {
  const Mask mask = Mask::parse("causal+window:2+documents:4,0,6", 10);
  CHECK(mask.seq_len() == 10);
  CHECK(mask.is_causal());
  CHECK(mask.has_window());
  const auto bounds = mask.document_bounds();
  CHECK(std::vector<std::int64_t>(bounds.begin(), bounds.end()) == std::vector<std::int64_t>{0, 4, 4, 10});
  CHECK_FALSE(Mask::full(10).is_causal());
  CHECK_FALSE(Mask::full(10).has_window());
  CHECK(Mask::full(0).document_bounds().size() == 2);
  CHECK(Mask::parse("causal+documents:0,0", 0).seq_len() == 0);
}

TEST_CASE("document lengths come from a file, separated by commas or white space") {
  for (const char* contents : {"3,0,7", "3 0 7", "3\n0\n7\n", "  3, 0 ,\t7\r\n"}) {
    const TemporaryFile file(contents);
    CHECK(Mask::parse("causal+documents:@" + file.path, 10).text() == "causal+documents:3,0,7");
  }
}

TEST_CASE("a file that holds no document lengths is refused") {
  CHECK_THAT(refusal("documents:@missing-file"),
             ContainsSubstring("\"documents:@missing-file\" cannot be read: No such file"));
  CHECK_THAT(refusal("documents:@"), ContainsSubstring("cannot be read"));
  CHECK_THAT(refusal("documents:@/"), ContainsSubstring("cannot be read"));
  for (const char* contents : {"", "\n", "3,,7", "3,7,", "three", "3;7", "-3,13",
                               "3\x01"
                               "7"}) {
    const TemporaryFile file(contents);
    CHECK_THAT(refusal("documents:@" + file.path), ContainsSubstring("is not a whole number of tokens"));
  }
}

TEST_CASE("a refusal of a file of documents says line, column and by how much") {
  const auto of_file = [](const std::string& contents, const std::string& value = "documents:@") {
    const TemporaryFile file(contents);
    return refusal(value + file.path);
  };
  CHECK_THAT(of_file("3\n 2, x,5\n"), ContainsSubstring("\"x\" in \"orrery-mask-") &&
                                          ContainsSubstring("line 2, column 5, is not a whole number of tokens"));
  CHECK_THAT(of_file("3\n\n-7"), ContainsSubstring("\"-7\"") && ContainsSubstring("line 3, column 1, is not a whole"));
  CHECK_THAT(of_file("1 99999999999999999999"), ContainsSubstring("line 1, column 3, is too large"));
  CHECK_THAT(of_file("9223372036854775807\n1"), ContainsSubstring("sum to more than 9223372036854775807"));
  CHECK_THAT(of_file("3\n8\n2\n"),
             ContainsSubstring("sum to 13, 3 more than the sequence, which has 10 tokens; the one in ") &&
                 ContainsSubstring("line 2, column 1, passes its end"));
  CHECK_THAT(of_file("3\n5\n"), ContainsSubstring("sum to 8, 2 less than the sequence, which has 10 tokens"));
  CHECK_THAT(of_file("0 4 10"), ContainsSubstring("offsets, as these seem to be, are read by documents:offsets@FILE"));
}

TEST_CASE("offsets of documents are taken when told so") {
  for (const char* contents : {"0,3,3,10", "0\n3\n3\n10\n"}) {
    const TemporaryFile file(contents);
    CHECK(Mask::parse("documents:offsets@" + file.path + "+causal", 10).text() == "causal+documents:3,0,7");
  }
  CHECK(Mask::parse("documents:offsets:0,4,10", 10).text() == "documents:4,6");
  CHECK(Mask::parse("documents:offsets:0,0", 0).text() == "documents:0");
  CHECK(Mask::parse("documents:offsets:0", 0).text() == "documents:0");
  const auto of_file = [](const std::string& contents) {
    const TemporaryFile file(contents);
    return refusal("documents:offsets@" + file.path);
  };
  CHECK_THAT(of_file("1\n10"), ContainsSubstring("line 1, column 1, is not 0, with which offsets begin"));
  CHECK_THAT(of_file("0\n7\n6\n10"),
             ContainsSubstring("\"6\" in") && ContainsSubstring("line 3, column 1, is below the offset before, 7"));
  CHECK_THAT(of_file("0 9"), ContainsSubstring("is 9, 1 less than the sequence, which has 10 tokens"));
  CHECK_THAT(of_file("0 11"), ContainsSubstring("is 11, 1 more than the sequence"));
  CHECK_THAT(of_file("0 -4 10"), ContainsSubstring("line 1, column 3, is not a whole number"));
  CHECK_THAT(of_file(""), ContainsSubstring("is not a whole number"));
  CHECK_THAT(refusal("documents:offsets:0,x"), ContainsSubstring("\"x\" in \"documents:offsets:0,x\""));
  CHECK_THAT(refusal("documents:offsets"), ContainsSubstring("is not a whole number"));
  CHECK_THAT(refusal("documents::10"), ContainsSubstring("\":10\" in"));
}

TEST_CASE("a file of documents may have any name: the longest that exists wins") {
  const TemporaryFile plain("4 6"), plus("10", ".txt+causal"), odd("3 7", " a,b:c+d+.txt");
  CHECK(Mask::parse("documents:@" + odd.path + "+causal", 10).text() == "causal+documents:3,7");
  CHECK(Mask::parse("causal+documents:@" + odd.path, 10).text() == "causal+documents:3,7");
  CHECK(Mask::parse("documents:@" + plain.path + "+causal", 10).text() == "documents:10");
  CHECK(Mask::parse("documents:@" + plain.path + "+window:2", 10).text() == "window:2,0+documents:4,6");
  CHECK(documents_file("causal+documents:offsets@" + odd.path + "+window:2") == odd.path);
  CHECK(documents_file("documents:@missing+causal") == "missing");
  CHECK(documents_file("documents:4,6+causal").empty());
}

TEST_CASE("text that is not a list of terms is refused") {
  for (const char* text : {"", "+", "causal+", "+causal", "causal++window:3"}) {
    CHECK_THAT(refusal(text), ContainsSubstring(std::string("\"") + text + "\" has an empty term: allowed are full"));
  }
  for (const char* text : {"casual", "Causal", " causal", "causal ", "window 3", ":", ":3", "documents", "sinks"}) {
    const std::string message = refusal(text);
    CHECK_THAT(message, ContainsSubstring(std::string("\"") + text + "\""));
    CHECK_THAT(message, ContainsSubstring("allowed"));
  }
  CHECK_THAT(refusal("dilated:3"), ContainsSubstring("\"dilated:3\" is not a term: allowed are full, causal"));
  CHECK_THAT(refusal("causal:1"), ContainsSubstring("\"causal\" takes none"));
  CHECK_THAT(refusal("full:"), ContainsSubstring("\"full\" takes none"));
  CHECK_THAT(refusal("causal+window:2+causal"), ContainsSubstring("\"causal\" twice"));
  CHECK_THAT(refusal("window:2+window:2"), ContainsSubstring("\"window\" twice"));
  CHECK_THAT(refusal("documents:10+documents:10"), ContainsSubstring("\"documents\" twice"));
}

TEST_CASE("numbers that are not numbers of tokens are refused") {
  for (const char* term : {"window:", "sinks:", "prefix:", "documents:"}) {
    CHECK_THAT(refusal(term), ContainsSubstring(std::string("\"") + term + "\" has no value"));
  }
  for (const char* value : {"-2", "-01", "1.5", "0x10", "1e3", " 3", "3 ", "abc", "+3", "-99999999999999999999"}) {
    const std::string message = refusal(std::string("window:") + value);
    CHECK_THAT(message, ContainsSubstring(value[0] == '+' ? "has no value" : "is not a whole number of tokens"));
  }
  CHECK_THAT(refusal("window:2,"), ContainsSubstring("\"\" in \"window:2,\" is not a whole number"));
  CHECK_THAT(refusal("window:,2"), ContainsSubstring("\"\" in \"window:,2\" is not a whole number"));
  CHECK_THAT(refusal("window:1,2,3"), ContainsSubstring("\"window:1,2,3\" has more than two numbers"));
  CHECK_THAT(refusal("window:1+sinks:99999999999999999999"), ContainsSubstring("\"99999999999999999999\""));
  CHECK_THAT(refusal("window:1+sinks:99999999999999999999"), ContainsSubstring("too large"));
}

TEST_CASE("document lengths that do not make up the sequence are refused") {
  CHECK_THAT(refusal("documents:1,,9"), ContainsSubstring("\"\" in \"documents:1,,9\" is not a whole number"));
  CHECK_THAT(refusal("documents:1,9,"), ContainsSubstring("is not a whole number"));
  CHECK_THAT(refusal("documents:1, 9"), ContainsSubstring("\" 9\" in"));
  CHECK_THAT(refusal("documents:4,5"), ContainsSubstring("sum to 9, 1 less than the sequence, which has 10 tokens"));
  CHECK_THAT(refusal("documents:4,7"), ContainsSubstring("sum to 11, 1 more than the sequence, which has 10 tokens"));
  CHECK_THAT(refusal("documents:5,9223372036854775807"), ContainsSubstring("sum to more"));
}

TEST_CASE("terms that mean nothing together are refused") {
  for (const char* text : {"full+causal", "window:3+full", "full+window:3+sinks:1", "full+prefix:3"}) {
    CHECK_THAT(refusal(text), ContainsSubstring("beside full only documents is allowed"));
  }
  CHECK_THAT(refusal("causal+sinks:4"), ContainsSubstring("sinks widens a window"));
  CHECK_THAT(refusal("prefix:4"), ContainsSubstring("prefix widens causal"));
}

TEST_CASE("hostile bytes and endless text stay on one short line") {
  CHECK_THAT(refusal("cau\nsal\x1b[31m\xff"), ContainsSubstring("\"cau?sal?[31m?\""));
  CHECK_THAT(refusal(std::string(100000, 'x')), ContainsSubstring("xxx...\""));
  CHECK_THAT(refusal(std::string(100000, '+')), ContainsSubstring("has an empty term"));
  CHECK_THAT(refusal("window:" + std::string(100000, '9')), ContainsSubstring("too large"));
}

TEST_CASE("sequence lengths that no mask covers are refused") {
  CHECK_THAT(refusal("full", -1), ContainsSubstring("-1 tokens: 0 to 1099511627776 are allowed"));
  CHECK_THAT(refusal("full", (std::int64_t{1} << 40) + 1), ContainsSubstring("1099511627777 tokens"));
  CHECK(refusal("full", std::int64_t{1} << 40) == "accepted");
}

}  // namespace orrery::test
