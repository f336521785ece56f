#include "support.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void check_at(int good, const char* condition, const char* file, int line) {
  if (good) return;
  fprintf(stderr, "%s:%d: %s\n", file, line, condition);
  exit(1);
}

void check_status_at(orrery_status got, orrery_status wanted, const char* part, const char* message, const char* file,
                     int line) {
  if (got == wanted && (got == ORRERY_OK || strstr(message, part) != NULL)) return;
  fprintf(stderr, "%s:%d: status %d \"%s\"; wanted %d \"%s\"\n", file, line, got, message, wanted, part);
  exit(1);
}

typedef struct {
  orrery_local* local;
  int rank;
  rank_body body;
  void* data;
  pthread_t thread;
} seat;

struct local_run {
  int ranks;
  orrery_local* local;
  seat* seats;
};

static void* run_seat(void* argument) {
  const seat* mine = argument;
  orrery_context* context = NULL;
  char message[200] = "";
  CHECK_MADE(orrery_local_context(mine->local, mine->rank, &context, message, sizeof message));
  mine->body(context, mine->data);
  orrery_context_destroy(context);
  return NULL;
}

local_run* begin_ranks(int ranks, double timeout_seconds, rank_body body, void* data) {
  local_run* run = malloc(sizeof *run);
  CHECK(run != NULL);
  run->ranks = ranks;
  run->seats = malloc(sizeof(seat) * (size_t)ranks);
  CHECK(run->seats != NULL);
  orrery_context_options options = ORRERY_CONTEXT_OPTIONS_INIT;
  options.timeout_seconds = timeout_seconds;
  char message[200] = "";
  CHECK_MADE(orrery_local_create(ranks, &options, &run->local, message, sizeof message));
  for (int rank = 0; rank < ranks; ++rank) {
    run->seats[rank] = (seat){.local = run->local, .rank = rank, .body = body, .data = data};
    CHECK(pthread_create(&run->seats[rank].thread, NULL, run_seat, &run->seats[rank]) == 0);
  }
  return run;
}

void end_ranks(local_run* run) {
  for (int rank = 0; rank < run->ranks; ++rank) CHECK(pthread_join(run->seats[rank].thread, NULL) == 0);
  orrery_local_destroy(run->local);
  free(run->seats);
  free(run);
}

void run_ranks(int ranks, double timeout_seconds, rank_body body, void* data) {
  end_ranks(begin_ranks(ranks, timeout_seconds, body, data));
}

orrery_problem small_problem(void) {
  orrery_problem problem = ORRERY_PROBLEM_INIT;
  problem.batch = 2;
  problem.seq_len = 193;
  problem.heads = 4;
  problem.kv_heads = 2;
  problem.head_dim = 32;
  problem.mask = "causal+window:57+sinks:3";
  return problem;
}

void* shard_room(shard* s, orrery_device device, size_t bytes) {
  char message[200] = "";
  orrery_memory** memory = &s->memory[s->count++];
  CHECK_MADE(orrery_memory_create(device, bytes, memory, message, sizeof message));
  void* nan = malloc(bytes + 1);
  CHECK(nan != NULL);
  memset(nan, 0xff, bytes);
  CHECK_MADE(orrery_copy(orrery_memory_data(*memory), nan, bytes, message, sizeof message));
  free(nan);
  return orrery_memory_data(*memory);
}

void shard_make(shard* s, orrery_context* context, const orrery_plan* plan, const orrery_problem* problem,
                orrery_device device) {
  const int64_t batch = problem->batch, tokens = orrery_plan_tokens(plan, orrery_context_rank(context));
  const size_t element = problem->dtype == ORRERY_FP32 ? 4 : 2;
  const orrery_tensors none = ORRERY_TENSORS_INIT;
  s->count = 0;
  s->tensors = none;
  orrery_tensor* of_heads[] = {&s->tensors.query, &s->tensors.out, &s->tensors.grad_out, &s->tensors.grad_query};
  orrery_tensor* of_kv_heads[] = {&s->tensors.key, &s->tensors.value, &s->tensors.grad_key, &s->tensors.grad_value};
  for (int i = 0; i < 8; ++i) {
    const int64_t heads = i < 4 ? problem->heads : problem->kv_heads;
    void* data = shard_room(s, device, element * (size_t)(batch * tokens * heads * problem->head_dim));
    *(i < 4 ? of_heads[i] : of_kv_heads[i - 4]) =
        orrery_dense(data, problem->dtype, batch, tokens, heads, problem->head_dim);
  }
  float* lse = shard_room(s, device, sizeof(float) * (size_t)(batch * tokens * problem->heads));
  s->tensors.lse = orrery_rows(lse, batch, problem->heads, tokens);
  CHECK_OK(context, orrery_generate(context, plan, ORRERY_QUERY, 7, &s->tensors.query, device));
  CHECK_OK(context, orrery_generate(context, plan, ORRERY_KEY, 7, &s->tensors.key, device));
  CHECK_OK(context, orrery_generate(context, plan, ORRERY_VALUE, 7, &s->tensors.value, device));
  CHECK_OK(context, orrery_generate(context, plan, ORRERY_GRAD_OUT, 7, &s->tensors.grad_out, device));
}

