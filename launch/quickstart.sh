#!/usr/bin/env bash
# From a clean clone to exact attention on 4 ranks, in one command: installs what is missing, builds the program, unpacks
# the queries, keys and values that a trained language model made of a book, and runs causal ring attention over them,
# verified against float64. Needs two cores and at most five minutes. Arguments are added to `orrery run`.
#   bash launch/quickstart.sh                  on CPUs: each rank is an MPI process
#   bash launch/quickstart.sh --device cuda    on the CUDA devices of this machine, however many: ranks are threads
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/deps.sh

preset=${ORRERY_PRESET:-release}
case " $* " in *" --device cuda "* | *" --device=cuda "*) preset=cuda ;; esac
configure=(cmake --preset "$preset" -DORRERY_BUILD_PROGRAM=ON)
if [ "$preset" = cuda ]; then
  require_cuda
  if ! nvidia-smi -L 2> /dev/null | grep -q '^GPU'; then
    echo "there is no CUDA device here: nvidia-smi lists none; without --device cuda the quickstart runs on CPUs" >&2
    exit 2
  fi
  # Kernels for the device present compile in a fraction of the time. A build that is there keeps its architectures.
  if [ ! -e build/cuda/CMakeCache.txt ]; then configure+=(-DCMAKE_CUDA_ARCHITECTURES=native); fi
fi

install_missing "${ORRERY_PACKAGES[@]}"
require_cmake
"${configure[@]}" > /dev/null
cmake --build --preset "$preset" --target orrery_program --parallel "$(build_jobs)"
tests/data/unpack.sh build/data

if [ "$preset" = cuda ]; then
  attention=("build/$preset/orrery" run --ranks 4)
else
  # Four ranks on few cores: let the ranks that wait give way to those that compute.
  attention=(mpirun --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -n 4)
  if [ "$(id -u)" -eq 0 ]; then attention+=(--allow-run-as-root); fi
  attention+=("build/$preset/orrery" run)
fi
attention+=(--strategy ring --mask causal
  --query build/data/kjv_q.safetensors --key build/data/kjv_k.safetensors --value build/data/kjv_v.safetensors
  --verify sample "$@")
echo "${attention[*]}"
exec "${attention[@]}" < /dev/null
