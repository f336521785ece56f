/* liborrery.so on ranks that are processes, over a communicator of the caller's: the job is split in two groups, and
 * each is a world of its own. With the argument "world", over all processes, and Orrery initialises and finalises MPI.
 */
#include <mpi.h>
#include <string.h>

#include "support.h"

static const orrery_device kCpu = {ORRERY_CPU, 0};

static orrery_context* open_over(const void* communicator) {
  orrery_context_options options = ORRERY_CONTEXT_OPTIONS_INIT;
  options.timeout_seconds = 60;
  orrery_context* context = NULL;
  char message[300] = "";
  CHECK_MADE(orrery_context_from_mpi(communicator, &options, &context, message, sizeof message));
  return context;
}

static void whole_world(void) {
  orrery_context* context = open_over(NULL);
  const orrery_problem problem = small_problem();
  run_attention(context, &problem, kCpu);
  orrery_context_destroy(context);
  int finalised = 0;
  MPI_Finalized(&finalised);
  CHECK(finalised);
}

static void group_of_two_and_the_rest(void) {
  int level = 0, rank = 0, size = 0;
  MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level);
  CHECK(level >= MPI_THREAD_SERIALIZED);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const int group = rank < 2 ? 0 : 1;
  MPI_Comm mine = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, group, -rank, &mine); /* ranks in reverse */
  orrery_context* context = open_over(&mine);
  MPI_Comm_free(&mine); /* it was duplicated */
  const int members = group == 0 ? 2 : size - 2;
  CHECK(orrery_context_world_size(context) == members);
  CHECK(orrery_context_rank(context) == (group == 0 ? 1 - rank : size - 1 - rank));
  orrery_problem problem = small_problem();
  run_attention(context, &problem, kCpu);
  if (group == 0) problem.dtype = ORRERY_FP16; /* the groups know nothing of each other */
  run_attention(context, &problem, kCpu);
  orrery_context_destroy(context);

  MPI_Comm none = MPI_COMM_NULL;
  char message[300] = "";
  CHECK_REFUSED(orrery_context_from_mpi(&none, NULL, &context, message, sizeof message), ORRERY_INVALID,
                "MPI_COMM_NULL");
  MPI_Barrier(MPI_COMM_WORLD);
  MPI_Finalize();
  CHECK_REFUSED(orrery_context_from_mpi(NULL, NULL, &context, message, sizeof message), ORRERY_INVALID, "finalised");
}

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "world") == 0) {
    whole_world();
  } else {
    group_of_two_and_the_rest();
  }
  return 0;
}
