/* What the C tests share: checks that end the program, ranks as threads, and one attention from plan to verification,
 * on whatever context and device. */
#ifndef ORRERY_TESTS_C_API_SUPPORT_H
#define ORRERY_TESTS_C_API_SUPPORT_H

#include <orrery/orrery.h>

enum { SKIPPED = 77 };

#define CHECK(condition) check_at((condition) != 0, #condition, __FILE__, __LINE__)
/* A call that must succeed, or must fail with a status and a part of a message. */
#define CHECK_OK(context, call) CHECK_FAILS(context, call, ORRERY_OK, "")
#define CHECK_FAILS(context, call, status, part)                                             \
  do {                                                                                       \
    const orrery_status got_ = (call);                                                       \
    check_status_at(got_, (status), (part), orrery_last_error(context), __FILE__, __LINE__); \
  } while (0)
/* The same of calls that write into `char message[...]`. */
#define CHECK_MADE(call) check_status_at((call), ORRERY_OK, "", message, __FILE__, __LINE__)
#define CHECK_REFUSED(call, status, part) check_status_at((call), (status), (part), message, __FILE__, __LINE__)

void check_at(int good, const char* condition, const char* file, int line);
void check_status_at(orrery_status got, orrery_status wanted, const char* part, const char* message, const char* file,
                     int line);

typedef void (*rank_body)(orrery_context* context, void* data);

/* Runs `body` on that many ranks, each a thread. Several worlds may run at once. */
typedef struct local_run local_run;
local_run* begin_ranks(int ranks, double timeout_seconds, rank_body body, void* data);
void end_ranks(local_run* run);
void run_ranks(int ranks, double timeout_seconds, rank_body body, void* data);

orrery_problem small_problem(void);

/* A rank's tensors and workspace on a device, outputs full of NaN, inputs generated. */
typedef struct {
  orrery_memory* memory[16];
  int count;
  orrery_tensors tensors;
} shard;
void* shard_room(shard* s, orrery_device device, size_t bytes);
void shard_make(shard* s, orrery_context* context, const orrery_plan* plan, const orrery_problem* problem,
                orrery_device device);
void shard_free(shard* s);

/* Plans, proves, runs both passes, verifies every row, and looks at the timeline. */
void run_strategy(orrery_context* context, const orrery_problem* problem, const char* strategy, orrery_device device);
void run_attention(orrery_context* context, const orrery_problem* problem, orrery_device device); /* ring */

#endif
