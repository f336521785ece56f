/* Orrery for C, and for whatever can call C: exact attention over a sequence that is sharded over ranks. A context is
 * one rank of a world; a plan says what every rank does; an attention is bound to tensors and runs. docs/c-api.md tells
 * the story, with an example.
 *
 * Errors. A function returns an orrery_status. What went wrong, with its values, is orrery_last_error() of the context.
 * Functions without a context write it to `message`, of `message_size` bytes with the terminating zero; it is cut where
 * it does not fit, and may be NULL. The functions of plans fail at nothing but a NULL, a rank, a pass or a position
 * that is not there, and say nothing. Where a call fails, what it would have written through its pointers is NULL or 0.
 *
 * Texts. A function that ends in `char* text, size_t text_size` returns the length of the whole text without its zero,
 * writes as much as fits, with a zero if text_size is not 0, and takes NULL for no text. A negative number is minus an
 * orrery_status.
 *
 * Threads. Nothing is global. A context, with the attentions on it, is used by one thread at a time; different contexts
 * are independent. A plan never changes, and may be used by any number of threads.
 *
 * Lifetimes. What is made here is destroyed by its _destroy, in any order: what is still needed stays until its last
 * user is destroyed. Destroying NULL does nothing.
 *
 * Structures begin with their size, which their _INIT sets together with all defaults. A library takes structures of
 * older headers, whose missing fields have their defaults, and of newer ones, as long as the fields that it does not
 * know are 0. It fills in what a caller's structure has room for. orrery_device and orrery_tensor never change. */
#ifndef ORRERY_ORRERY_H
#define ORRERY_ORRERY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* NOLINTBEGIN: the names and the macros of C */

#if defined(__GNUC__)
#define ORRERY_API __attribute__((visibility("default")))
#else
#define ORRERY_API
#endif

/* A program and a library that have the same number fit together, whatever their versions. */
#define ORRERY_ABI_VERSION 1
ORRERY_API int orrery_abi_version(void);
ORRERY_API const char* orrery_version(void); /* "0.1.0" */

typedef int orrery_status;
enum {
  ORRERY_OK = 0,
  ORRERY_BUG = 1,          /* a fault of Orrery itself */
  ORRERY_INVALID = 2,      /* bad usage, bad input, or a problem that is refused */
  ORRERY_VERIFICATION = 3, /* results differ from the float64 reference */
  ORRERY_PEER = 4,         /* another rank failed, or a deadline passed */
  ORRERY_RESOURCE = 5,     /* memory, files, devices */
  ORRERY_INTERRUPTED = 6   /* the caller's hook ended a wait; no hook, no such status */
};

typedef int orrery_dtype;
enum { ORRERY_FP32 = 0, ORRERY_BF16 = 1, ORRERY_FP16 = 2 };
typedef int orrery_pass;
enum { ORRERY_FORWARD = 0, ORRERY_BACKWARD = 1 };
typedef int orrery_device_kind;
enum { ORRERY_CPU = 0, ORRERY_CUDA = 1 };

/* Devices ---------------------------------------------------------------------------------------------------------- */

typedef struct orrery_device {
  orrery_device_kind kind;
  int index; /* of the CUDA device, as this process counts them */
} orrery_device;

typedef struct orrery_device_info {
  size_t struct_size;
  char name[256];
  int compute_capability; /* 10 * major + minor: 90 is Hopper */
  int multiprocessors;
  int64_t memory_bytes, l2_bytes;
} orrery_device_info;
#define ORRERY_DEVICE_INFO_INIT \
  { sizeof(orrery_device_info), {0}, 0, 0, 0, 0 }

/* The CUDA devices that this process may use; 0 in a build without CUDA, or on a machine without a driver. */
ORRERY_API int orrery_cuda_device_count(void);
ORRERY_API orrery_status orrery_cuda_device_info(int index, orrery_device_info* info, char* message,
                                                 size_t message_size);
