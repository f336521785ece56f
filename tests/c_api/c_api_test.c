/* liborrery.so from C: ranks that are threads, on CPUs, or with the argument "cuda" on a CUDA device; with "refusals"
 * what is refused, and what is said. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

static const orrery_device kCpu = {ORRERY_CPU, 0};

static void whole_attention(orrery_context* context, void* data) {
  const orrery_problem problem = small_problem();
  run_attention(context, &problem, *(const orrery_device*)data);
}

static void attention_of_16_bits(orrery_context* context, void* data) {
  orrery_problem problem = small_problem();
  problem.dtype = ORRERY_BF16;
  problem.mask = "causal";
  run_attention(context, &problem, *(const orrery_device*)data);
}

static void bind_kept(orrery_context* context, orrery_attention* attention, const shard* s, void* scratch, void* kept) {
  const size_t kept_bytes = orrery_attention_kept_bytes(attention);
  CHECK_OK(context,
           orrery_attention_bind_kept(attention, &s->tensors, scratch,
                                      orrery_attention_workspace_bytes(attention) - kept_bytes, kept, kept_bytes));
}

static void gradients_are_right(orrery_context* context, orrery_attention* attention) {
  orrery_verify_options verify = ORRERY_VERIFY_OPTIONS_INIT;
  verify.full = 1;
  orrery_verification found = ORRERY_VERIFICATION_INIT;
  CHECK_OK(context, orrery_attention_verify(attention, &verify, &found));
  CHECK(found.wrong == 0 && found.dq_rel_l2 < 1e-5 && found.dk_rel_l2 < 1e-5 && found.dv_rel_l2 < 1e-5);
}

/* The tensor of a port, by the fields of the structure. */
static orrery_tensor tensor_of(const orrery_tensors* t, const char* port) {
  static const char* const names[] = {"query",    "key",        "value",    "out",       "lse",
                                      "grad_out", "grad_query", "grad_key", "grad_value"};
  const orrery_tensor* const all[] = {&t->query,    &t->key,        &t->value,    &t->out,       &t->lse,
                                      &t->grad_out, &t->grad_query, &t->grad_key, &t->grad_value};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) {
    if (strcmp(names[i], port) == 0) return *all[i];
  }
  CHECK(!"a port of another name");
  return t->query;
}

