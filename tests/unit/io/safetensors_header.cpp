// A header is hostile input: each fault below is refused in one line that names the file and the fault.
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "orrery/error.hpp"
#include "orrery/io.hpp"
#include "support/catch.hpp"
#include "unit/io/files.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

// The refusal that opening a file of these bytes meets.
std::string opening(const TemporaryFolder& folder, std::string_view bytes) {
  const std::string path = folder / "input.safetensors";
  write_text(path, bytes);
  const auto error = refusal([&] { SafetensorsFile file(path); });
  REQUIRE(error);
  CHECK(error->code == ErrorCode::invalid);
  CHECK(error->message.find(path) != std::string::npos);
  CHECK(error->message.find('\n') == std::string::npos);
  CHECK(error->message.size() < 600);
  return error->message;
}

std::string tensor(const std::string& fields) {
  return "{\"q\":{" + fields + "}}";
}

}  // namespace

TEST_CASE("a sound header is read: every dtype, empty tensors, scalars, metadata, padding") {
  const TemporaryFolder folder;
  const std::string path = folder / "good.safetensors";
  const std::string header = R"({"__metadata__":{"made":"by hand","":"{}"},)"
                             R"("q":{"dtype":"BF16","shape":[2,1,3],"data_offsets":[8,20]},)"
                             R"("big":{"dtype":"F64","shape":[],"data_offsets":[0,8]},)"
                             R"("none":{"dtype":"F32","shape":[0,4],"data_offsets":[20,20]},)"
                             R"("sub\u0062yte":{"dtype":"F4","shape":[4],"data_offsets":[20,22]},)"
                             R"("lse":{"data_offsets":[22,26],"shape":[1],"dtype":"F32"}}      )";
  write_text(path, safetensors(header, std::string(26, 'x')));
  SafetensorsFile opened(path);
  SafetensorsFile file = std::move(opened);
  CHECK(file.path() == path);
  CHECK(file.names() == std::vector<std::string>{"big", "q", "none", "subbyte", "lse"});
  const TensorInfo& q = file.info("q");
  CHECK(q.dtype == Dtype::bf16);
  CHECK(q.shape == std::vector<std::int64_t>{2, 1, 3});
  CHECK(q.bytes == 12);
  CHECK(q.file_offset == 8 + static_cast<std::int64_t>(header.size()) + 8);
  CHECK(file.info("none").bytes == 0);
  CHECK(file.info("lse").dtype == Dtype::fp32);
}

