#include <cstring>
#include <span>
#include <vector>

#include "c_api/opening.hpp"

using namespace orrery;
using namespace orrery::c_api;

orrery_status orrery_local_create(int world_size, const orrery_context_options* options, orrery_local** local,
                                  char* message, size_t message_size) {
  return guarded(ToBuffer{message, message_size}, [&] {
    require(local, "local");
    *local = nullptr;
    *local = new orrery_local{LocalWorlds(world_size, options_of(options))};
  });
}

void orrery_local_destroy(orrery_local* local) {
  delete local;
}

orrery_status orrery_local_context(orrery_local* local, int rank, orrery_context** context, char* message,
                                   size_t message_size) {
  return open_context(context, {message, message_size}, [&] {
    require(local, "local");
    return local->worlds.open(rank);
  });
}

orrery_status orrery_context_from_mpi(const void* mpi_comm, const orrery_context_options* options,
                                      orrery_context** context, char* message, size_t message_size) {
  return open_context(context, {message, message_size}, [&] { return open_mpi_world(mpi_comm, options_of(options)); });
}

orrery_status orrery_context_from_nccl(void* nccl_comm, int device, const orrery_context_options* options,
                                       orrery_context** context, char* message, size_t message_size) {
  return open_context(context, {message, message_size}, [&] {
    return open_nccl_world(nccl_comm, device_of({ORRERY_CUDA, device}), options_of(options));
  });
}

void orrery_context_destroy(orrery_context* context) {
  delete context;
}

const char* orrery_last_error(const orrery_context* context) {
  return context == nullptr ? "the context is NULL" : context->rank->error.get();
}

int orrery_context_rank(const orrery_context* context) {
  return context == nullptr ? -1 : context->rank->world->rank();
}

int orrery_context_world_size(const orrery_context* context) {
  return context == nullptr ? 0 : context->rank->world->world_size();
}

int orrery_context_node(const orrery_context* context, int rank) {
  if (rank < 0 || rank >= orrery_context_world_size(context)) return -1;
  return context->rank->world->topology().node_of_rank[static_cast<std::size_t>(rank)];
}

orrery_status orrery_context_all_gather(orrery_context* context, const void* mine, size_t bytes, void* all) {
  if (context == nullptr) return ORRERY_INVALID;
  return guarded(ToRank{*context->rank}, [&] {
    if (bytes > 0) {
      require(mine, "mine");
      require(all, "all");
    }
    const auto records = context->rank->world->all_gather({static_cast<const std::byte*>(mine), bytes});
    for (std::size_t rank = 0; rank < records.size(); ++rank) {
      if (records[rank].size() != bytes) {
        refuse("rank ", rank, " gives ", records[rank].size(), " bytes where this one gives ", bytes);
      }
    }
    auto* into = static_cast<std::byte*>(all);
    for (const std::vector<std::byte>& record : records) into = std::copy(record.begin(), record.end(), into);
  });
}

orrery_status orrery_context_barrier(orrery_context* context) {
  if (context == nullptr) return ORRERY_INVALID;
  return guarded(ToRank{*context->rank}, [&] { context->rank->world->barrier(); });
}

orrery_status orrery_context_use_device(orrery_context* context, orrery_device device) {
  if (context == nullptr) return ORRERY_INVALID;
  return guarded(ToRank{*context->rank}, [&] {
    Rank& rank = *context->rank;
    const Device known = device_of(device);
    const Costs costs = default_costs(known.kind);
    rank.topology = device_topology(*rank.world, known, costs);
    rank.costs = costs;
  });
}

orrery_status orrery_context_agree(orrery_context* context, orrery_status mine, const char* message) {
  if (context == nullptr) return ORRERY_INVALID;
  return guarded(ToRank{*context->rank}, [&] {
    const Error error(code_of(mine), text_or(message, "no message"));
    agree_no_error(*context->rank->world, mine == ORRERY_OK ? nullptr : &error);
  });
}

void orrery_context_abort(orrery_context* context, orrery_status status, const char* message) {
  if (context == nullptr) return;
  context->rank->world->abort(code_of(status), text_or(message, "no message"));
}
