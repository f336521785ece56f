#include "orrery/error.hpp"
#include "orrery/tensor.hpp"

namespace orrery {

std::string_view to_string(Dtype dtype) {
  switch (dtype) {
    case Dtype::fp32:
      return "fp32";
    case Dtype::bf16:
      return "bf16";
    case Dtype::fp16:
      return "fp16";
  }
  fail(ErrorCode::bug, "no dtype has the number ", static_cast<int>(dtype));
}

Dtype parse_dtype(std::string_view text) {
  if (text == "fp32" || text == "float32" || text == "float") return Dtype::fp32;
  if (text == "bf16" || text == "bfloat16") return Dtype::bf16;
  if (text == "fp16" || text == "float16" || text == "half") return Dtype::fp16;
  refuse("dtype must be fp32 (float32, float), bf16 (bfloat16) or fp16 (float16, half), not \"", text, "\"");
}

}  // namespace orrery