/* Text: why a rank of this process cannot compute on a CUDA device; empty when it can. */
ORRERY_API int64_t orrery_cuda_refuses(orrery_dtype dtype, int head_dim, char* text, size_t text_size);
/* Text: what this build and this machine are, a line of "name value" each. */
ORRERY_API int64_t orrery_machine(char* text, size_t text_size);

/* Memory of a device, aligned as tensors and workspaces need it, not set to anything. Use it, or your own. */
typedef struct orrery_memory orrery_memory;
ORRERY_API orrery_status orrery_memory_create(orrery_device device, size_t bytes, orrery_memory** memory, char* message,
                                              size_t message_size);
ORRERY_API void orrery_memory_destroy(orrery_memory* memory);
ORRERY_API void* orrery_memory_data(const orrery_memory* memory);
/* Between any two places, host or device; returns when the bytes are there, for every stream to see. Waits for no
 * stream but the default one, and those that wait for that. */
ORRERY_API orrery_status orrery_copy(void* into, const void* from, size_t bytes, char* message, size_t message_size);
/* Blocks until everything put on the device so far is done. */
ORRERY_API orrery_status orrery_synchronize(orrery_device device, char* message, size_t message_size);

/* Contexts --------------------------------------------------------------------------------------------------------- */

typedef struct orrery_local orrery_local;
typedef struct orrery_context orrery_context;

typedef struct orrery_context_options {
  size_t struct_size;
  double timeout_seconds;  /* the longest a rank waits for another */
  const char* device_link; /* between devices of different processes: "nccl", "mpi" or "auto", which NULL means too */
  /* Asked with interrupted_data about every 50 ms while a rank waits for another: anything but 0 ends the wait with
   * ORRERY_INTERRUPTED, after which the world is not to be used for more than destroying. NULL: nobody is asked. It
   * returns at once, calls nothing of Orrery, and where ranks are threads is asked by all of them. */
  int (*interrupted)(void* interrupted_data);
  void* interrupted_data;
} orrery_context_options;
#define ORRERY_CONTEXT_OPTIONS_INIT \
  { sizeof(orrery_context_options), 300.0, NULL, NULL, NULL }

/* Ranks of this process: a context for each, which its thread opens, once. Options may be NULL, here and below. */
ORRERY_API orrery_status orrery_local_create(int world_size, const orrery_context_options* options,
                                             orrery_local** local, char* message, size_t message_size);
ORRERY_API void orrery_local_destroy(orrery_local* local);
ORRERY_API orrery_status orrery_local_context(orrery_local* local, int rank, orrery_context** context, char* message,
                                              size_t message_size);

/* Collective over an MPI communicator: mpi_comm points to an MPI_Comm, which is duplicated and stays the caller's. NULL
 * stands for all processes; MPI is then initialised when nobody has, and in that case finalised with the context. MPI
 * has at least MPI_THREAD_SERIALIZED, and is not used by another thread while a call is under way, unless it has
 * MPI_THREAD_MULTIPLE. The context is destroyed before MPI_Finalize. */
ORRERY_API orrery_status orrery_context_from_mpi(const void* mpi_comm, const orrery_context_options* options,
                                                 orrery_context** context, char* message, size_t message_size);

/* Collective over an ncclComm_t of CUDA device `device`. It is split here, while nothing else is under way on it, and
 * not used later. Tensors then lie on the device. Needs no MPI. */
ORRERY_API orrery_status orrery_context_from_nccl(void* nccl_comm, int device, const orrery_context_options* options,
                                                  orrery_context** context, char* message, size_t message_size);

/* A transport of the caller's: what moves bytes between ranks where neither MPI nor NCCL does. docs/transports.md has
 * the story, with a whole transport over sockets.
 *
 * Messages have no names. Between two ranks, on one lane, the n-th message that one posts to send is the n-th that the
 * other posts to receive, and as long. Lanes do not wait for each other. The lanes of programs are numbered from 0, and
 * few; the ORRERY_OWN_LANES below them are Orrery's own. */
