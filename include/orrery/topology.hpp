// Topology: how many ranks there are, on which nodes they sit, and what their links can carry.
#pragma once

#include <string>
#include <vector>

namespace orrery {

struct LinkRate {
  double bytes_per_second = 0;  // 0: not known
  double latency_seconds = 0;
};

struct Topology {
  int world_size = 1;
  std::vector<int> node_of_rank;        // size world_size
  LinkRate inside_node, between_nodes;  // of a rank, one way
  bool one_device = false;              // that all ranks share; their kernels then fill each other's gaps

  static Topology single_node(int world_size);
  // Nodes of `ranks_per_node` consecutive ranks; the last one may be smaller.
  static Topology uniform(int world_size, int ranks_per_node);
  // From one host name a rank: equal names are one node.
  static Topology from_hosts(const std::vector<std::string>& host_of_rank);

  int nodes() const;
  // The links that carry the slowest of a world's transfers.
  const LinkRate& slowest_link() const { return nodes() > 1 ? between_nodes : inside_node; }
  // Throws ErrorCode::invalid: world_size < 1, node_of_rank of another size, or a rate that is none.
  void validate() const;
};

}  // namespace orrery
