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
  for (Dtype dtype : {Dtype::fp32, Dtype::bf16, Dtype::fp16}) {
    if (text == to_string(dtype)) return dtype;
  }
  refuse("dtype must be fp32, bf16 or fp16, not \"", text, "\"");
}

}  // namespace orrery