/* Ports say what to bind: their tensors are bound by name, in any order. */
static void bound_by_name(orrery_context* context, void* data) {
  const orrery_device device = *(const orrery_device*)data;
  const orrery_problem problem = small_problem();
  orrery_plan_options plan_options = ORRERY_PLAN_OPTIONS_INIT;
  plan_options.backward = 1;
  orrery_plan* plan = NULL;
  orrery_attention* attention = NULL;
  orrery_attention_options options = ORRERY_ATTENTION_OPTIONS_INIT;
  options.device = device;
  CHECK_OK(context, orrery_plan_create(context, &problem, &plan_options, &plan));
  CHECK_OK(context, orrery_attention_create(context, plan, &options, &attention));
  shard s;
  shard_make(&s, context, plan, &problem, device);
  const int rank = orrery_context_rank(context);
  const int64_t count = orrery_plan_port_count(plan, rank);
  CHECK(count == 9);
  orrery_port ports[9];
  const char* names[10];
  orrery_tensor tensors[10];
  for (int64_t i = 0; i < count; ++i) {
    const orrery_port init = ORRERY_PORT_INIT;
    ports[i] = init;
    CHECK(orrery_plan_port(plan, rank, count - 1 - i, &ports[i]) == ORRERY_OK);
    names[i] = ports[i].name;
    tensors[i] = tensor_of(&s.tensors, names[i]);
    CHECK(tensors[i].tokens == ports[i].tokens && tensors[i].heads == ports[i].heads);
    CHECK(tensors[i].width == ports[i].width && tensors[i].dtype == ports[i].dtype);
    if (strcmp(names[i], "lse") == 0) {
      CHECK(ports[i].forward == ORRERY_PORT_OUTPUT && ports[i].backward == ORRERY_PORT_INPUT && ports[i].width == 1);
    }
    if (strcmp(names[i], "grad_key") == 0) {
      CHECK(ports[i].forward == ORRERY_PORT_NONE && ports[i].backward == ORRERY_PORT_OUTPUT);
    }
  }
  CHECK(orrery_plan_port(plan, rank, count, &ports[0]) == ORRERY_INVALID);
  CHECK(orrery_plan_port(plan, 99, 0, &ports[0]) == ORRERY_INVALID);
  CHECK(orrery_plan_port_count(NULL, 0) == -ORRERY_INVALID);

  const size_t bytes = orrery_attention_workspace_bytes(attention), kept_bytes = orrery_attention_kept_bytes(attention);
  void* workspace = shard_room(&s, device, bytes);
  void* scratch = shard_room(&s, device, bytes - kept_bytes);
  void* kept = shard_room(&s, device, kept_bytes);
  names[9] = names[3];
  tensors[9] = tensors[3];
  CHECK_FAILS(context, orrery_attention_bind_named(attention, names, tensors, 10, workspace, bytes, NULL, 0),
              ORRERY_INVALID, "is bound twice");
  names[9] = "querry";
  CHECK_FAILS(context, orrery_attention_bind_named(attention, names, tensors, 10, workspace, bytes, NULL, 0),
              ORRERY_INVALID, "this plan has no tensor querry; it has query, key, value, out, lse, grad_out");
  CHECK_FAILS(context, orrery_attention_bind_named(attention, names, tensors, 8, workspace, bytes, NULL, 0),
              ORRERY_INVALID, "query is not bound");
  names[9] = NULL;
  CHECK_FAILS(context, orrery_attention_bind_named(attention, names, tensors, 10, workspace, bytes, NULL, 0),
              ORRERY_INVALID, "name 9 is NULL");
  CHECK_FAILS(context, orrery_attention_bind_named(attention, NULL, tensors, 9, workspace, bytes, NULL, 0),
              ORRERY_INVALID, "names is NULL");
  CHECK_FAILS(context, orrery_attention_forward(attention), ORRERY_INVALID, "no tensors are bound");

  CHECK_OK(context, orrery_attention_bind_named(attention, names, tensors, 9, workspace, bytes, NULL, 0));
  CHECK_OK(context, orrery_attention_forward(attention));
  CHECK_OK(context, orrery_attention_backward(attention));
  gradients_are_right(context, attention);
  CHECK_OK(context,
           orrery_attention_bind_named(attention, names, tensors, 9, scratch, bytes - kept_bytes, kept, kept_bytes));
  CHECK_OK(context, orrery_attention_forward(attention));
  CHECK_OK(context, orrery_attention_backward(attention));
  gradients_are_right(context, attention);
  orrery_attention_destroy(attention);
  orrery_plan_destroy(plan);
  shard_free(&s);
}