enum { ORRERY_OWN_LANES = 2 };
typedef struct orrery_message {
  int lane;    /* from -ORRERY_OWN_LANES up */
  int peer;    /* never the rank itself */
  int receive; /* 0: it is sent */
  void* data;
  size_t bytes; /* may be 0; such a message moves like any other */
} orrery_message;

/* Functions are called by one thread at a time, not always the same, and return at once: nothing waits for a peer. They
 * return ORRERY_OK; or a status, ORRERY_PEER for what befell another rank, with what happened written to `text`, of
 * `text_size` bytes with the terminating zero. The world is then good for nothing but destroying. What they may not do:
 * call Orrery, throw, or jump out. */
typedef struct orrery_transport {
  size_t struct_size;
  void* user; /* handed to all functions */
  int rank, world_size;
  const char* name; /* for reports; NULL: "transport" */
  const char* host; /* ranks of equal texts share a node; NULL: the name of this host */
  /* Messages that are posted again and again, as a whole or in parts: `*prepared` stands for them. Local: no rank needs
   * to call it together with another. Their memory outlives `*prepared`; the array does not outlive the call. */
  orrery_status (*prepare)(void* user, const orrery_message* messages, int count, void** prepared, char* text,
                           size_t text_size);
  /* Posts these of them, by number, in this order. None is under way. At any time only one `prepared` of a context has
   * messages under way. */
  orrery_status (*post)(void* user, void* prepared, const int* numbers, int count, char* text, size_t text_size);
  /* Moves on what is under way. Writes the numbers of those that have become complete since, and how many; there is
   * room for all. A message that was sent is complete when its memory may be overwritten. Messages of one lane may
   * become complete in their order. */
  orrery_status (*poll)(void* user, void* prepared, int* complete, int* count, char* text, size_t text_size);
  /* Afterwards nothing touches the memory of these messages, even of those under way. */
  void (*release)(void* user, void* prepared);
  /* This rank cannot go on: the others' waits for it should end at once. Perhaps while another function has not
   * returned. NULL: they find out by their deadlines. */
  void (*abort)(void* user, orrery_status status, const char* message);
  /* The last call: the context is destroyed. What was sent before still arrives. May be NULL. */
  void (*close)(void* user);
} orrery_transport;
#define ORRERY_TRANSPORT_INIT \
  { sizeof(orrery_transport), NULL, 0, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL }

/* Collective over the transport's ranks. The structure and its texts are copied. Where it succeeds, the context closes
 * the transport; where it fails, the transport stays the caller's, and nothing is prepared or under way any more. Of
 * device_link, "auto", "nccl" and the transport's name are taken; the latter stages what moves between devices through
 * host memory. */
ORRERY_API orrery_status orrery_context_from_transport(const orrery_transport* transport,
                                                       const orrery_context_options* options, orrery_context** context,
                                                       char* message, size_t message_size);

/* What every world must do, case by case, for whoever brings a transport. Text: a line each, the name of a case, "good"
 * or "fails", and what it shows. */
ORRERY_API int64_t orrery_conformance_cases(char* text, size_t text_size);
/* Collective: a case, or with NULL all that leave the world good. ORRERY_BUG tells what was expected and what was met.
 * In a case that "fails", rank 1 goes wrong on purpose: it takes the context's timeout and some seconds more, after
 * which the context is good for nothing but destroying. */
ORRERY_API orrery_status orrery_context_conform(orrery_context* context, const char* name);

/* The last user of a context to be destroyed closes its rank: the others are told that it will come to nothing more. */
ORRERY_API void orrery_context_destroy(orrery_context* context);
/* Of the last call that failed on this context, or on an attention of it; "" when none has. Valid until the next call.
 */
