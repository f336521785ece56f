/* A program of an earlier day. It is compiled with the header of version 1 of the ABI as that stood then, in this folder,
 * and runs with the library of today: old structures, old names, old options. Two ranks are threads of this process. */
#include <orrery/orrery.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { kRanks = 2, kSeqLen = 1000, kHeads = 4, kKvHeads = 2, kHeadDim = 32 };

static void made(orrery_status status, const char* message) {
  if (status == ORRERY_OK) return;
  fprintf(stderr, "%s\n", message);
  exit(status);
}
static void done(orrery_context* context, orrery_status status) {
  made(status, orrery_last_error(context));
}

/* A rank's memory, which is destroyed together. */
typedef struct {
  orrery_memory* pieces[10];
  int count;
} Memory;

/* Room for [1, tokens, heads, width] floats. */
static void* room(Memory* memory, int64_t tokens, int heads, int width) {
  const orrery_device cpu = {ORRERY_CPU, 0};
  const size_t bytes = sizeof(float) * (size_t)(tokens * heads * width);
  orrery_memory** piece = &memory->pieces[memory->count++];
  char message[200] = "";
  made(orrery_memory_create(cpu, bytes, piece, message, sizeof message), message);
  return orrery_memory_data(*piece);
}

static orrery_tensor dense(Memory* memory, int64_t tokens, int heads) {
  return orrery_dense(room(memory, tokens, heads, kHeadDim), ORRERY_FP32, 1, tokens, heads, kHeadDim);
}

static void run(orrery_context* context, int blocks_together) {
  orrery_problem problem = ORRERY_PROBLEM_INIT;
  problem.seq_len = kSeqLen;
  problem.heads = kHeads;
  problem.kv_heads = kKvHeads;
  problem.head_dim = kHeadDim;
  problem.mask = "causal";
  orrery_plan_options plan_options = ORRERY_PLAN_OPTIONS_INIT;
  plan_options.strategy = "ring";
  plan_options.backward = 1;
  if (blocks_together) {
    plan_options.keep_key_value = 0;
    plan_options.keys_per_step = 700;
    plan_options.backward_keys_per_step = 700;
    plan_options.link_bytes_per_second = 1e12;
  }
  orrery_plan* plan = NULL;
  done(context, orrery_plan_create(context, &problem, &plan_options, &plan));

  const int64_t tokens = orrery_plan_tokens(plan, orrery_context_rank(context));
  Memory memory = {{NULL}, 0};
  orrery_tensors tensors = ORRERY_TENSORS_INIT;
  tensors.query = dense(&memory, tokens, kHeads);
  tensors.key = dense(&memory, tokens, kKvHeads);
  tensors.value = dense(&memory, tokens, kKvHeads);
  tensors.out = dense(&memory, tokens, kHeads);
  tensors.lse = orrery_rows(room(&memory, tokens, kHeads, 1), 1, kHeads, tokens);
  tensors.grad_out = dense(&memory, tokens, kHeads);
  tensors.grad_query = dense(&memory, tokens, kHeads);
  tensors.grad_key = dense(&memory, tokens, kKvHeads);
  tensors.grad_value = dense(&memory, tokens, kKvHeads);
  const orrery_device cpu = {ORRERY_CPU, 0};
  done(context, orrery_generate(context, plan, ORRERY_QUERY, 1, &tensors.query, cpu));
  done(context, orrery_generate(context, plan, ORRERY_KEY, 1, &tensors.key, cpu));
  done(context, orrery_generate(context, plan, ORRERY_VALUE, 1, &tensors.value, cpu));
  done(context, orrery_generate(context, plan, ORRERY_GRAD_OUT, 1, &tensors.grad_out, cpu));

  orrery_attention* attention = NULL;
  done(context, orrery_attention_create(context, plan, NULL, &attention));
  const size_t bytes = orrery_attention_workspace_bytes(attention);
  void* workspace = room(&memory, (int64_t)(bytes / sizeof(float)) + 1, 1, 1);
  done(context, orrery_attention_bind(attention, &tensors, workspace, bytes));
  done(context, orrery_attention_forward(attention));
  done(context, orrery_attention_backward(attention));
  done(context, orrery_attention_wait(attention));

  orrery_verification found = ORRERY_VERIFICATION_INIT;
  done(context, orrery_attention_verify(attention, NULL, &found));
  if (found.wrong != 0 || found.rows == 0) made(ORRERY_BUG, "a result is wrong");
  orrery_attention_destroy(attention);
  orrery_plan_destroy(plan);
  for (int i = 0; i < memory.count; ++i) orrery_memory_destroy(memory.pieces[i]);
}

typedef struct {
  orrery_local* local;
  int rank;
} Seat;

static void* thread(void* argument) {
  const Seat* seat = argument;
  orrery_context* context = NULL;
  char message[200] = "";
  made(orrery_local_context(seat->local, seat->rank, &context, message, sizeof message), message);
  for (int blocks_together = 0; blocks_together < 2; ++blocks_together) run(context, blocks_together);
  orrery_context_destroy(context);
  return NULL;
}

int main(void) {
  orrery_context_options options = ORRERY_CONTEXT_OPTIONS_INIT;
  if (orrery_abi_version() != ORRERY_ABI_VERSION) return ORRERY_INVALID;
  options.timeout_seconds = 60;
  orrery_local* local = NULL;
  char message[200] = "";
  made(orrery_local_create(kRanks, &options, &local, message, sizeof message), message);
  pthread_t threads[kRanks];
  Seat seats[kRanks];
  for (int rank = 0; rank < kRanks; ++rank) {
    seats[rank] = (Seat){local, rank};
    if (pthread_create(&threads[rank], NULL, thread, &seats[rank]) != 0) return ORRERY_RESOURCE;
  }
  for (int rank = 0; rank < kRanks; ++rank) pthread_join(threads[rank], NULL);
  orrery_local_destroy(local);
  return 0;
}
