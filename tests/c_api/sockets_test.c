/* A third party's transport carries worlds of processes: it conforms, it runs every strategy that Orrery has, and the
 * other ranks find out when one goes wrong. `sockets_test RANKS` does the former, `sockets_test fails` the latter. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sockets.h"
#include "support.h"

enum { MOST_RANKS = 8, TEXT = 16384 };
static const orrery_device kCpu = {ORRERY_CPU, 0};

typedef void (*rank_work)(orrery_context* context, const char* name);

typedef struct {
  int ranks;
  char folder[64];
  pid_t processes[MOST_RANKS];
} job;

static int run_rank(const job* mine, int rank, double timeout_seconds, rank_work work, const char* name) {
  orrery_transport transport;
  CHECK(sockets_open(mine->folder, rank, mine->ranks, 30, &transport) == 0);
  orrery_context_options options = ORRERY_CONTEXT_OPTIONS_INIT;
  options.timeout_seconds = timeout_seconds;
  orrery_context* context = NULL;
  char message[300] = "";
  CHECK_MADE(orrery_context_from_transport(&transport, &options, &context, message, sizeof message));
  CHECK(orrery_context_rank(context) == rank && orrery_context_world_size(context) == mine->ranks);
  CHECK(orrery_context_node(context, mine->ranks - 1) == 0);
  work(context, name);
  orrery_context_destroy(context);
  return 0;
}

/* Starts ranks that are processes. */
static job start(int ranks, double timeout_seconds, rank_work work, const char* name) {
  job mine = {.ranks = ranks, .folder = "/tmp/orrery-sockets-XXXXXX"};
  CHECK(ranks <= MOST_RANKS && mkdtemp(mine.folder) != NULL);
  for (int rank = 0; rank < ranks; ++rank) {
    mine.processes[rank] = fork();
    CHECK(mine.processes[rank] >= 0);
    if (mine.processes[rank] == 0) _exit(run_rank(&mine, rank, timeout_seconds, work, name));
  }
  return mine;
}

/* Waits for them: all must end well, but for one that is killed. */
static void finish(const job* mine, int killed) {
  for (int rank = 0; rank < mine->ranks; ++rank) {
    int state = 0;
    CHECK(waitpid(mine->processes[rank], &state, 0) == mine->processes[rank]);
    CHECK(rank == killed ? WIFSIGNALED(state) : WIFEXITED(state) && WEXITSTATUS(state) == 0);
    char file[96];
    snprintf(file, sizeof file, "%s/%d", mine->folder, rank);
    unlink(file);
  }
  CHECK(rmdir(mine->folder) == 0);
}

static void conform(orrery_context* context, const char* name) {
  CHECK_OK(context, orrery_context_conform(context, name));
}

static void conform_and_die(orrery_context* context, const char* name) {
  conform(context, name);
  if (orrery_context_rank(context) == 1) raise(SIGKILL);
}

/* The first word of every line. */
static int words(char* lines, const char** all, int most) {
  int count = 0;
  for (char* line = strtok(lines, "\n"); line != NULL; line = strtok(NULL, "\n")) {
    line[strcspn(line, " ")] = '\0';
    CHECK(count < most);
    all[count++] = line;
  }
  return count;
}

static void run_every_strategy(orrery_context* context, const char* unused) {
  (void)unused;
  char lines[TEXT];
  const char* names[64];
  CHECK(orrery_strategies(lines, sizeof lines) < (int64_t)sizeof lines);
  const int count = words(lines, names, 64);
  int ran = 0;
  const orrery_problem problem = small_problem();
  for (int i = 0; i < count; ++i) {
    orrery_plan_options options = ORRERY_PLAN_OPTIONS_INIT;
    options.strategy = names[i];
    options.backward = 1;
    orrery_plan* plan = NULL;
    const orrery_status status = orrery_plan_create(context, &problem, &options, &plan);
    orrery_plan_destroy(plan);
    if (status == ORRERY_INVALID) continue; /* it does not serve this problem, and said why */
    run_strategy(context, &problem, names[i], kCpu);
    ++ran;
  }
  CHECK(ran >= 2);
}

static void check_refusals(void) {
  orrery_transport transport = ORRERY_TRANSPORT_INIT;
  orrery_context* context = NULL;
  char message[300] = "";
  CHECK_REFUSED(orrery_context_from_transport(NULL, NULL, &context, message, sizeof message), ORRERY_INVALID, "NULL");
  CHECK_REFUSED(orrery_context_from_transport(&transport, NULL, &context, message, sizeof message), ORRERY_INVALID,
                "the transport's prepare is NULL");
  CHECK(sockets_open("/tmp/orrery-no-such-folder", 0, 1, 1, &transport) != 0);
}

static void run_well(int ranks) {
  job mine = start(ranks, 60, conform, NULL);
  finish(&mine, -1);
  mine = start(ranks, 60, run_every_strategy, NULL);
  finish(&mine, -1);
}

/* All at once, for each waits for its deadline. */
static void run_badly(void) {
  char lines[TEXT];
  job jobs[64];
  int count = 0;
  CHECK(orrery_conformance_cases(lines, sizeof lines) < (int64_t)sizeof lines);
  for (char* line = strtok(lines, "\n"); line != NULL; line = strtok(NULL, "\n")) {
    char* kind = strchr(line, ' ');
    CHECK(kind != NULL && count < 64);
    *kind++ = '\0';
    if (strncmp(kind, "fails ", 6) == 0) jobs[count++] = start(3, 2, conform, line);
  }
  CHECK(count >= 5);
  const job killed = start(3, 2, conform_and_die, "gone");
  for (int i = 0; i < count; ++i) finish(&jobs[i], -1);
  finish(&killed, 1);
}

int main(int argc, char** argv) {
  CHECK(argc == 2);
  if (strcmp(argv[1], "fails") == 0) {
    check_refusals();
    run_badly();
  } else {
    run_well(atoi(argv[1]));
  }
  return 0;
}