ORRERY_API const char* orrery_last_error(const orrery_context* context);
ORRERY_API int orrery_context_rank(const orrery_context* context);       /* -1 for NULL */
ORRERY_API int orrery_context_world_size(const orrery_context* context); /* 0 for NULL */
/* The number of the node on which a rank runs; -1 for a rank that is not there. */
ORRERY_API int orrery_context_node(const orrery_context* context, int rank);
/* Collective: `bytes` bytes of every rank, the same number, into all[world_size][bytes]. Small records of the host. */
ORRERY_API orrery_status orrery_context_all_gather(orrery_context* context, const void* mine, size_t bytes, void* all);
ORRERY_API orrery_status orrery_context_barrier(orrery_context* context);
/* Collective: every rank gives how its own work went, and gets the status of the lowest rank whose work failed, with
 * that rank's message as the last error; ORRERY_OK when none did. */
ORRERY_API orrery_status orrery_context_agree(orrery_context* context, orrery_status mine, const char* message);
/* For an error that the other ranks do not know of. Of an MPI world it ends the job, with the status as its exit code,
 * and does not return; of the others it fails what this world waits for, now or later, and returns. */
ORRERY_API void orrery_context_abort(orrery_context* context, orrery_status status, const char* message);

/* Collective: on which device this rank computes, of the same kind on all ranks. Plans that are made for the context
 * from now on know what the links between the devices carry, as far as that can be told, and are chosen for it. */
ORRERY_API orrery_status orrery_context_use_device(orrery_context* context, orrery_device device);

/* Plans ------------------------------------------------------------------------------------------------------------ */

typedef struct orrery_plan orrery_plan;

typedef struct orrery_problem {
  size_t struct_size;
  int64_t batch, seq_len;
  int heads, kv_heads, head_dim; /* kv_heads divides heads; query head h reads KV head h / (heads / kv_heads) */
  orrery_dtype dtype;
  const char* mask; /* "causal+window:512" and the like (docs/glossary.md); NULL means "full" */
  double scale;     /* multiplies the scores; 0 means 1 / sqrt(head_dim) */
} orrery_problem;
#define ORRERY_PROBLEM_INIT \
  { sizeof(orrery_problem), 1, 0, 1, 1, 64, ORRERY_FP32, NULL, 0.0 }

typedef struct orrery_plan_options {
  size_t struct_size;
  const char* layout;   /* "contiguous", "zigzag", "striped:B" or "auto", which NULL means too */
  const char* strategy; /* "auto", which NULL means too, or a name with options: "ring:keys=65536,keep=no"
                         * (orrery_strategies, orrery_strategy_options). What is not given is chosen. */
  int backward;         /* plan a backward pass */
  /* Options of the ring as they were given before they had names; the text of the strategy gives each instead. */
  int keep_key_value;                            /* 0: keep=no */
  int64_t keys_per_step, backward_keys_per_step; /* keys and backward-keys, unless both are 0 */
  /* What the slowest link carries, one way, which bounds how many blocks come at once; 0: not known. */
  double link_bytes_per_second;
} orrery_plan_options;
#define ORRERY_PLAN_OPTIONS_INIT \
  { sizeof(orrery_plan_options), NULL, NULL, 0, 1, 0, 0, 0.0 }

/* Text: the strategies that a plan may name, a line each, the name and what it does. */
ORRERY_API int64_t orrery_strategies(char* text, size_t text_size);
/* Text: their options, a line each: the strategy, the option with the values that it takes, its standard value, and
 * what it means. */
ORRERY_API int64_t orrery_strategy_options(char* text, size_t text_size);
/* For the context's world. Local; the same arguments give the same plan on every rank. */
ORRERY_API orrery_status orrery_plan_create(orrery_context* context, const orrery_problem* problem,
                                            const orrery_plan_options* options, orrery_plan** plan);
/* For a world that need not be there, whose nodes have ranks_per_node ranks: to look at, to prove, to price. */
ORRERY_API orrery_status orrery_plan_for(int world_size, int ranks_per_node, const orrery_problem* problem,
                                         const orrery_plan_options* options, orrery_plan** plan, char* message,
                                         size_t message_size);
ORRERY_API void orrery_plan_destroy(orrery_plan* plan);

