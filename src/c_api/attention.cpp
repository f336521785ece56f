#include "orrery/attention.hpp"

#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "attention/tensors.hpp"
#include "c_api/handles.hpp"
#include "orrery/generate.hpp"
#include "orrery/trace.hpp"
#include "orrery/verify.hpp"

using namespace orrery;
using namespace orrery::c_api;

namespace {

TensorView view_of(const orrery_tensor& t) {
  return {t.data,  dtype_of(t.dtype), t.batch,        t.tokens,     t.heads,
          t.width, t.batch_stride,    t.token_stride, t.head_stride};
}

orrery_tensor tensor_of(const TensorView& v) {
  return {v.data,         static_cast<orrery_dtype>(v.dtype),
          v.batch,        v.tokens,
          v.heads,        v.width,
          v.batch_stride, v.token_stride,
          v.head_stride};
}

AttentionTensors views_of(const orrery_tensors* tensors) {
  require(tensors, "tensors");
  const orrery_tensors defaults = ORRERY_TENSORS_INIT;
  const orrery_tensors t = read(tensors, defaults, "tensors");
  return {.query = view_of(t.query),
          .key = view_of(t.key),
          .value = view_of(t.value),
          .out = view_of(t.out),
          .lse = view_of(t.lse),
          .grad_out = view_of(t.grad_out),
          .grad_query = view_of(t.grad_query),
          .grad_key = view_of(t.grad_key),
          .grad_value = view_of(t.grad_value)};
}

AttentionOptions options_of(const orrery_attention_options* options) {
  constexpr int kMostThreads = 1024, kMostMargin = std::numeric_limits<int>::max(), kMostBindings = 1 << 20;
  const orrery_attention_options defaults = ORRERY_ATTENTION_OPTIONS_INIT;
  const orrery_attention_options given = read(options, defaults, "options");
  if (given.threads < 1 || given.threads > kMostThreads) refuse(given.threads, " threads; 1 to ", kMostThreads);
  if (given.sm_margin < 0 || given.sm_margin > kMostMargin) refuse("an SM margin of ", given.sm_margin);
  if (given.agree < ORRERY_AGREE_DEFAULT || given.agree > ORRERY_AGREE_ALWAYS) {
    refuse("there is no way to agree ", given.agree);
  }
  if (given.bindings < 1 || given.bindings > kMostBindings) {
    refuse(given.bindings, " bindings that stay prepared; 1 to ", kMostBindings);
  }
  AttentionOptions known;
  if (given.agree != ORRERY_AGREE_DEFAULT) {
    known.agree = given.agree == ORRERY_AGREE_FIRST ? Agree::first : Agree::always;
  }
  known.bindings = static_cast<int>(given.bindings);
  known.threads = given.threads;
  known.record_steps = given.record_steps != 0;
  known.device = device_of(given.device);
  if (given.use_stream != 0) known.stream = given.stream;
  known.deterministic = given.deterministic != 0;
  known.sm_margin = static_cast<int>(given.sm_margin);
  known.portable_kernels = given.portable_kernels != 0;
  return known;
}

Generated generated_of(orrery_generated tensor) {
  if (tensor < ORRERY_QUERY || tensor > ORRERY_GRAD_OUT) refuse("there is no generated tensor ", tensor);
  return static_cast<Generated>(tensor);
}

// Calls on an attention fail into its context.
template <typename Body>
orrery_status on(orrery_attention* attention, const Body& body) {
  if (attention == nullptr) return ORRERY_INVALID;
  return guarded(ToRank{*attention->rank}, body);
}

std::span<std::byte> memory_of(void* memory, std::size_t bytes, std::string_view name) {
  if (bytes > 0) require(memory, name);
  return {static_cast<std::byte*>(memory), bytes};
}

// `views` gives the tensors, by name or as a structure, and `to` binds them.
orrery_status bind(orrery_attention* attention, const auto& views, const auto& to) {
  return on(attention, [&] {
    attention->bound.reset();
    const auto tensors = views();
    to(tensors);
    attention->bound = attention_tensors(tensors);
  });
}

std::vector<NamedTensor> named_of(const char* const* names, const orrery_tensor* tensors, int64_t count) {
  if (count < 0) refuse(count, " tensors");
  if (count > 0) {
    require(names, "names");
    require(tensors, "tensors");
  }
  std::vector<NamedTensor> list;
  for (int64_t i = 0; i < count; ++i) {
    require(names[i], concat("name ", i));
    list.push_back({names[i], view_of(tensors[i])});
  }
  return list;
}

}  // namespace

