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

void check_shape(const Port& port, const TensorView& t) {
  const auto shape = [](auto b, auto n, auto h, auto w) { return concat("[", b, ", ", n, ", ", h, ", ", w, "]"); };
  if (t.batch != port.batch || t.tokens != port.tokens || t.heads != port.heads || t.width != port.width) {
    refuse(port.name, " is ", shape(t.batch, t.tokens, t.heads, t.width), "; this rank's shard is ",
           shape(port.batch, port.tokens, port.heads, port.width));
  }
  if (t.dtype != port.dtype) refuse(port.name, " is ", to_string(t.dtype), "; the plan takes ", to_string(port.dtype));
  if (t.elements() > 0 && t.data == nullptr) refuse(port.name, " has no data");
  if (t.elements() > 0 && (t.batch_stride < 0 || t.token_stride < 0 || t.head_stride < 0)) {
    refuse(port.name, " has a negative stride");
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

std::string names(std::span<const Port> ports) {
  std::string list;
  for (const Port& port : ports) list += (list.empty() ? "" : ", ") + port.name;
  return list;
}

}  // namespace

std::vector<TensorView> by_port(std::span<const Port> ports, std::span<const NamedTensor> tensors) {
  std::vector<TensorView> list(ports.size());
  std::vector<bool> given(ports.size());
  for (const NamedTensor& one : tensors) {
    const auto port = std::find_if(ports.begin(), ports.end(), [&](const Port& p) { return p.name == one.name; });
    if (port == ports.end()) refuse("this plan has no tensor ", one.name, "; it has ", names(ports));
    const auto i = static_cast<std::size_t>(port - ports.begin());
    if (given[i]) refuse(one.name, " is bound twice");
    given[i] = true;
    list[i] = one.tensor;
  }
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (!given[i]) refuse(ports[i].name, " is not bound; this plan has ", names(ports));
  }
  return list;
}

std::vector<TensorView> by_port(std::span<const Port> ports, const AttentionTensors& tensors) {
  std::vector<TensorView> list;
  list.reserve(ports.size());
  for (const Port& port : ports) {
    const auto* field = std::find_if(std::begin(kTensorFields), std::end(kTensorFields),
                                     [&](const TensorField& f) { return f.port == port.name; });
    if (field == std::end(kTensorFields)) refuse(port.name, " is none of the nine tensors of attention; bind by name");
    list.push_back(tensors.*field->tensor);
  }
  return list;
}

AttentionTensors attention_tensors(std::span<const NamedTensor> tensors) {
  AttentionTensors structure;
  for (const NamedTensor& one : tensors) {
    for (const TensorField& field : kTensorFields) {
      if (field.port == one.name) structure.*field.tensor = one.tensor;
    }
  }
  return structure;
}

void check_tensors(std::span<const Port> ports, std::span<const TensorView> tensors,
                   std::span<const NamedMemory> memory, Device device, const ComputeDevice& compute) {
  std::vector<Named> all;
  for (std::size_t i = 0; i < ports.size(); ++i) {
    const TensorView& tensor = tensors[i];
    check_shape(ports[i], tensor);
    if (tensor.elements() > 0) check_place(ports[i].name, tensor.data, device);
    const std::string reason = compute.refuses(tensor);
    if (!reason.empty()) refuse(ports[i].name, ": ", reason);
    all.push_back({ports[i].name, tensor, ports[i].written()});
  }
  for (const NamedMemory& one : memory) {
    if (one.bytes.empty()) continue;
    check_place(one.name, one.bytes.data(), device);
    all.push_back({one.name, bytes_view(one.bytes), true});
  }
  check_overlaps(all);
}

}  // namespace orrery