/* These four are valid as long as the plan is; NULL for NULL. */
ORRERY_API const char* orrery_plan_text(const orrery_plan* plan); /* everything ranks must share */
ORRERY_API const char* orrery_plan_layout(const orrery_plan* plan);
ORRERY_API const char* orrery_plan_strategy(const orrery_plan* plan); /* its name */
ORRERY_API const char* orrery_plan_reason(const orrery_plan* plan);   /* why layout and strategy were chosen */

ORRERY_API int orrery_plan_world_size(const orrery_plan* plan); /* 0 for NULL */
/* How many tokens a rank owns; minus a status on error. */
ORRERY_API int64_t orrery_plan_tokens(const orrery_plan* plan, int rank);
/* The position in the sequence of each of a rank's tokens, in the order in which it stores them: the first `count` of
 * them. Shard your tensors, position ids and labels by these. Returns how many there are, or minus a status. */
ORRERY_API int64_t orrery_plan_positions(const orrery_plan* plan, int rank, int64_t* positions, int64_t count);
/* Which rank owns a position, as its token number `index`. */
ORRERY_API orrery_status orrery_plan_owner(const orrery_plan* plan, int64_t position, int* rank, int64_t* index);
/* Text: a rank's program, a line each for buffers and steps. */
ORRERY_API int64_t orrery_plan_program(const orrery_plan* plan, int rank, orrery_pass pass, char* text,
                                       size_t text_size);
/* Proves the plan, both passes if it has two. `findings` gets how many faults there are, at most `at_most` (0: 20); 0
 * is a proof. Text: a line each. */
ORRERY_API int64_t orrery_plan_check(const orrery_plan* plan, int64_t at_most, int64_t* findings, char* text,
                                     size_t text_size);

typedef struct orrery_cost {
  size_t struct_size;
  int64_t steps, rounds; /* rounds: steps that exchange */
  int64_t bytes_sent, bytes_received;
  int64_t pairs; /* admitted (query, key) pairs times query heads */
  int64_t workspace_bytes, kept_bytes;
  double flops; /* that the mask asks for, of the whole world */
} orrery_cost;
#define ORRERY_COST_INIT \
  { sizeof(orrery_cost), 0, 0, 0, 0, 0, 0, 0, 0.0 }

ORRERY_API orrery_status orrery_plan_cost(const orrery_plan* plan, int rank, orrery_pass pass, orrery_cost* cost);

/* Tensors ---------------------------------------------------------------------------------------------------------- */

/* [batch, tokens, heads, width] elements of the caller's. Strides count elements; that of the width is 1. */
typedef struct orrery_tensor {
  void* data;
  orrery_dtype dtype;
  int64_t batch, tokens, heads, width;
  int64_t batch_stride, token_stride, head_stride;
} orrery_tensor;

/* Dense [batch, tokens, heads, width]. */
ORRERY_API orrery_tensor orrery_dense(void* data, orrery_dtype dtype, int64_t batch, int64_t tokens, int64_t heads,
                                      int64_t width);
/* Dense [batch, heads, tokens] of fp32, the shape of lse, as a tensor of width 1. */
ORRERY_API orrery_tensor orrery_rows(float* data, int64_t batch, int64_t heads, int64_t tokens);

/* This rank's rows, in the order of orrery_plan_positions. Inputs may share memory with each other, and with themselves
 * (a stride of 0). What is written may lie between the rows of others in one allocation, but shares no byte with
 * another tensor, with the workspace, or with itself: a bind refuses that. */
typedef struct orrery_tensors {
  size_t struct_size;
  orrery_tensor query;      /* [batch, tokens, heads, head_dim] */
  orrery_tensor key, value; /* [batch, tokens, kv_heads, head_dim] */
  orrery_tensor out;        /* as query; written */
  orrery_tensor lse;        /* orrery_rows: [batch, tokens, heads, 1], fp32; written */
  /* With backward: */
  orrery_tensor grad_out;                         /* as query */
  orrery_tensor grad_query, grad_key, grad_value; /* as query, key, value; written */
} orrery_tensors;
#define ORRERY_TENSOR_INIT \
  { NULL, ORRERY_FP32, 0, 0, 0, 0, 0, 0, 0 }