/* Two calls in flight, each with kept memory of its own, and what is refused of a backward run. */
static void calls_in_flight(orrery_context* context, void* data) {
  const orrery_device device = *(const orrery_device*)data;
  const orrery_problem problem = small_problem();
  orrery_plan_options plan_options = ORRERY_PLAN_OPTIONS_INIT;
  plan_options.backward = 1;
  plan_options.strategy = "ring";
  orrery_plan* plan = NULL;
  orrery_attention* attention = NULL;
  orrery_attention_options options = ORRERY_ATTENTION_OPTIONS_INIT;
  options.device = device;
  CHECK_OK(context, orrery_plan_create(context, &problem, &plan_options, &plan));
  CHECK_OK(context, orrery_attention_create(context, plan, &options, &attention));
  shard a, b;
  shard_make(&a, context, plan, &problem, device);
  shard_make(&b, context, plan, &problem, device);
  CHECK_OK(context, orrery_generate(context, plan, ORRERY_QUERY, 8, &b.tensors.query, device));
  CHECK_OK(context, orrery_generate(context, plan, ORRERY_VALUE, 8, &b.tensors.value, device));
  const size_t kept_bytes = orrery_attention_kept_bytes(attention);
  void* scratch = shard_room(&a, device, orrery_attention_workspace_bytes(attention) - kept_bytes);
  void* kept_a = shard_room(&a, device, kept_bytes);
  void* kept_b = shard_room(&b, device, kept_bytes);

  bind_kept(context, attention, &a, scratch, kept_a);
  CHECK_FAILS(context, orrery_attention_backward(attention), ORRERY_INVALID, "no forward run");
  CHECK_OK(context, orrery_attention_forward(attention));
  bind_kept(context, attention, &b, scratch, kept_b);
  CHECK_FAILS(context, orrery_attention_backward(attention), ORRERY_INVALID, "no forward run");
  CHECK_OK(context, orrery_attention_forward(attention));
  bind_kept(context, attention, &a, scratch, kept_a);
  CHECK_OK(context, orrery_attention_backward(attention));
  CHECK_OK(context, orrery_attention_wait(attention));
  gradients_are_right(context, attention);
  bind_kept(context, attention, &b, scratch, kept_b);
  CHECK_OK(context, orrery_attention_backward(attention));
  CHECK_OK(context, orrery_attention_wait(attention));
  gradients_are_right(context, attention);

  CHECK_FAILS(context, orrery_attention_bind_kept(attention, &a.tensors, scratch, 0, kept_a, kept_bytes),
              ORRERY_INVALID, "workspace has 0 bytes");
  CHECK_FAILS(context, orrery_attention_assume_forward(attention), ORRERY_INVALID, "no tensors are bound");
  orrery_attention_destroy(attention);
  orrery_plan_destroy(plan);
  shard_free(&a);
  shard_free(&b);
}

static void runs(orrery_device device) {
  const int worlds[] = {1, 3};
  for (int i = 0; i < 2; ++i) {
    run_ranks(worlds[i], 60, whole_attention, &device);
    run_ranks(worlds[i], 60, attention_of_16_bits, &device);
    run_ranks(worlds[i], 60, calls_in_flight, &device);
    run_ranks(worlds[i], 60, bound_by_name, &device);
  }
  /* Two worlds know nothing of each other. */
  local_run* one = begin_ranks(3, 60, whole_attention, &device);
  local_run* other = begin_ranks(2, 60, attention_of_16_bits, &device);
  end_ranks(one);
  end_ranks(other);
}

static void wrong_results_are_found(orrery_context* context, void* data) {
  (void)data;
  const orrery_problem problem = small_problem();
  orrery_plan* plan = NULL;
  orrery_attention* attention = NULL;
  shard s;
  CHECK_OK(context, orrery_plan_create(context, &problem, NULL, &plan));
  shard_make(&s, context, plan, &problem, kCpu);
  CHECK_OK(context, orrery_attention_create(context, plan, NULL, &attention));
  const size_t bytes = orrery_attention_workspace_bytes(attention);
  void* workspace = shard_room(&s, kCpu, bytes);
  CHECK_OK(context, orrery_attention_bind(attention, &s.tensors, workspace, bytes));
  CHECK_OK(context, orrery_attention_forward(attention));
  CHECK_FAILS(context, orrery_attention_backward(attention), ORRERY_INVALID, "no backward pass");
  if (orrery_context_rank(context) == 0) ((float*)s.tensors.out.data)[0] += 100;
  orrery_verify_options verify = ORRERY_VERIFY_OPTIONS_INIT;
  verify.full = 1;
  orrery_verification found = ORRERY_VERIFICATION_INIT;
  CHECK_FAILS(context, orrery_attention_verify(attention, &verify, &found), ORRERY_VERIFICATION, "out at batch 0");
  CHECK(found.wrong == 1);

  /* What is still needed stays, in whatever order it is destroyed. */
  orrery_plan_destroy(plan);
  orrery_context_destroy(context);
  CHECK(orrery_attention_forward(attention) == ORRERY_OK);
  orrery_attention_destroy(attention);
  shard_free(&s);
}

