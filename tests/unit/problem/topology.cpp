#include "orrery/topology.hpp"

#include "orrery/error.hpp"
#include "support/catch.hpp"

namespace orrery::test {

TEST_CASE("a topology says on which node each rank sits") {
  CHECK(Topology::single_node(3).node_of_rank == std::vector<int>{0, 0, 0});
  CHECK(Topology::single_node(3).nodes() == 1);
  CHECK(Topology::uniform(5, 2).node_of_rank == std::vector<int>{0, 0, 1, 1, 2});
  CHECK(Topology::uniform(5, 2).nodes() == 3);
  CHECK(Topology::uniform(2, 8).nodes() == 1);
  const Topology hosts = Topology::from_hosts({"b", "a", "b", "c"});
  CHECK(hosts.world_size == 4);
  CHECK(hosts.node_of_rank == std::vector<int>{0, 1, 0, 2});
  CHECK(hosts.nodes() == 3);
}

TEST_CASE("topologies without ranks, or with nodes for other ranks, are refused") {
  CHECK_THROWS_WITH(Topology::single_node(0), ContainsSubstring("0 ranks"));
  CHECK_THROWS_WITH(Topology::uniform(4, 0), ContainsSubstring("0 on a node"));
  CHECK_THROWS_WITH(Topology::from_hosts({}), ContainsSubstring("0 ranks"));
  Topology topology = Topology::single_node(4);
  CHECK_NOTHROW(topology.validate());
  topology.node_of_rank.pop_back();
  CHECK_THROWS_WITH(topology.validate(), ContainsSubstring("for 3 ranks, but there are 4"));
  topology.world_size = -1;
  CHECK_THROWS_WITH(topology.validate(), ContainsSubstring("-1 ranks"));
}

}  // namespace orrery::test