#define ORRERY_TENSORS_INIT                                                                                 \
  {                                                                                                         \
    sizeof(orrery_tensors), ORRERY_TENSOR_INIT, ORRERY_TENSOR_INIT, ORRERY_TENSOR_INIT, ORRERY_TENSOR_INIT, \
        ORRERY_TENSOR_INIT, ORRERY_TENSOR_INIT, ORRERY_TENSOR_INIT, ORRERY_TENSOR_INIT, ORRERY_TENSOR_INIT  \
  }

/* A tensor that a rank binds, by name. The structure above has those of attention; ports list whatever a plan has. */
typedef int orrery_port_use;
enum { ORRERY_PORT_NONE = 0, ORRERY_PORT_INPUT = 1, ORRERY_PORT_OUTPUT = 2 };
typedef struct orrery_port {
  size_t struct_size;
  char name[64];
  orrery_dtype dtype;
  orrery_port_use forward, backward; /* in which pass it is read, or written */
  int64_t batch, tokens, heads, width;
} orrery_port;
#define ORRERY_PORT_INIT \
  { sizeof(orrery_port), {0}, ORRERY_FP32, ORRERY_PORT_NONE, ORRERY_PORT_NONE, 0, 0, 0, 0 }

/* How many tensors a rank binds; minus a status on error. */
ORRERY_API int64_t orrery_plan_port_count(const orrery_plan* plan, int rank);
/* One of them, `index` from 0. Their order is that of the plan, the same at every call. */
ORRERY_API orrery_status orrery_plan_port(const orrery_plan* plan, int rank, int64_t index, orrery_port* port);

typedef int orrery_generated;
enum { ORRERY_QUERY = 1, ORRERY_KEY = 2, ORRERY_VALUE = 3, ORRERY_GRAD_OUT = 4 };
/* Fills this rank's rows of a tensor on `device` with the values that (seed, tensor, position, ...) give: nearly
 * normal, the same for every world and device. Returns when they are there. */
ORRERY_API orrery_status orrery_generate(orrery_context* context, const orrery_plan* plan, orrery_generated tensor,
                                         uint64_t seed, const orrery_tensor* into, orrery_device device);
/* The same with counting inputs: queries of 0, and signs that tell bits of a position, for which attention has a closed
 * form under every mask. orrery_verify_options.counting compares with that. */
ORRERY_API orrery_status orrery_generate_counting(orrery_context* context, const orrery_plan* plan,
                                                  orrery_generated tensor, const orrery_tensor* into,
                                                  orrery_device device);
/* One of the values of orrery_generate, before rounding to a dtype. */
ORRERY_API float orrery_generated_value(orrery_generated tensor, uint64_t seed, int64_t batch, int64_t position,
                                        int64_t head, int64_t column);

/* Attention -------------------------------------------------------------------------------------------------------- */

typedef struct orrery_attention orrery_attention;

/* When the ranks compare, before they exchange anything, which call they are at: when the attention is made and at the
 * first call of each pass, or at every call too, which takes a few small records through rank 0. DEFAULT is FIRST, and
 * ALWAYS in debug builds. The same on all ranks. */
typedef int64_t orrery_agree;
enum { ORRERY_AGREE_DEFAULT = 0, ORRERY_AGREE_FIRST = 1, ORRERY_AGREE_ALWAYS = 2 };

