#!/bin/bash
# mpirun.sh ARGS... : mpirun from the login node hd over the namespace hosts, TCP only between hosts, prompt failure.
# env: BTL (default self,vader,tcp), EXTRA (more mpirun flags), HOSTFILE
D=$(dirname "$(readlink -f "$0")"); STATE=${ORRERY_NS_STATE:-/tmp/orrery-hosts}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ORRERY_NS_STATE=$STATE
exec "$D/hosts.sh" exec hd mpirun --hostfile "${HOSTFILE:-$STATE/hostfile}" --bind-to none \
  --mca plm_rsh_agent "$D/rsh.sh" --mca plm_rsh_no_tree_spawn 1 \
  --mca oob_tcp_if_include eth0 --mca btl_tcp_if_include eth0 --mca btl "${BTL:-self,vader,tcp}" \
  --mca oob_tcp_keepalive_time 2 --mca oob_tcp_keepalive_intvl 1 --mca oob_tcp_keepalive_probes 3 \
  --mca mpi_yield_when_idle 1 -x OMPI_ALLOW_RUN_AS_ROOT -x OMPI_ALLOW_RUN_AS_ROOT_CONFIRM ${EXTRA:-} "$@"
