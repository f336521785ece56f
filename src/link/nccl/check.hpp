// NCCL's return codes as errors, with what NCCL itself has to say about them.
#pragma once

#include <nccl.h>

#include <string>

#include "orrery/error.hpp"

namespace orrery::nccl {

static_assert(NCCL_VERSION_CODE >= NCCL_VERSION(2, 19, 0),
              "Orrery needs ncclCommSplit as NCCL 2.19 and later have it.");

// "remote process exited or there was a network error", and the last thing that NCCL noted.
std::string explain(ncclResult_t result);

// What befell a peer or the network is ErrorCode::peer, what the system refused ErrorCode::resource, the rest a bug.
[[noreturn]] void throw_nccl_error(ncclResult_t result, const char* call);

inline void check(ncclResult_t result, const char* call) {
  if (result != ncclSuccess) throw_nccl_error(result, call);
}

}  // namespace orrery::nccl

#define ORRERY_NCCL_CHECK(call) ::orrery::nccl::check((call), #call)