static void any_order(void) {
  orrery_local* local = NULL;
  orrery_context *context = NULL, *again = NULL;
  char message[200] = "";
  CHECK_MADE(orrery_local_create(1, NULL, &local, message, sizeof message));
  CHECK_MADE(orrery_local_context(local, 0, &context, message, sizeof message));
  CHECK_REFUSED(orrery_local_context(local, 0, &again, message, sizeof message), ORRERY_INVALID, "opened before");
  CHECK(again == NULL);
  CHECK_REFUSED(orrery_local_context(local, 1, &again, message, sizeof message), ORRERY_INVALID,
                "rank 1 of a world of 1");
  orrery_context_destroy(context);
  orrery_local_destroy(local);

  CHECK_MADE(orrery_local_create(1, NULL, &local, message, sizeof message));
  CHECK_MADE(orrery_local_context(local, 0, &context, message, sizeof message));
  orrery_local_destroy(local);
  wrong_results_are_found(context, NULL); /* destroys it */
}

static void plans(orrery_context* context) {
  orrery_problem problem = small_problem();
  orrery_plan* plan = NULL;
  CHECK_FAILS(context, orrery_plan_create(context, NULL, NULL, &plan), ORRERY_INVALID, "problem is NULL");
  CHECK_FAILS(context, orrery_plan_create(context, &problem, NULL, NULL), ORRERY_INVALID, "plan is NULL");
  CHECK(orrery_plan_create(NULL, &problem, NULL, &plan) == ORRERY_INVALID);
  problem.mask = "causal+sideways";
  CHECK_FAILS(context, orrery_plan_create(context, &problem, NULL, &plan), ORRERY_INVALID, "sideways");
  CHECK(plan == NULL);
  problem = small_problem();
  problem.dtype = 9;
  CHECK_FAILS(context, orrery_plan_create(context, &problem, NULL, &plan), ORRERY_INVALID, "dtype 9");
  problem = small_problem();
  problem.seq_len = -1;
  CHECK_FAILS(context, orrery_plan_create(context, &problem, NULL, &plan), ORRERY_INVALID, "-1 tokens");
  problem = small_problem();
  problem.kv_heads = 3;
  CHECK_FAILS(context, orrery_plan_create(context, &problem, NULL, &plan), ORRERY_INVALID, "3");
  problem = small_problem();
  orrery_plan_options options = ORRERY_PLAN_OPTIONS_INIT;
  options.strategy = "guess";
  CHECK_FAILS(context, orrery_plan_create(context, &problem, &options, &plan), ORRERY_INVALID, "guess");
}