typedef struct orrery_attention_options {
  size_t struct_size;
  int threads;          /* that compute, in this rank, on a CPU */
  int record_steps;     /* keep every step's times for the timeline */
  orrery_device device; /* where the tensors and the workspace lie, and where this rank computes */
  /* On CUDA: */
  /* Order runs on `stream`. Else on a stream of Orrery's own in order with the device's default stream, that of a
   * thread too: a run comes after what the caller has put there, and what he puts there later comes after the run. */
  int use_stream;
  int deterministic; /* the same bits every run; 0 lets grad_query's last bits depend on timing, for speed */
  void* stream;      /* a cudaStream_t; NULL is the default stream */
  int64_t sm_margin; /* multiprocessors that the attention kernels leave free for NCCL's; refused when it leaves none */
  int64_t portable_kernels; /* those of every CUDA device, even where its own architecture has faster ones */
  orrery_agree agree;
  /* How many bindings stay prepared, so that binding again to the same tensors and memory costs next to nothing; the
   * one that was not bound for longest gives way. As many as calls are in flight, for callers that bind at each call.
   */
  int64_t bindings;
} orrery_attention_options;
#define ORRERY_ATTENTION_OPTIONS_INIT \
  { sizeof(orrery_attention_options), 1, 0, {ORRERY_CPU, 0}, 0, 1, NULL, 0, 0, ORRERY_AGREE_DEFAULT, 8 }

/* Collective: the ranks agree on the plan, which may be destroyed afterwards. */
ORRERY_API orrery_status orrery_attention_create(orrery_context* context, const orrery_plan* plan,
                                                 const orrery_attention_options* options, orrery_attention** attention);
ORRERY_API void orrery_attention_destroy(orrery_attention* attention);
/* What carries slices between this rank's memory and that of others: "inprocess", "mpi" or "nccl"; "" for NULL. */
ORRERY_API const char* orrery_attention_link_name(const orrery_attention* attention);
/* Which attention kernels its CUDA device runs in a pass: "hopper", "portable" or, for that dtype, "fp32"; "" on a CPU,
 * for a pass that is not planned, and for NULL. */
ORRERY_API const char* orrery_attention_kernels(const orrery_attention* attention, orrery_pass pass);
/* Exactly what a call needs beside the caller's tensors: kept memory, and scratch. 0 for NULL. */
ORRERY_API size_t orrery_attention_workspace_bytes(const orrery_attention* attention);
/* What of it a forward run leaves for its backward run, beside out and lse; 0 where that is nothing, and for NULL.
 * Calls that are in flight at once, as micro-batches of a pipeline, have each their own, and may share the scratch. */
ORRERY_API size_t orrery_attention_kept_bytes(const orrery_attention* attention);
/* Local. Checks every shape, stride, dtype and place. The workspace is aligned to 64 bytes, on CUDA to 256; it and the
 * tensors stay in place until the next bind or the end of the attention. After a refusal nothing is bound. */
ORRERY_API orrery_status orrery_attention_bind(orrery_attention* attention, const orrery_tensors* tensors,
                                               void* workspace, size_t workspace_bytes);
/* The same with kept memory apart: of orrery_attention_kept_bytes, aligned alike, which the caller leaves alone from
 * forward to backward. The workspace then needs orrery_attention_workspace_bytes less these, and any attention of this
 * context may use it in between whose runs are ordered with these. */
ORRERY_API orrery_status orrery_attention_bind_kept(orrery_attention* attention, const orrery_tensors* tensors,
                                                    void* workspace, size_t workspace_bytes, void* kept,
                                                    size_t kept_bytes);
/* The same by name: `tensors[i]` is for the port `names[i]`, in any order, one for each port of the plan. A name that
 * is of no port, one given twice, and one that is missing are refused. With kept NULL, the workspace holds the kept
 * memory too, as for orrery_attention_bind. */
ORRERY_API orrery_status orrery_attention_bind_named(orrery_attention* attention, const char* const* names,
                                                     const orrery_tensor* tensors, int64_t count, void* workspace,
                                                     size_t workspace_bytes, void* kept, size_t kept_bytes);
/* Collective. On a CPU they return when the run is complete; on CUDA they put it on the stream. After one of these has
 * failed, other than with ORRERY_INVALID, the world is not to be used for more than destroying.
 * backward is refused (ORRERY_INVALID, before anything runs) unless what is bound holds what a forward left: on these
 * tensors, with this kept memory, and no run on this context wrote there since. Some plans use up their kept memory on
 * the way back, so that a second backward needs another forward. */
