#include "link/nccl/check.hpp"

namespace orrery::nccl {
namespace {

ErrorCode code_of(ncclResult_t result) {
  switch (result) {
    case ncclRemoteError:
      return ErrorCode::peer;
    case ncclUnhandledCudaError:
    case ncclSystemError:
      return ErrorCode::resource;
    default:
      return ErrorCode::bug;
  }
}

}  // namespace

std::string explain(ncclResult_t result) {
  const char* noted = ncclGetLastError(nullptr);
  std::string text = ncclGetErrorString(result);
  if (noted != nullptr && *noted != '\0') text += concat(" (", noted, ")");
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

void throw_nccl_error(ncclResult_t result, const char* call) {
  fail(code_of(result), "NCCL: ", explain(result), ", from ", call);
}

}  // namespace orrery::nccl
