#!/usr/bin/env bash
# Sourced by quickstart.sh, test.sh and .ci/run: installs by apt what is missing of the packages named, with sudo when not
# root. A machine that has everything needs neither the network nor root. Run by itself, it installs all of them.

# What building, running and testing need, by the names that Debian and Ubuntu share.
ORRERY_PACKAGES=(g++ cmake ninja-build openmpi-bin libopenmpi-dev libboost-program-options-dev libhwy-dev
  nlohmann-json3-dev catch2 xz-utils python3)
# What .ci/run needs beside them.
ORRERY_LINT_PACKAGES=(clang-format clang-tidy shellcheck clang libclang-rt-dev)

# The command that shows that a package is not needed, because its tool is there from another source.
tool_of() {
  case "$1" in
    ninja-build) echo ninja ;;
    xz-utils) echo xz ;;
    g++ | cmake | python3 | clang-format | clang-tidy | clang | shellcheck) echo "$1" ;;
    *) echo "" ;;
  esac
}

is_installed() {
  local tool
  tool=$(tool_of "$1")
  if [ -n "$tool" ] && command -v "$tool" > /dev/null; then return 0; fi
  dpkg -s "$1" 2> /dev/null | grep -q '^Status: install ok installed'
}

# install_missing PACKAGE...
install_missing() {
  if ! command -v apt-get > /dev/null; then
    echo "this is not a Debian or Ubuntu machine; make sure that it has what these packages hold: $*" >&2
    return 0
  fi
  local package missing=()
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  if [ ${#missing[@]} -eq 0 ]; then return 0; fi
  local as_root=(env DEBIAN_FRONTEND=noninteractive)
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo > /dev/null; then
      echo "missing packages: ${missing[*]}; install them as root, for here there is no sudo" >&2
      return 2
    fi
    as_root=(sudo "${as_root[@]}")
  fi
  echo "installing ${missing[*]}"
  # A stale package list is the usual reason for a failure, and updating it is slow: try first what is there.
  local install=("${as_root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}")
  if ! "${install[@]}" < /dev/null > /dev/null 2>&1; then
    "${as_root[@]}" apt-get update -q < /dev/null > /dev/null
    "${install[@]}" < /dev/null > /dev/null
  fi
}

# Distributions before Debian 12 and Ubuntu 24.04 install, but are too old to build with; say so before CMake does.
require_cmake() {
  local have
  have=$(cmake --version | sed -n '1s/[^0-9]*\([0-9.]*\).*/\1/p')
  if [ "$(printf '%s\n' 3.25 "$have" | sort -V | head -1)" != 3.25 ]; then
    echo "CMake $have is too old: 3.25 or newer is needed (Debian 12, Ubuntu 24.04, or cmake from PyPI)" >&2
    return 2
  fi
}

# The CUDA compiler that CMake will take: the one that CUDACXX names, else one of the usual two.
cuda_compiler() {
  if [ -n "${CUDACXX:-}" ]; then
    command -v "$CUDACXX"
  elif [ -x /usr/local/cuda/bin/nvcc ]; then
    echo /usr/local/cuda/bin/nvcc
  else
    command -v nvcc
  fi
}

# The preset cuda cannot be built without a CUDA toolkit, which apt does not have: say so before anything is installed.
require_cuda() {
  local have compiler
  if ! compiler=$(cuda_compiler); then
    echo "the preset cuda needs a CUDA compiler, and ${CUDACXX:-nvcc} is not here: install CUDA 12.4 or newer" \
      "(https://developer.nvidia.com/cuda-downloads), or set CUDACXX to its nvcc" >&2
    return 2
  fi
  have=$("$compiler" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
  if [ "$(printf '%s\n' 12.4 "$have" | sort -V | head -1)" != 12.4 ]; then
    echo "$compiler is of CUDA ${have:-?}: 12.4 or newer is needed" >&2
    return 2
  fi
}

# Compiler runs that fit beside each other: one a core, and no more than memory allows at 1.5 GB each.
build_jobs() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/MemAvailable/ { print int($2 / 1500000) }' /proc/meminfo)
  if [ "$memory" -lt 1 ]; then memory=1; fi
  if [ "$cores" -lt "$memory" ]; then echo "$cores"; else echo "$memory"; fi
}

# With ccache, a second build of the same sources takes seconds.
if command -v ccache > /dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER:-ccache}
  export CMAKE_CUDA_COMPILER_LAUNCHER=${CMAKE_CUDA_COMPILER_LAUNCHER:-ccache}
fi

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  set -euo pipefail
  install_missing "${ORRERY_PACKAGES[@]}" "${ORRERY_LINT_PACKAGES[@]}"
  require_cmake
fi