ORRERY_API orrery_status orrery_attention_forward(orrery_attention* attention);
ORRERY_API orrery_status orrery_attention_backward(orrery_attention* attention);
/* Local. The caller's word that what is bound holds what a forward of this plan left elsewhere: it was copied here, as
 * from the memory of the host to which it had been moved. */
ORRERY_API orrery_status orrery_attention_assume_forward(orrery_attention* attention);
/* Local. Returns when all runs are complete. */
ORRERY_API orrery_status orrery_attention_wait(orrery_attention* attention);

typedef struct orrery_timeline {
  size_t struct_size;
  double seconds;              /* of the whole run */
  double compute_seconds;      /* steps that compute */
  double exposed_comm_seconds; /* computation waited for a transfer */
} orrery_timeline;
#define ORRERY_TIMELINE_INIT \
  { sizeof(orrery_timeline), 0.0, 0.0, 0.0 }

/* Both of the last run of that pass, on this rank; they wait for it. The text is a Chrome trace (chrome://tracing,
 * Perfetto) and has steps with record_steps only; the traces of several ranks are joined by joining their events. */
ORRERY_API orrery_status orrery_attention_timeline(orrery_attention* attention, orrery_pass pass,
                                                   orrery_timeline* timeline);
ORRERY_API int64_t orrery_attention_timeline_json(orrery_attention* attention, orrery_pass pass, char* text,
                                                  size_t text_size);

/* Verification ----------------------------------------------------------------------------------------------------- */

typedef struct orrery_verify_options {
  size_t struct_size;
  int full;     /* every row, at O(seq_len^2) in float64; else rows drawn over the whole sequence by the seed */
  int backward; /* compare gradients too, if the plan has a backward pass */
  uint64_t seed;
  int64_t
      counting; /* the inputs are those of orrery_generate_counting: compare with the closed form, linear in seq_len */
} orrery_verify_options;
#define ORRERY_VERIFY_OPTIONS_INIT \
  { sizeof(orrery_verify_options), 0, 1, 0, 0 }

typedef struct orrery_verification {
  size_t struct_size;
  int64_t rows;  /* (batch, position, head) rows of out and lse compared */
  int64_t wrong; /* rows and keys with a result beyond its limit, or not finite; each counts once */
  double out_rel_l2, lse_max_abs;
  double dq_rel_l2, dk_rel_l2, dv_rel_l2; /* 0 without gradients */
  int64_t keys;                           /* (batch, position, KV head) rows of grad_key and grad_value compared */
  int64_t nonfinite; /* rows and keys not compared: a NaN or an infinity of the inputs reaches them by the mask */
  int64_t exceeded;  /* how many of the errors are beyond their limits */
  /* The root mean square over rows of an error relative to what was summed up to the row. */
  double out_row_rms, lse_row_rms, dq_row_rms, dk_row_rms, dv_row_rms;
  /* What the errors may be. */
  double out_rel_l2_limit, lse_max_abs_limit, dq_rel_l2_limit, dk_rel_l2_limit, dv_rel_l2_limit;
  double out_row_rms_limit, lse_row_rms_limit, dq_row_rms_limit, dk_row_rms_limit, dv_row_rms_limit;
} orrery_verification;
#define ORRERY_VERIFICATION_INIT                                                                                      \
  {                                                                                                                   \
    sizeof(orrery_verification), 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, \
        0.0, 0.0, 0.0, 0.0, 0.0, 0.0                                                                                  \
  }

/* Collective: the bound tensors, after their runs, against float64 over all ranks; the same answer on every rank.
 * Returns ORRERY_VERIFICATION, with what is wrong as the last error and the result filled in, when a row is wrong or an
 * error is beyond its limit. */
ORRERY_API orrery_status orrery_attention_verify(orrery_attention* attention, const orrery_verify_options* options,
                                                 orrery_verification* verification);

/* NOLINTEND */

#ifdef __cplusplus
}
#endif

#endif /* ORRERY_ORRERY_H */