orrery_tensor orrery_dense(void* data, orrery_dtype dtype, int64_t batch, int64_t tokens, int64_t heads,
                           int64_t width) {
  // A dtype that is none is refused where the tensor is used.
  orrery_tensor tensor = tensor_of(TensorView::dense(data, Dtype::fp32, batch, tokens, heads, width));
  tensor.dtype = dtype;
  return tensor;
}

orrery_tensor orrery_rows(float* data, int64_t batch, int64_t heads, int64_t tokens) {
  return tensor_of(TensorView::rows(data, batch, heads, tokens));
}

namespace {

orrery_status generate_rows(orrery_context* context, const orrery_plan* plan, orrery_generated tensor, uint64_t seed,
                            const orrery_tensor* into, orrery_device device, Recipe recipe) {
  if (context == nullptr) return ORRERY_INVALID;
  return guarded(ToRank{*context->rank}, [&] {
    require(plan, "plan");
    require(into, "into");
    const World& world = *context->rank->world;
    if (plan->plan.topology.world_size != world.world_size()) {
      refuse("the plan is for ", plan->plan.topology.world_size, " ranks, the world has ", world.world_size());
    }
    const TensorView view = view_of(*into);
    if (view.elements() > 0) require(view.data, "the tensor's data");
    generate(view, generated_of(tensor), seed, plan->plan.layout.shard(world.rank()), device_of(device), recipe);
  });
}

}  // namespace

orrery_status orrery_generate(orrery_context* context, const orrery_plan* plan, orrery_generated tensor, uint64_t seed,
                              const orrery_tensor* into, orrery_device device) {
  return generate_rows(context, plan, tensor, seed, into, device, Recipe::normal);
}

orrery_status orrery_generate_counting(orrery_context* context, const orrery_plan* plan, orrery_generated tensor,
                                       const orrery_tensor* into, orrery_device device) {
  return generate_rows(context, plan, tensor, 0, into, device, Recipe::counting);
}

float orrery_generated_value(orrery_generated tensor, uint64_t seed, int64_t batch, int64_t position, int64_t head,
                             int64_t column) {
  return generated_value(static_cast<Generated>(tensor), seed, batch, position, head, column);
}

orrery_status orrery_attention_create(orrery_context* context, const orrery_plan* plan,
                                      const orrery_attention_options* options, orrery_attention** attention) {
  if (context == nullptr) return ORRERY_INVALID;
  return guarded(ToRank{*context->rank}, [&] {
    require(attention, "attention");
    *attention = nullptr;
    require(plan, "plan");
    const AttentionOptions known = options_of(options);
    *attention = new orrery_attention{context->rank, known.device, Attention(*context->rank->world, plan->plan, known),
                                      std::nullopt};
  });
}

void orrery_attention_destroy(orrery_attention* attention) {
  delete attention;
}

const char* orrery_attention_link_name(const orrery_attention* attention) {
  return attention == nullptr ? "" : attention->attention.link_name().data();
}

const char* orrery_attention_kernels(const orrery_attention* attention, orrery_pass pass) {
  if (attention == nullptr || (pass != ORRERY_FORWARD && pass != ORRERY_BACKWARD)) return "";
  const std::string_view kernels =
      attention->attention.kernels(pass == ORRERY_FORWARD ? Pass::forward : Pass::backward);
  return kernels.empty() ? "" : kernels.data();
}

size_t orrery_attention_workspace_bytes(const orrery_attention* attention) {
  return attention == nullptr ? 0 : attention->attention.workspace_bytes();
}

size_t orrery_attention_kept_bytes(const orrery_attention* attention) {
  return attention == nullptr ? 0 : attention->attention.kept_bytes();
}

orrery_status orrery_attention_bind(orrery_attention* attention, const orrery_tensors* tensors, void* workspace,
                                    size_t workspace_bytes) {
  return bind(
      attention, [&] { return views_of(tensors); },
      [&](const AttentionTensors& views) {
        attention->attention.bind(views, memory_of(workspace, workspace_bytes, "workspace"));
      });
}

orrery_status orrery_attention_bind_kept(orrery_attention* attention, const orrery_tensors* tensors, void* workspace,
                                         size_t workspace_bytes, void* kept, size_t kept_bytes) {
  return bind(
      attention, [&] { return views_of(tensors); },
      [&](const AttentionTensors& views) {
        attention->attention.bind(views, memory_of(workspace, workspace_bytes, "workspace"),
                                  memory_of(kept, kept_bytes, "kept"));
      });
}

