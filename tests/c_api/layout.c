/* Prints where the fields of the structures lie, "structure field offset size" a line, for whoever describes them again
 * in another language. */
#include <orrery/orrery.h>
#include <stdio.h>

#define FIELD(type, field) printf("%s %s %zu %zu\n", #type, #field, offsetof(type, field), sizeof(((type*)0)->field))
#define WHOLE(type) printf("%s - 0 %zu\n", #type, sizeof(type))

int main(void) {
  WHOLE(orrery_device);
  FIELD(orrery_device, kind);
  FIELD(orrery_device, index);
  WHOLE(orrery_device_info);
  FIELD(orrery_device_info, name);
  FIELD(orrery_device_info, compute_capability);
  FIELD(orrery_device_info, multiprocessors);
  FIELD(orrery_device_info, memory_bytes);
  FIELD(orrery_device_info, l2_bytes);
  WHOLE(orrery_context_options);
  FIELD(orrery_context_options, timeout_seconds);
  FIELD(orrery_context_options, device_link);
  WHOLE(orrery_problem);
  FIELD(orrery_problem, batch);
  FIELD(orrery_problem, seq_len);
  FIELD(orrery_problem, heads);
  FIELD(orrery_problem, kv_heads);
  FIELD(orrery_problem, head_dim);
  FIELD(orrery_problem, dtype);
  FIELD(orrery_problem, mask);
  FIELD(orrery_problem, scale);
  WHOLE(orrery_plan_options);
  FIELD(orrery_plan_options, layout);
  FIELD(orrery_plan_options, strategy);
  FIELD(orrery_plan_options, backward);
  FIELD(orrery_plan_options, keep_key_value);
  FIELD(orrery_plan_options, keys_per_step);
  FIELD(orrery_plan_options, backward_keys_per_step);
  FIELD(orrery_plan_options, link_bytes_per_second);
  WHOLE(orrery_cost);
  FIELD(orrery_cost, steps);
  FIELD(orrery_cost, rounds);
  FIELD(orrery_cost, bytes_sent);
  FIELD(orrery_cost, bytes_received);
  FIELD(orrery_cost, pairs);
  FIELD(orrery_cost, workspace_bytes);
  FIELD(orrery_cost, kept_bytes);
  FIELD(orrery_cost, flops);
  WHOLE(orrery_tensor);
  FIELD(orrery_tensor, data);
  FIELD(orrery_tensor, dtype);
  FIELD(orrery_tensor, batch);
  FIELD(orrery_tensor, tokens);
  FIELD(orrery_tensor, heads);
  FIELD(orrery_tensor, width);
  FIELD(orrery_tensor, batch_stride);
  FIELD(orrery_tensor, token_stride);
  FIELD(orrery_tensor, head_stride);
  WHOLE(orrery_tensors);
  FIELD(orrery_tensors, query);
  FIELD(orrery_tensors, key);
  FIELD(orrery_tensors, value);
  FIELD(orrery_tensors, out);
  FIELD(orrery_tensors, lse);
  FIELD(orrery_tensors, grad_out);
  FIELD(orrery_tensors, grad_query);
  FIELD(orrery_tensors, grad_key);
  FIELD(orrery_tensors, grad_value);
  WHOLE(orrery_attention_options);
  FIELD(orrery_attention_options, threads);
  FIELD(orrery_attention_options, record_steps);
  FIELD(orrery_attention_options, device);
  FIELD(orrery_attention_options, use_stream);
  FIELD(orrery_attention_options, deterministic);
  FIELD(orrery_attention_options, stream);
  FIELD(orrery_attention_options, sm_margin);
  FIELD(orrery_attention_options, portable_kernels);
  WHOLE(orrery_timeline);
  FIELD(orrery_timeline, seconds);
  FIELD(orrery_timeline, compute_seconds);
  FIELD(orrery_timeline, exposed_comm_seconds);
  WHOLE(orrery_verify_options);
  FIELD(orrery_verify_options, full);
  FIELD(orrery_verify_options, backward);
  FIELD(orrery_verify_options, seed);
  WHOLE(orrery_verification);
  FIELD(orrery_verification, rows);
  FIELD(orrery_verification, wrong);
  FIELD(orrery_verification, out_rel_l2);
  FIELD(orrery_verification, lse_max_abs);
  FIELD(orrery_verification, dq_rel_l2);
  FIELD(orrery_verification, dk_rel_l2);
  FIELD(orrery_verification, dv_rel_l2);
  return 0;
}
