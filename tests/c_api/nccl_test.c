/* liborrery.so over a caller's NCCL communicator. MPI only starts the processes and hands the id of the communicator
 * around; the world itself is NCCL's. Ranks share devices where there are fewer of them, which NCCL allows to ranks
 * that seem to be on different hosts. */
#define _POSIX_C_SOURCE 200112L /* setenv */
#include <cuda_runtime_api.h>
#include <mpi.h>
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

static int rank, ranks, device;

static ncclComm_t communicator(void) {
  ncclUniqueId id;
  ncclComm_t comm = NULL;
  if (rank == 0) CHECK(ncclGetUniqueId(&id) == ncclSuccess);
  MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
  CHECK(cudaSetDevice(device) == cudaSuccess);
  CHECK(ncclCommInitRank(&comm, ranks, id, rank) == ncclSuccess);
  return comm;
}

static orrery_context* open_over(ncclComm_t comm, double timeout_seconds) {
  orrery_context_options options = ORRERY_CONTEXT_OPTIONS_INIT;
  options.timeout_seconds = timeout_seconds;
  orrery_context* context = NULL;
  char message[300] = "";
  CHECK_MADE(orrery_context_from_nccl(comm, device, &options, &context, message, sizeof message));
  CHECK(orrery_context_rank(context) == rank && orrery_context_world_size(context) == ranks);
  CHECK(orrery_context_node(context, ranks - 1) == 0);
  return context;
}

/* Smaller than a message of NCCL, as large, larger, and much larger. */
static void records(orrery_context* context) {
  const size_t sizes[] = {0, 1, 503, 504, 505, 16384, 16888, 16889, 100000};
  for (int i = 0; i < 9; ++i) {
    const size_t bytes = sizes[i];
    unsigned char* mine = malloc(bytes + 1);
    unsigned char* all = malloc(bytes * (size_t)ranks + 1);
    CHECK(mine != NULL && all != NULL);
    for (size_t at = 0; at < bytes; ++at) mine[at] = (unsigned char)(at * 7 + (size_t)rank * 31);
    CHECK_OK(context, orrery_context_all_gather(context, mine, bytes, all));
    for (size_t at = 0; at < bytes * (size_t)ranks; ++at) {
      CHECK(all[at] == (unsigned char)(at % bytes * 7 + at / bytes * 31));
    }
    free(mine);
    free(all);
  }
  CHECK_FAILS(context, orrery_context_agree(context, rank == 1 ? ORRERY_RESOURCE : ORRERY_OK, "out of luck"),
              ORRERY_RESOURCE, "rank 1: out of luck");
}

static void host_memory_is_refused(orrery_context* context) {
  const orrery_problem problem = small_problem();
  const orrery_device cpu = {ORRERY_CPU, 0};
  orrery_plan* plan = NULL;
  orrery_attention* attention = NULL;
  shard s;
  CHECK_OK(context, orrery_plan_create(context, &problem, NULL, &plan));
  shard_make(&s, context, plan, &problem, cpu);
  CHECK_OK(context, orrery_attention_create(context, plan, NULL, &attention));
  const size_t bytes = orrery_attention_workspace_bytes(attention);
  CHECK_FAILS(context, orrery_attention_bind(attention, &s.tensors, shard_room(&s, cpu, bytes), bytes), ORRERY_INVALID,
              "must lie on the device");
  orrery_attention_destroy(attention);
  orrery_plan_destroy(plan);
  shard_free(&s);
}

/* The last rank stays away from a world that waits for two seconds. */
static void a_missing_rank(ncclComm_t comm) {
  orrery_context* context = open_over(comm, 30);
  CHECK_OK(context, orrery_context_barrier(context));
  orrery_context_destroy(context);
  context = open_over(comm, 2);
  if (rank != ranks - 1) {
    CHECK_FAILS(context, orrery_context_barrier(context), ORRERY_PEER,
                "not every rank came to all_gather within 2.0 s");
    CHECK_FAILS(context, orrery_context_barrier(context), ORRERY_PEER, "not every rank came");
  }
  MPI_Barrier(MPI_COMM_WORLD);
  orrery_context_destroy(context);
}

int main(void) {
  const int devices = orrery_cuda_device_count();
  if (devices == 0) {
    puts("skipped: no CUDA device");
    return SKIPPED;
  }
  MPI_Init(NULL, NULL);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  device = rank % devices;
  if (devices < ranks) {
    char host[32];
    snprintf(host, sizeof host, "orrery-test-%d", rank);
    setenv("NCCL_HOSTID", host, 1);
    setenv("NCCL_SOCKET_IFNAME", "lo", 1);
    setenv("NCCL_IB_DISABLE", "1", 1);
  }
  ncclComm_t comm = communicator();
  orrery_context* context = NULL;
  char message[300] = "";
  CHECK_REFUSED(orrery_context_from_nccl(comm, device + 1, NULL, &context, message, sizeof message), ORRERY_INVALID,
                "is of CUDA device");

  context = open_over(comm, 60);
  records(context);
  host_memory_is_refused(context);
  const orrery_device here = {ORRERY_CUDA, device};
  orrery_problem problem = small_problem();
  run_attention(context, &problem, here);
  problem.dtype = ORRERY_BF16;
  problem.head_dim = 64;
  problem.mask = "causal";
  run_attention(context, &problem, here);
  orrery_context_destroy(context);

  a_missing_rank(comm);
  CHECK(ncclCommDestroy(comm) == ncclSuccess); /* ours all the time */
  MPI_Finalize();
  return 0;
}
