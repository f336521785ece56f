#include "attention/tensors.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "core/ledger.hpp"
#include "core/overlap.hpp"
#include "device/placement.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

struct Named {
  std::string_view name;
  TensorView tensor;
  bool written;
};

void check_shape(std::string_view name, const TensorView& t, const Buffer& buffer, const Component& c,
                 std::int64_t batch) {
  const auto shape = [](auto b, auto n, auto h, auto w) { return concat("[", b, ", ", n, ", ", h, ", ", w, "]"); };
  if (t.batch != batch || t.tokens != buffer.tokens || t.heads != buffer.heads || t.width != c.width) {
    refuse(name, " is ", shape(t.batch, t.tokens, t.heads, t.width), "; this rank's shard is ",
           shape(batch, buffer.tokens, buffer.heads, c.width));
  }
  if (t.dtype != c.dtype) refuse(name, " is ", to_string(t.dtype), "; the plan takes ", to_string(c.dtype));
  if (t.elements() > 0 && t.data == nullptr) refuse(name, " has no data");
  if (t.elements() > 0 && (t.batch_stride < 0 || t.token_stride < 0 || t.head_stride < 0)) {
    refuse(name, " has a negative stride");
  }
}

void check_place(std::string_view name, const void* data, Device device) {
  const std::string reason = device::misplaced(data, device);
  if (!reason.empty()) refuse(name, " ", reason);
}

void check_overlaps(const std::vector<Named>& all) {
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Named& one = all[i];
    if (one.written && overlaps_itself(one.tensor)) {
      refuse(one.name, " is written, but its strides (", one.tensor.batch_stride, ", ", one.tensor.token_stride, ", ",
             one.tensor.head_stride, ") put several of its rows into the same memory");
    }
    for (std::size_t j = 0; j < i; ++j) {
      const Named& other = all[j];
      if ((one.written || other.written) && overlap(one.tensor, other.tensor)) {
        refuse(other.name, " and ", one.name, " share memory, and ", other.written ? other.name : one.name,
               " is written");
      }
    }
  }
}

}  // namespace

BufferMemory callers(const Buffer& buffer, const AttentionTensors& t) {
  switch (buffer.kind) {
    case BufferKind::query:
      return {t.query};
    case BufferKind::key_value:
      return {t.key, t.value};
    case BufferKind::output:
      return {t.out, t.lse};
    case BufferKind::grad_output:
      return {t.grad_out};
    case BufferKind::grad_query:
      return {t.grad_query};
    case BufferKind::grad_key_value:
      return {t.grad_key, t.grad_value};
    default:
      fail(ErrorCode::bug, "no tensor of the caller's is a ", to_string(buffer.kind));
  }
}

void check_tensors(const AttentionProblem& problem, std::span<const RankProgram* const> programs,
                   const AttentionTensors& tensors, std::span<const NamedMemory> memory, Device device,
                   const ComputeDevice& compute) {
  std::vector<Named> all;
  for (const RankProgram* program : programs) {
    for (const Buffer& buffer : program->buffers) {
      if (buffer.role != BufferRole::input && buffer.role != BufferRole::output) continue;
      const BufferMemory given = callers(buffer, tensors);
      const auto parts = components(buffer);
      for (std::size_t c = 0; c < parts.size(); ++c) {
        const std::string_view name = parts[c].name;
        const bool written = buffer.role == BufferRole::output;
        const auto known = std::find_if(all.begin(), all.end(), [=](const Named& one) { return one.name == name; });
        if (known != all.end()) {  // of another program: the output of one pass is an input of the other
          known->written = known->written || written;
          continue;
        }
        const TensorView& tensor = given[c];
        check_shape(name, tensor, buffer, parts[c], problem.batch);
        if (tensor.elements() > 0) check_place(name, tensor.data, device);
        const std::string reason = compute.refuses(tensor);
        if (!reason.empty()) refuse(name, ": ", reason);
        all.push_back({name, tensor, written});
      }
    }
  }
  for (const NamedMemory& one : memory) {
    if (one.bytes.empty()) continue;
    check_place(one.name, one.bytes.data(), device);
    all.push_back({one.name, bytes_view(one.bytes), true});
  }
  check_overlaps(all);
}

}  // namespace orrery
