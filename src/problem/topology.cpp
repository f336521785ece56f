#include "orrery/topology.hpp"

#include <map>
#include <set>

#include "orrery/error.hpp"

namespace orrery {

Topology Topology::single_node(int world_size) {
  return uniform(world_size, world_size);
}

Topology Topology::uniform(int world_size, int ranks_per_node) {
  if (world_size < 1 || ranks_per_node < 1) {
    refuse("topology: ", world_size, " ranks, ", ranks_per_node, " on a node: at least 1 of each is needed");
  }
  Topology topology;
  topology.world_size = world_size;
  for (int rank = 0; rank < world_size; ++rank) topology.node_of_rank.push_back(rank / ranks_per_node);
  return topology;
}

Topology Topology::from_hosts(const std::vector<std::string>& host_of_rank) {
  Topology topology;
  topology.world_size = static_cast<int>(host_of_rank.size());
  std::map<std::string, int> node_of_host;  // nodes are numbered in the order in which ranks meet them
  for (const std::string& host : host_of_rank) {
    const int next = static_cast<int>(node_of_host.size());
    topology.node_of_rank.push_back(node_of_host.try_emplace(host, next).first->second);
  }
  topology.validate();
  return topology;
}

int Topology::nodes() const {
  return static_cast<int>(std::set<int>(node_of_rank.begin(), node_of_rank.end()).size());
}

void Topology::validate() const {
  if (world_size < 1) refuse("topology: ", world_size, " ranks: at least 1 is needed");
  if (node_of_rank.size() != static_cast<std::size_t>(world_size)) {
    refuse("topology: nodes are given for ", node_of_rank.size(), " ranks, but there are ", world_size);
  }
  constexpr double kMostBytes = 1e18;
  for (const LinkRate& link : {inside_node, between_nodes}) {
    if (link.bytes_per_second >= 0 && link.bytes_per_second <= kMostBytes) continue;
    refuse("topology: a link of ", link.bytes_per_second, " bytes a second");
  }
}

}  // namespace orrery