orrery_status orrery_attention_bind_named(orrery_attention* attention, const char* const* names,
                                          const orrery_tensor* tensors, int64_t count, void* workspace,
                                          size_t workspace_bytes, void* kept, size_t kept_bytes) {
  return bind(
      attention, [&] { return named_of(names, tensors, count); },
      [&](const std::vector<NamedTensor>& views) {
        const std::span<std::byte> scratch = memory_of(workspace, workspace_bytes, "workspace");
        if (kept == nullptr && kept_bytes == 0) return attention->attention.bind(views, scratch);
        attention->attention.bind(views, scratch, memory_of(kept, kept_bytes, "kept"));
      });
}

orrery_status orrery_attention_forward(orrery_attention* attention) {
  return on(attention, [&] { attention->attention.forward(); });
}

orrery_status orrery_attention_backward(orrery_attention* attention) {
  return on(attention, [&] { attention->attention.backward(); });
}

orrery_status orrery_attention_assume_forward(orrery_attention* attention) {
  return on(attention, [&] { attention->attention.assume_forward(); });
}

orrery_status orrery_attention_wait(orrery_attention* attention) {
  return on(attention, [&] { attention->attention.wait(); });
}

orrery_status orrery_attention_timeline(orrery_attention* attention, orrery_pass pass, orrery_timeline* timeline) {
  return on(attention, [&] {
    const Timeline t = attention->attention.timeline(pass_of(pass));
    orrery_timeline filled = ORRERY_TIMELINE_INIT;
    filled.seconds = t.seconds;
    filled.compute_seconds = t.compute_seconds;
    filled.exposed_comm_seconds = t.exposed_comm_seconds;
    write(filled, timeline, "timeline");
  });
}

int64_t orrery_attention_timeline_json(orrery_attention* attention, orrery_pass pass, char* text, size_t text_size) {
  if (attention == nullptr) return -ORRERY_INVALID;
  return guarded_number(ToRank{*attention->rank}, [&] {
    return give(to_chrome_json({attention->attention.timeline(pass_of(pass))}), text, text_size);
  });
}

orrery_status orrery_attention_verify(orrery_attention* attention, const orrery_verify_options* options,
                                      orrery_verification* verification) {
  return on(attention, [&] {
    const orrery_verify_options defaults = ORRERY_VERIFY_OPTIONS_INIT;
    const orrery_verify_options given = read(options, defaults, "options");
    require(verification, "verification");
    static_cast<void>(size_given(verification, "verification"));
    if (!attention->bound) refuse("no tensors are bound");
    attention->attention.wait();
    const Plan& plan = attention->attention.plan();
    const Verification v =
        verify(*attention->rank->world, plan, *attention->bound, given.backward != 0 && plan.options.backward,
               {given.full != 0 ? VerifyMode::full : VerifyMode::sample, given.seed, attention->device,
                given.counting != 0 ? Recipe::counting : Recipe::normal});
    orrery_verification filled = ORRERY_VERIFICATION_INIT;
    filled.rows = v.rows;
    filled.keys = v.keys;
    filled.nonfinite = v.nonfinite;
    filled.wrong = v.wrong;
    filled.exceeded = static_cast<int64_t>(v.exceeded().size());
    filled.out_rel_l2 = v.out_rel_l2;
    filled.lse_max_abs = v.lse_max_abs;
    filled.dq_rel_l2 = v.dq_rel_l2;
    filled.dk_rel_l2 = v.dk_rel_l2;
    filled.dv_rel_l2 = v.dv_rel_l2;
    filled.out_row_rms = v.out_row_rms;
    filled.lse_row_rms = v.lse_row_rms;
    filled.dq_row_rms = v.dq_row_rms;
    filled.dk_row_rms = v.dk_row_rms;
    filled.dv_row_rms = v.dv_row_rms;
    filled.out_rel_l2_limit = v.limits.out_rel_l2;
    filled.lse_max_abs_limit = v.limits.lse_max_abs;
    filled.dq_rel_l2_limit = v.limits.dq_rel_l2;
    filled.dk_rel_l2_limit = v.limits.dk_rel_l2;
    filled.dv_rel_l2_limit = v.limits.dv_rel_l2;
    filled.out_row_rms_limit = v.limits.out_row_rms;
    filled.lse_row_rms_limit = v.limits.lse_row_rms;
    filled.dq_row_rms_limit = v.limits.dq_row_rms;
    filled.dk_row_rms_limit = v.limits.dk_row_rms;
    filled.dv_row_rms_limit = v.limits.dv_row_rms;
    write(filled, verification, "verification");
    if (!v.right()) fail(ErrorCode::verification, v.complaint());
  });
}