static void versions(void) {
  char message[300] = "";
  orrery_plan *plan = NULL, *same = NULL;
  orrery_problem problem = small_problem();
  CHECK_MADE(orrery_plan_for(3, 2, &problem, NULL, &plan, message, sizeof message));

  /* An older header ended before the scale, and a newer one goes on behind it. */
  orrery_problem older = small_problem();
  older.struct_size = offsetof(orrery_problem, scale);
  older.scale = 123;
  CHECK_MADE(orrery_plan_for(3, 2, &older, NULL, &same, message, sizeof message));
  CHECK(strcmp(orrery_plan_text(plan), orrery_plan_text(same)) == 0);
  orrery_plan_destroy(same);
  struct {
    orrery_problem known;
    int64_t more;
  } newer = {small_problem(), 0};
  newer.known.struct_size = sizeof newer;
  CHECK_MADE(orrery_plan_for(3, 2, &newer.known, NULL, &same, message, sizeof message));
  CHECK(strcmp(orrery_plan_text(plan), orrery_plan_text(same)) == 0);
  orrery_plan_destroy(same);
  newer.more = 1;
  CHECK_REFUSED(orrery_plan_for(3, 2, &newer.known, NULL, &same, message, sizeof message), ORRERY_INVALID,
                "newer header");
  problem.struct_size = 0;
  CHECK_REFUSED(orrery_plan_for(3, 2, &problem, NULL, &same, message, sizeof message), ORRERY_INVALID, "struct_size 0");
  problem.struct_size = (size_t)-1;
  CHECK_REFUSED(orrery_plan_for(3, 2, &problem, NULL, &same, message, sizeof message), ORRERY_INVALID, "struct_size");
  CHECK(same == NULL);

  /* What is filled in is as much as there is room for. */
  orrery_cost cost = ORRERY_COST_INIT;
  CHECK(orrery_plan_cost(plan, 1, ORRERY_FORWARD, &cost) == ORRERY_OK);
  CHECK(cost.steps > 0 && cost.pairs > 0 && cost.flops > 0 && cost.struct_size == sizeof cost);
  orrery_cost short_cost = ORRERY_COST_INIT;
  short_cost.struct_size = offsetof(orrery_cost, flops);
  short_cost.flops = -1;
  CHECK(orrery_plan_cost(plan, 1, ORRERY_FORWARD, &short_cost) == ORRERY_OK);
  CHECK(short_cost.pairs == cost.pairs && short_cost.flops == -1);
  struct {
    orrery_cost known;
    int64_t more;
  } long_cost = {ORRERY_COST_INIT, 5};
  long_cost.known.struct_size = sizeof long_cost;
  CHECK(orrery_plan_cost(plan, 1, ORRERY_FORWARD, &long_cost.known) == ORRERY_OK);
  CHECK(long_cost.known.flops == cost.flops && long_cost.more == 0 && long_cost.known.struct_size == sizeof long_cost);
  CHECK(orrery_plan_cost(plan, 1, ORRERY_BACKWARD, &cost) == ORRERY_INVALID);
  CHECK(orrery_plan_cost(plan, 3, ORRERY_FORWARD, &cost) == ORRERY_INVALID);
  CHECK(orrery_plan_cost(plan, 0, ORRERY_FORWARD, NULL) == ORRERY_INVALID);
  orrery_plan_destroy(plan);
}

static void texts_and_positions(void) {
  char message[12] = "";
  orrery_plan* plan = NULL;
  orrery_problem problem = small_problem();
  CHECK(orrery_plan_for(0, 1, &problem, NULL, &plan, message, sizeof message) == ORRERY_INVALID);
  CHECK(strlen(message) == sizeof message - 1); /* cut */
  CHECK(orrery_plan_for(0, 1, &problem, NULL, &plan, NULL, 0) == ORRERY_INVALID);
  CHECK_MADE(orrery_plan_for(3, 3, &problem, NULL, &plan, message, sizeof message));

  const int64_t length = orrery_plan_program(plan, 2, ORRERY_FORWARD, NULL, 0);
  CHECK(length > 100);
  char* whole = malloc((size_t)length + 1);
  CHECK(whole != NULL);
  CHECK(orrery_plan_program(plan, 2, ORRERY_FORWARD, whole, (size_t)length + 1) == length);
  CHECK(strlen(whole) == (size_t)length);
  char part[20];
  memset(part, 'x', sizeof part);
  CHECK(orrery_plan_program(plan, 2, ORRERY_FORWARD, part, 10) == length);
  CHECK(strlen(part) == 9 && strncmp(part, whole, 9) == 0 && part[10] == 'x');
  free(whole);
  CHECK(orrery_plan_program(plan, 3, ORRERY_FORWARD, NULL, 0) == -ORRERY_INVALID);
  CHECK(orrery_plan_program(plan, 0, ORRERY_BACKWARD, NULL, 0) == -ORRERY_INVALID);
  CHECK(orrery_plan_program(NULL, 0, ORRERY_FORWARD, NULL, 0) == -ORRERY_INVALID);

  int seen[193] = {0};
  for (int rank = 0; rank < 3; ++rank) {
    int64_t positions[193];
    const int64_t tokens = orrery_plan_tokens(plan, rank);
    CHECK(orrery_plan_positions(plan, rank, NULL, 0) == tokens);
    CHECK(orrery_plan_positions(plan, rank, positions, 193) == tokens);
    for (int64_t i = 0; i < tokens; ++i) {
      int owner = -1;
      int64_t index = -1;
      CHECK(orrery_plan_owner(plan, positions[i], &owner, &index) == ORRERY_OK);
      CHECK(owner == rank && index == i);
      ++seen[positions[i]];
    }
  }
  for (int i = 0; i < 193; ++i) CHECK(seen[i] == 1);
  CHECK(orrery_plan_tokens(plan, -1) == -ORRERY_INVALID);
  int64_t findings = -1;
  CHECK(orrery_plan_check(plan, 0, &findings, NULL, 0) == 0 && findings == 0);
  CHECK(orrery_plan_check(plan, 0, NULL, NULL, 0) == -ORRERY_INVALID);
  CHECK(strlen(orrery_plan_reason(plan)) > 0 && strlen(orrery_plan_layout(plan)) > 0);
  orrery_plan_destroy(plan);
}

