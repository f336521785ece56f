#include "orrery/ports.hpp"

#include <algorithm>

#include "orrery/error.hpp"

namespace orrery {

std::string port_name(const Buffer& buffer, const Component& component) {
  const std::string_view kind = to_string(buffer.kind), name = buffer.name;
  if (!name.starts_with(kind)) return concat(name, ".", component.name);
  return concat(component.name, name.substr(kind.size()));
}

std::vector<Port> ports(const AttentionProblem& problem, std::span<const RankProgram* const> programs) {
  std::vector<Port> list;
  for (const RankProgram* program : programs) {
    for (const Buffer& buffer : program->buffers) {
      if (buffer.role != BufferRole::input && buffer.role != BufferRole::output) continue;
      for (const Component& c : components(buffer)) {
        Port port{.name = port_name(buffer, c),
                  .dtype = c.dtype,
                  .batch = problem.batch,
                  .tokens = buffer.tokens,
                  .heads = buffer.heads,
                  .width = c.width};
        auto known = std::find_if(list.begin(), list.end(), [&](const Port& p) { return p.name == port.name; });
        if (known == list.end()) known = list.insert(list.end(), port);
        const bool same = known->dtype == port.dtype && known->tokens == port.tokens && known->heads == port.heads &&
                          known->width == port.width;
        PortUse& use = program->pass == Pass::forward ? known->forward : known->backward;
        ORRERY_CHECK(same && use == PortUse::none, "two buffers of rank ", program->rank, " are the port ", port.name);
        use = buffer.role == BufferRole::input ? PortUse::input : PortUse::output;
      }
    }
  }
  return list;
}

}  // namespace orrery
