#!/usr/bin/env bash
# From a clean clone to exact attention on 4 MPI ranks, in one command: installs what is missing, builds the program, unpacks
# the queries, keys and values that a trained language model made of a book, and runs causal ring attention over them,
# verified against float64. Needs two cores, no GPU, and at most five minutes. Arguments are added to `orrery run`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/deps.sh

install_missing "${ORRERY_PACKAGES[@]}"
require_cmake
cmake --preset release -DORRERY_BUILD_PROGRAM=ON > /dev/null
cmake --build --preset release --target orrery_program --parallel "$(build_jobs)"
tests/data/unpack.sh build/data

# Four ranks on few cores: let the ranks that wait give way to those that compute.
mpi=(mpirun --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -n 4)
if [ "$(id -u)" -eq 0 ]; then mpi+=(--allow-run-as-root); fi
attention=(build/release/orrery run --strategy ring --mask causal
  --query build/data/kjv_q.safetensors --key build/data/kjv_k.safetensors --value build/data/kjv_v.safetensors
  --verify sample "$@")
echo "${mpi[*]} ${attention[*]}"
exec "${mpi[@]}" "${attention[@]}" < /dev/null