TEST_CASE("a tensor that is missing or of an unreadable dtype is refused only when asked for") {
  const TemporaryFolder folder;
  const std::string path = folder / "good.safetensors";
  write_text(path, safetensors(R"({"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", "12345678"));
  const SafetensorsFile file(path);
  CHECK_THROWS_WITH(file.info("ids"), ContainsSubstring("I64") && ContainsSubstring(path));
  CHECK_THROWS_WITH(file.info("q"), ContainsSubstring("no tensor \"q\"; it has \"ids\""));
}

TEST_CASE("a file without tensors is sound") {
  const TemporaryFolder folder;
  const std::string path = folder / "empty.safetensors";
  write_text(path, safetensors("{}", ""));
  CHECK(SafetensorsFile(path).names().empty());
}

TEST_CASE("lengths that cannot be are refused") {
  const TemporaryFolder folder;
  CHECK_THAT(opening(folder, ""), ContainsSubstring("too short"));
  CHECK_THAT(opening(folder, "1234567"), ContainsSubstring("too short"));
  CHECK_THAT(opening(folder, std::string(8, '\0')), ContainsSubstring("does not begin"));
  CHECK_THAT(opening(folder, safetensors("{}", "").substr(0, 9)), ContainsSubstring("but the file has 9"));
  CHECK_THAT(opening(folder, std::string(8, '\xff')), ContainsSubstring("the limit is 100000000"));
  CHECK_THAT(opening(folder, std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10)), ContainsSubstring("100000001"));
}

TEST_CASE("what is not such a JSON object is refused") {
  const TemporaryFolder folder;
  const auto header = [&](std::string_view text) { return opening(folder, safetensors(text, "")); };
  for (const char* text : {"[]", "1", "\"q\"", "null", " {}", "\xef\xbb\xbf{}", "PK\x03\x04"}) {
    CHECK_THAT(header(text), ContainsSubstring("does not begin with"));
  }
  for (const char* text : {"{", "{}}", "{} x", "{\"q\"}", "{\"q\":}", "{'q':1}", "{\"q\xff\":{}}", "{\"\xc0\x80\":{}}",
                           "{\"q\n\":{}}", "{\"\\ud800\":{}}", "{/**/}", "{\"__metadata__\":{},}"}) {
    CHECK_THAT(header(text), ContainsSubstring("not valid JSON"));
  }
  CHECK_THAT(header(std::string_view("{}\0{", 4)), ContainsSubstring("zero byte"));
  CHECK_THAT(header("{\"q\":[]}"), ContainsSubstring("is an array instead of an object"));
  CHECK_THAT(header("{\"q\":3}"), ContainsSubstring("is a number instead of an object"));
  CHECK_THAT(header("{\"__metadata__\":\"x\"}"),
             ContainsSubstring("\"__metadata__\" is a string instead of an object"));
  CHECK_THAT(header("{\"__metadata__\":{\"a\":1}}"), ContainsSubstring("is a number instead of a string"));
  CHECK_THAT(header("{\"__metadata__\":{\"a\":{}}}"), ContainsSubstring("is an object instead of a string"));
  CHECK_THAT(header("{\"__metadata__\":null,\"__metadata__\":{}}"), ContainsSubstring("two entries"));
  CHECK_THAT(header("{\"q\":null}"), ContainsSubstring("is null instead of an object"));
}

TEST_CASE("JSON nested ever deeper is refused at once") {
  const TemporaryFolder folder;
  std::string deep = "{\"q\":";
  for (int i = 0; i < 1'000'000; ++i) deep += "[";
  CHECK_THAT(opening(folder, safetensors(deep, "")), ContainsSubstring("is an array"));
  CHECK_THAT(opening(folder, safetensors(tensor(R"("shape":[[[)"), "")), ContainsSubstring("shape holds an array"));
  CHECK_THAT(opening(folder, safetensors(tensor(R"("shape":{"a":)"), "")), ContainsSubstring("shape is an object"));
  const std::string field = R"("note":)" + std::string(1'000'000, '[');
  CHECK_THAT(opening(folder, safetensors("{\"q\":{" + field, "")), ContainsSubstring("deeper than 128"));
}

TEST_CASE("what the reference reader passes over is passed over: null metadata and further fields") {
  const TemporaryFolder folder;
  const std::string path = folder / "good.safetensors";
  for (const char* value : {"1", "-1", "0.5", "\"text\"", "true", "null", "[]", "{}", R"([1,{"shape":[2,"x"]},null])",
                            R"({"dtype":{"dtype":[]},"data_offsets":[]})"}) {
    const std::string further = concat(R"("note":)", value);
    for (const char* order : {"first", "last"}) {
      const std::string known = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])";
      const std::string fields = order == std::string("first") ? further + "," + known : known + "," + further;
      write_text(path, safetensors(R"({"__metadata__":null,"q":{)" + fields + "}}", "1234"));
      CHECK(SafetensorsFile(path).info("q").shape == std::vector<std::int64_t>{1});
    }
  }
}

TEST_CASE("fields that are missing, repeated or of the wrong type are refused") {
  const TemporaryFolder folder;
  const auto fields = [&](const std::string& text) { return opening(folder, safetensors(tensor(text), "1234")); };
  CHECK_THAT(fields(R"("shape":[1],"data_offsets":[0,4])"), ContainsSubstring("has no dtype"));
  CHECK_THAT(fields(R"("dtype":"F32","data_offsets":[0,4])"), ContainsSubstring("has no shape"));
  CHECK_THAT(fields(R"("dtype":"F32","shape":[1])"), ContainsSubstring("has no data_offsets"));
  CHECK_THAT(fields(R"("dtype":"F32","dtype":"F32")"), ContainsSubstring("two fields \"dtype\""));
  CHECK_THAT(fields(R"("shape":[],"shape":[])"), ContainsSubstring("two fields \"shape\""));
  CHECK_THAT(fields(R"("dtype":7)"), ContainsSubstring("dtype is a number"));
  CHECK_THAT(fields(R"("dtype":["F32"])"), ContainsSubstring("dtype is an array"));
  CHECK_THAT(fields(R"("shape":4)"), ContainsSubstring("shape is a number"));
  CHECK_THAT(fields(R"("shape":null)"), ContainsSubstring("shape is null"));
  CHECK_THAT(fields(R"("shape":["1"])"), ContainsSubstring("shape holds a string"));
  CHECK_THAT(fields(R"("shape":[true])"), ContainsSubstring("shape holds a boolean"));
  CHECK_THAT(fields(R"("shape":[1.0])"), ContainsSubstring("not a 64-bit integer"));
  CHECK_THAT(fields(R"("shape":[1e2])"), ContainsSubstring("not a 64-bit integer"));
  CHECK_THAT(fields(R"("shape":[-1])"), ContainsSubstring("negative number -1"));
  CHECK_THAT(fields(R"("shape":[18446744073709551616])"), ContainsSubstring("not a 64-bit integer"));
  CHECK_THAT(fields(R"("shape":[9223372036854775808])"), ContainsSubstring("too large"));
  CHECK_THAT(fields(R"("data_offsets":[0])"), ContainsSubstring("1 numbers instead of 2"));
  CHECK_THAT(fields(R"("data_offsets":[0,2,4])"), ContainsSubstring("3 numbers instead of 2"));
  CHECK_THAT(fields(R"("data_offsets":[-4,0])"), ContainsSubstring("negative number -4"));
  CHECK_THAT(fields(R"("dtype":"F31","shape":[1],"data_offsets":[0,4])"), ContainsSubstring("unknown dtype \"F31\""));
  CHECK_THAT(fields(R"("dtype":"f32","shape":[1],"data_offsets":[0,4])"), ContainsSubstring("unknown dtype \"f32\""));
}