static void binding(orrery_context* context) {
  const orrery_problem problem = small_problem();
  orrery_plan* plan = NULL;
  orrery_attention* attention = NULL;
  shard s;
  CHECK_OK(context, orrery_plan_create(context, &problem, NULL, &plan));
  shard_make(&s, context, plan, &problem, kCpu);
  CHECK_FAILS(context, orrery_attention_create(context, NULL, NULL, &attention), ORRERY_INVALID, "plan is NULL");
  orrery_attention_options options = ORRERY_ATTENTION_OPTIONS_INIT;
  options.threads = 0;
  CHECK_FAILS(context, orrery_attention_create(context, plan, &options, &attention), ORRERY_INVALID, "0 threads");
  options.threads = 2;
  options.device.kind = 7;
  CHECK_FAILS(context, orrery_attention_create(context, plan, &options, &attention), ORRERY_INVALID, "kind 7");
  options.device.kind = ORRERY_CPU;
  options.sm_margin = -1;
  CHECK_FAILS(context, orrery_attention_create(context, plan, &options, &attention), ORRERY_INVALID, "margin of -1");
  options.sm_margin = (int64_t)1 << 40;
  CHECK_FAILS(context, orrery_attention_create(context, plan, &options, &attention), ORRERY_INVALID, "margin of 1099");
  options.sm_margin = 0;
  options.agree = 3;
  CHECK_FAILS(context, orrery_attention_create(context, plan, &options, &attention), ORRERY_INVALID, "way to agree 3");
  options.agree = ORRERY_AGREE_ALWAYS;
  options.bindings = 0;
  CHECK_FAILS(context, orrery_attention_create(context, plan, &options, &attention), ORRERY_INVALID, "0 bindings");
  options.bindings = 1;
  options.portable_kernels = 1; /* of CUDA devices: a CPU has none */
  CHECK_OK(context, orrery_attention_create(context, plan, &options, &attention));
  CHECK(strcmp(orrery_attention_kernels(attention, ORRERY_FORWARD), "") == 0);
  CHECK(strcmp(orrery_attention_kernels(attention, ORRERY_BACKWARD), "") == 0);
  CHECK(strcmp(orrery_attention_kernels(NULL, ORRERY_FORWARD), "") == 0);

  CHECK_FAILS(context, orrery_attention_forward(attention), ORRERY_INVALID, "no tensors are bound");
  orrery_verification found = ORRERY_VERIFICATION_INIT;
  CHECK_FAILS(context, orrery_attention_verify(attention, NULL, &found), ORRERY_INVALID, "no tensors are bound");
  const size_t bytes = orrery_attention_workspace_bytes(attention);
  char* workspace = shard_room(&s, kCpu, bytes + 64);
  CHECK_FAILS(context, orrery_attention_bind(attention, NULL, workspace, bytes), ORRERY_INVALID, "tensors is NULL");
  CHECK_FAILS(context, orrery_attention_bind(attention, &s.tensors, workspace, bytes - 1), ORRERY_INVALID,
              "are needed");
  CHECK_FAILS(context, orrery_attention_bind(attention, &s.tensors, NULL, bytes), ORRERY_INVALID, "workspace is NULL");
  CHECK_FAILS(context, orrery_attention_bind(attention, &s.tensors, workspace + 4, bytes), ORRERY_INVALID, "aligned");
  orrery_tensors wrong = s.tensors;
  wrong.key.tokens -= 1;
  CHECK_FAILS(context, orrery_attention_bind(attention, &wrong, workspace, bytes), ORRERY_INVALID, "shard is");
  wrong = s.tensors;
  wrong.value.data = NULL;
  CHECK_FAILS(context, orrery_attention_bind(attention, &wrong, workspace, bytes), ORRERY_INVALID, "no data");
  wrong = s.tensors;
  wrong.out.dtype = 5;
  CHECK_FAILS(context, orrery_attention_bind(attention, &wrong, workspace, bytes), ORRERY_INVALID, "dtype 5");
  wrong = s.tensors;
  wrong.out.token_stride = 0;
  CHECK_FAILS(context, orrery_attention_bind(attention, &wrong, workspace, bytes), ORRERY_INVALID, "out is written");
  wrong = s.tensors;
  wrong.out.data = wrong.query.data;
  CHECK_FAILS(context, orrery_attention_bind(attention, &wrong, workspace, bytes), ORRERY_INVALID, "share memory");
  CHECK_FAILS(context, orrery_generate(context, plan, 9, 1, &s.tensors.key, kCpu), ORRERY_INVALID, "tensor 9");
  CHECK_OK(context, orrery_attention_bind(attention, &s.tensors, workspace, bytes));
  CHECK_OK(context, orrery_attention_forward(attention));
  CHECK_FAILS(context, orrery_attention_timeline(attention, 3, NULL), ORRERY_INVALID, "pass 3");
  CHECK(orrery_attention_timeline_json(attention, ORRERY_BACKWARD, NULL, 0) == -ORRERY_INVALID);
  CHECK(orrery_attention_forward(NULL) == ORRERY_INVALID);
  orrery_attention_destroy(attention);
  orrery_plan_destroy(plan);
  shard_free(&s);
}