void shard_free(shard* s) {
  for (int i = 0; i < s->count; ++i) orrery_memory_destroy(s->memory[i]);
}

static void check_timeline(orrery_context* context, orrery_attention* attention, orrery_pass pass) {
  orrery_timeline timeline = ORRERY_TIMELINE_INIT;
  CHECK_OK(context, orrery_attention_timeline(attention, pass, &timeline));
  CHECK(timeline.seconds > 0);
  const int64_t length = orrery_attention_timeline_json(attention, pass, NULL, 0);
  CHECK(length > 0);
  char* json = malloc((size_t)length + 1);
  CHECK(json != NULL);
  CHECK(orrery_attention_timeline_json(attention, pass, json, (size_t)length + 1) == length);
  CHECK(strlen(json) == (size_t)length && strstr(json, "\"traceEvents\"") != NULL && strstr(json, "attend") != NULL);
  free(json);
}

void run_attention(orrery_context* context, const orrery_problem* problem, orrery_device device) {
  run_strategy(context, problem, "ring", device);
}

void run_strategy(orrery_context* context, const orrery_problem* problem, const char* strategy, orrery_device device) {
  orrery_plan_options plan_options = ORRERY_PLAN_OPTIONS_INIT;
  plan_options.backward = 1;
  plan_options.strategy = strategy;
  orrery_plan* plan = NULL;
  CHECK_OK(context, orrery_plan_create(context, problem, &plan_options, &plan));
  CHECK(orrery_plan_world_size(plan) == orrery_context_world_size(context));
  CHECK(strcmp(orrery_plan_strategy(plan), strategy) == 0);
  int64_t findings = -1;
  CHECK(orrery_plan_check(plan, 0, &findings, NULL, 0) == 0);
  CHECK(findings == 0);

  shard s;
  shard_make(&s, context, plan, problem, device);
  orrery_attention_options options = ORRERY_ATTENTION_OPTIONS_INIT;
  options.device = device;
  options.record_steps = 1;
  orrery_attention* attention = NULL;
  CHECK_OK(context, orrery_attention_create(context, plan, &options, &attention));
  const size_t bytes = orrery_attention_workspace_bytes(attention);
  void* workspace = shard_room(&s, device, bytes);
  CHECK_OK(context, orrery_attention_bind(attention, &s.tensors, workspace, bytes));
  for (int run = 0; run < 2; ++run) {
    CHECK_OK(context, orrery_attention_forward(attention));
    CHECK_OK(context, orrery_attention_backward(attention));
  }
  CHECK_OK(context, orrery_attention_wait(attention));

  orrery_verify_options verify = ORRERY_VERIFY_OPTIONS_INIT;
  verify.full = 1;
  orrery_verification found = ORRERY_VERIFICATION_INIT;
  CHECK_OK(context, orrery_attention_verify(attention, &verify, &found));
  CHECK(found.wrong == 0 && found.rows == problem->batch * problem->seq_len * problem->heads);
  CHECK(found.out_rel_l2 < 2e-2 && found.dq_rel_l2 < 2e-2 && found.dk_rel_l2 < 2e-2 && found.dv_rel_l2 < 2e-2);
  CHECK(found.dk_rel_l2 > 0);
  CHECK(found.exceeded == 0 && found.nonfinite == 0);
  CHECK(found.keys == problem->batch * problem->seq_len * problem->kv_heads);
  CHECK(found.out_rel_l2 <= found.out_rel_l2_limit && found.dv_row_rms <= found.dv_row_rms_limit);
  CHECK(found.dv_row_rms > 0 && found.lse_row_rms_limit > 0);

  /* Inputs whose answer is known. */
  CHECK_OK(context, orrery_generate_counting(context, plan, ORRERY_QUERY, &s.tensors.query, device));
  CHECK_OK(context, orrery_generate_counting(context, plan, ORRERY_KEY, &s.tensors.key, device));
  CHECK_OK(context, orrery_generate_counting(context, plan, ORRERY_VALUE, &s.tensors.value, device));
  CHECK_OK(context, orrery_generate_counting(context, plan, ORRERY_GRAD_OUT, &s.tensors.grad_out, device));
  orrery_plan_destroy(plan);
  CHECK_OK(context, orrery_attention_forward(attention));
  CHECK_OK(context, orrery_attention_backward(attention));
  CHECK_OK(context, orrery_attention_wait(attention));
  verify.counting = 1;
  CHECK_OK(context, orrery_attention_verify(attention, &verify, &found));
  CHECK(found.dk_rel_l2 == 0 && found.out_rel_l2 > 0);
  check_timeline(context, attention, ORRERY_FORWARD);
  check_timeline(context, attention, ORRERY_BACKWARD);
  orrery_attention_destroy(attention);
  shard_free(&s);
}
