#!/usr/bin/env bash
# Installs what is missing, builds everything and runs the tests. Arguments go to ctest: `launch/test.sh -L unit`. The preset
# is release, or what ORRERY_PRESET names. A run that finds no test fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/deps.sh

preset=${ORRERY_PRESET:-release}
if [ "$preset" = cuda ]; then require_cuda; fi
install_missing "${ORRERY_PACKAGES[@]}"
require_cmake
cmake --preset "$preset" -DORRERY_BUILD_PROGRAM=ON -DORRERY_BUILD_TESTS=ON > /dev/null
cmake --build --preset "$preset" --parallel "$(build_jobs)"
tests/data/unpack.sh build/data
exec ctest --preset "$preset" --no-tests=error "$@" < /dev/null