static void one_rank(orrery_context* context, void* data) {
  (void)data;
  CHECK(strcmp(orrery_last_error(context), "") == 0);
  plans(context);
  CHECK(strstr(orrery_last_error(context), "guess") != NULL);
  binding(context);
}

static void messages_stay_apart(void) {
  orrery_local* local = NULL;
  orrery_context *one = NULL, *other = NULL;
  char message[200] = "";
  CHECK_MADE(orrery_local_create(2, NULL, &local, message, sizeof message));
  CHECK_MADE(orrery_local_context(local, 0, &one, message, sizeof message));
  CHECK_MADE(orrery_local_context(local, 1, &other, message, sizeof message));
  plans(one);
  CHECK(strstr(orrery_last_error(one), "guess") != NULL && strcmp(orrery_last_error(other), "") == 0);
  orrery_context_destroy(one);
  CHECK_FAILS(other, orrery_context_barrier(other), ORRERY_PEER, "rank 0 returned");
  orrery_context_destroy(other);
  orrery_local_destroy(local);
}

static void agreements(orrery_context* context, void* data) {
  (void)data;
  const int rank = orrery_context_rank(context), ranks = orrery_context_world_size(context);
  CHECK(orrery_context_node(context, ranks - 1) == 0 && orrery_context_node(context, ranks) == -1);
  int all[8] = {0};
  CHECK_OK(context, orrery_context_all_gather(context, &rank, sizeof rank, all));
  for (int i = 0; i < ranks; ++i) CHECK(all[i] == i);
  CHECK_FAILS(context, orrery_context_all_gather(context, all, rank == 1 ? 8 : 4, all + 4), ORRERY_INVALID,
              "bytes where");
  CHECK_OK(context, orrery_context_agree(context, ORRERY_OK, NULL));
  CHECK_FAILS(context, orrery_context_agree(context, rank == 1 ? ORRERY_RESOURCE : ORRERY_OK, "out of luck"),
              ORRERY_RESOURCE, "rank 1: out of luck");
  CHECK_OK(context, orrery_context_barrier(context));
  if (rank == 1) {
    orrery_context_abort(context, ORRERY_RESOURCE, "no paper");
  } else {
    CHECK_FAILS(context, orrery_context_barrier(context), ORRERY_PEER, "rank 1 failed: no paper");
  }
}