TEST_CASE("a byte range must be that of its shape, inside the file") {
  const TemporaryFolder folder;
  const auto range = [&](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    const std::string fields = "\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets;
    return opening(folder, safetensors(tensor(fields), "12345678"));
  };
  CHECK_THAT(range("F32", "[2]", "[8,0]"), ContainsSubstring("reversed"));
  CHECK_THAT(range("F32", "[4]", "[0,16]"), ContainsSubstring("ends at data byte 16 but the file has 8"));
  CHECK_THAT(range("F32", "[2]", "[9223372036854775799,9223372036854775807]"), ContainsSubstring("but the file has 8"));
  CHECK_THAT(range("F32", "[3]", "[0,8]"), ContainsSubstring("shape [3] and dtype F32 needs 12 bytes"));
  CHECK_THAT(range("F4", "[3]", "[0,8]"), ContainsSubstring("no size in bytes"));
  CHECK_THAT(range("F32", "[4294967296,4294967296]", "[0,8]"), ContainsSubstring("no size in bytes"));
  CHECK_THAT(range("F32", "[2305843009213693952,2]", "[0,8]"), ContainsSubstring("no size in bytes"));
}

TEST_CASE("every data byte belongs to exactly one tensor") {
  const TemporaryFolder folder;
  const auto two = [&](const std::string& first, const std::string& second) {
    const std::string fields = R"("dtype":"U8","shape":[4],"data_offsets":)";
    return opening(folder,
                   safetensors("{\"a\":{" + fields + first + "},\"b\":{" + fields + second + "}}", "123456789"));
  };
  CHECK_THAT(two("[0,4]", "[4,8]"), ContainsSubstring("1 bytes after the last tensor"));
  CHECK_THAT(two("[0,4]", "[5,9]"), ContainsSubstring("data bytes 4 to 5 belong to no tensor"));
  CHECK_THAT(two("[1,5]", "[5,9]"), ContainsSubstring("data bytes 0 to 1 belong to no tensor"));
  CHECK_THAT(two("[0,4]", "[3,7]"), ContainsSubstring("tensor \"b\" begins at data byte 3, inside another one"));
  CHECK_THAT(two("[0,4]", "[0,4]"), ContainsSubstring("inside another one"));
  CHECK_THAT(opening(folder, safetensors("{}", "x")), ContainsSubstring("1 bytes after"));
  const std::string entry = R"({"dtype":"U8","shape":[4],"data_offsets":[0,4]})";
  CHECK_THAT(opening(folder, safetensors("{\"a\":" + entry + ",\"a\":" + entry + "}", "1234")),
             ContainsSubstring("two entries \"a\""));
}

TEST_CASE("names from the file cannot break the message into lines or flood it") {
  const TemporaryFolder folder;
  CHECK_THAT(opening(folder, safetensors(R"({"a\nb\u001b[2J":{}})", "")), ContainsSubstring(R"(a\x0ab\x1b[2J)"));
  opening(folder, safetensors("{\"" + std::string(100'000, 'n') + "\":{}}", ""));
}

TEST_CASE("only regular files are opened, and a FIFO does not hang") {
  const TemporaryFolder folder;
  const auto open_fails = [](const std::string& path) {
    const auto error = refusal([&] { SafetensorsFile file(path); });
    REQUIRE(error);
    CHECK(error->code == ErrorCode::invalid);
    return error->message;
  };
  REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);
  CHECK_THAT(open_fails(folder / "fifo"), ContainsSubstring("not a regular file"));
  CHECK_THAT(open_fails(folder / ""), ContainsSubstring("is a directory"));
  CHECK_THAT(open_fails("/dev/zero"), ContainsSubstring("not a regular file"));
  CHECK_THAT(open_fails(folder / "absent"), ContainsSubstring("absent\": cannot open"));
  CHECK_THAT(open_fails(folder / "fifo/below"), ContainsSubstring("cannot open"));
  CHECK_THAT(open_fails(""), ContainsSubstring("cannot open"));
  if (::geteuid() != 0) {  // nothing is unreadable to root
    write_text(folder / "secret", "x");
    REQUIRE(::chmod((folder / "secret").c_str(), 0) == 0);
    CHECK_THAT(open_fails(folder / "secret"), ContainsSubstring("cannot open"));
  }
}
