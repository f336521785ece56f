#include "orrery/problem.hpp"

#include <cmath>
#include <functional>
#include <limits>

#include "orrery/error.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

AttentionProblem example() {
  AttentionProblem problem;
  problem.batch = 2;
  problem.seq_len = 100;
  problem.heads = 6;
  problem.kv_heads = 2;
  problem.head_dim = 64;
  problem.dtype = Dtype::bf16;
  problem.mask = Mask::causal(100);
  return problem;
}

std::string refusal(const std::function<void(AttentionProblem&)>& spoil) {
  AttentionProblem problem = example();
  spoil(problem);
  try {
    problem.validate();
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::invalid);
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("a problem that can be computed is accepted") {
  CHECK_NOTHROW(example().validate());
  AttentionProblem empty;
  CHECK_NOTHROW(empty.validate());
  CHECK(empty.forward_flops() == 0);
  CHECK(example().group() == 3);
}

TEST_CASE("a problem that cannot is refused with its values") {
  using P = AttentionProblem;
  CHECK_THAT(refusal([](P& p) { p.batch = 0; }), ContainsSubstring("batch is 0"));
  CHECK_THAT(refusal([](P& p) { p.heads = -6; }), ContainsSubstring("heads is -6"));
  CHECK_THAT(refusal([](P& p) { p.kv_heads = 0; }), ContainsSubstring("kv_heads is 0"));
  CHECK_THAT(refusal([](P& p) { p.head_dim = 0; }), ContainsSubstring("head_dim is 0"));
  CHECK_THAT(refusal([](P& p) { p.head_dim = 257; }), ContainsSubstring("head_dim is 257: at most 256"));
  CHECK_THAT(refusal([](P& p) { p.kv_heads = 4; }), ContainsSubstring("kv_heads 4 does not divide heads 6"));
  CHECK_THAT(refusal([](P& p) { p.kv_heads = 12; }), ContainsSubstring("kv_heads 12 does not divide heads 6"));
  CHECK_THAT(refusal([](P& p) { p.seq_len = -1; }), ContainsSubstring("seq_len is -1"));
  CHECK_THAT(refusal([](P& p) { p.seq_len = std::int64_t{1} << 31; }), ContainsSubstring("seq_len is 2147483648"));
  CHECK_THAT(refusal([](P& p) { p.seq_len = 99; }), ContainsSubstring("made for 100 tokens, but seq_len is 99"));
  CHECK_THAT(refusal([](P& p) { p.scale = std::numeric_limits<double>::infinity(); }), ContainsSubstring("inf"));
  CHECK_THAT(refusal([](P& p) { p.scale = std::nan(""); }), ContainsSubstring("nan"));
  for (const double scale : {1e39, -1e39, 1e-39, -1e-45, 1e-300, std::ldexp(1.5, 126)}) {
    CHECK_THAT(refusal([&](P& p) { p.scale = scale; }), ContainsSubstring("2^-126"));
  }
  for (const double scale : {std::ldexp(1.0, 126), std::ldexp(-1.0, -126), -0.2, 0.0}) {
    CHECK(refusal([&](P& p) { p.scale = scale; }) == "accepted");
  }
  CHECK_THAT(refusal([](P& p) { p.batch = std::numeric_limits<std::int64_t>::max(); }),
             ContainsSubstring("batch 9223372036854775807 x seq_len 100 x heads 6 x head_dim 64"));
  CHECK(refusal([](P& p) {
          p.seq_len = (std::int64_t{1} << 31) - 1;
          p.mask = Mask::causal(p.seq_len);
        }) == "accepted");
}

TEST_CASE("scale is one over the root of head_dim unless it is given") {
  AttentionProblem problem = example();
  CHECK(problem.effective_scale() == 0.125);
  problem.scale = -2;
  CHECK(problem.effective_scale() == -2);
}

TEST_CASE("the work is four operations a pair and head dimension, backward 2.5 times that") {
  AttentionProblem problem = example();
  CHECK(problem.forward_flops() == 4.0 * 5050 * 64 * 6 * 2);
  CHECK(problem.backward_flops() == 2.5 * problem.forward_flops());
  problem.mask = Mask::parse("full", 100);
  CHECK(problem.forward_flops() == 4.0 * 10000 * 64 * 6 * 2);
}

TEST_CASE("the text names every field, so that ranks can compare it") {
  AttentionProblem problem = example();
  CHECK(problem.text() == "seq_len=100 batch=2 heads=6 kv_heads=2 head_dim=64 dtype=bf16 scale=0.125 mask=causal");
  problem.scale = 0.1;
  CHECK_THAT(problem.text(), ContainsSubstring("scale=0.1 "));
  problem.scale = std::nextafter(0.1, 1);
  CHECK_THAT(problem.text(), !ContainsSubstring("scale=0.1 "));
}

}  // namespace orrery::test