static void late(orrery_context* context, void* data) {
  (void)data;
  if (orrery_context_rank(context) == 0) {
    CHECK_FAILS(context, orrery_context_barrier(context), ORRERY_PEER, "rank 1");
  }
}

static void refusals(void) {
  char message[300] = "";
  orrery_local* local = NULL;
  orrery_context* context = NULL;
  CHECK_REFUSED(orrery_local_create(0, NULL, &local, message, sizeof message), ORRERY_INVALID, "world of 0");
  orrery_context_options options = ORRERY_CONTEXT_OPTIONS_INIT;
  options.timeout_seconds = 0;
  CHECK_REFUSED(orrery_local_create(1, &options, &local, message, sizeof message), ORRERY_INVALID, "timeout of 0");
  CHECK_REFUSED(orrery_local_create(1, NULL, NULL, message, sizeof message), ORRERY_INVALID, "local is NULL");
  CHECK_REFUSED(orrery_local_context(NULL, 0, &context, message, sizeof message), ORRERY_INVALID, "local is NULL");
  CHECK_REFUSED(orrery_context_from_nccl(NULL, 0, NULL, &context, message, sizeof message), ORRERY_INVALID, "NCCL");
  CHECK(orrery_context_barrier(NULL) == ORRERY_INVALID && orrery_context_rank(NULL) == -1);
  CHECK(strlen(orrery_last_error(NULL)) > 0);
  orrery_device_info info = ORRERY_DEVICE_INFO_INIT;
  CHECK_REFUSED(orrery_cuda_device_info(99, &info, message, sizeof message), ORRERY_INVALID, "no CUDA device 99");
  const orrery_device strange = {5, 0};
  orrery_memory* memory = NULL;
  CHECK_REFUSED(orrery_memory_create(strange, 1, &memory, message, sizeof message), ORRERY_INVALID, "kind 5");
  CHECK_REFUSED(orrery_memory_create(kCpu, (size_t)1 << 60, &memory, message, sizeof message), ORRERY_RESOURCE,
                "memory");

  versions();
  texts_and_positions();
  any_order();
  run_ranks(1, 60, one_rank, NULL);
  messages_stay_apart();
  run_ranks(3, 60, agreements, NULL);
  run_ranks(2, 60, late, NULL);

  orrery_local_destroy(NULL);
  orrery_context_destroy(NULL);
  orrery_plan_destroy(NULL);
  orrery_attention_destroy(NULL);
  orrery_memory_destroy(NULL);
}

static void build(void) {
  CHECK(orrery_abi_version() == ORRERY_ABI_VERSION);
  char text[4000];
  CHECK(orrery_machine(text, sizeof text) > 0);
  CHECK(strncmp(text, "version ", 8) == 0 && strstr(text, orrery_version()) != NULL);
  if (orrery_cuda_device_count() == 0) CHECK(orrery_cuda_refuses(ORRERY_BF16, 64, text, sizeof text) > 0);
  const float value = orrery_generated_value(ORRERY_KEY, 1, 0, 5, 1, 3);
  CHECK(isfinite(value) && value != orrery_generated_value(ORRERY_KEY, 2, 0, 5, 1, 3));
}

int main(int argc, char** argv) {
  const char* what = argc > 1 ? argv[1] : "cpu";
  build();
  if (strcmp(what, "refusals") == 0) {
    refusals();
  } else if (strcmp(what, "cuda") == 0) {
    if (orrery_cuda_device_count() == 0) {
      puts("skipped: no CUDA device");
      return SKIPPED;
    }
    runs((orrery_device){ORRERY_CUDA, 0});
  } else {
    runs(kCpu);
  }
  return 0;
}
