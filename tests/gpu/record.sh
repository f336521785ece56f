#!/usr/bin/env bash
# On a machine with a GPU: builds the preset cuda, runs tests and benches, writes tests/gpu/record.json, and renews the
# tables of the pages that are made from it. Arguments go to record.py: `bash tests/gpu/record.sh --only tests,compare`.
# Installs nothing, and needs no network.
#   ORRERY_RECORD_NATIVE=1    machine code for the device present only, which builds faster; else for all that the build
#                             names by default
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. launch/deps.sh

require_cmake
architectures=(-UCMAKE_CUDA_ARCHITECTURES)
if [ "${ORRERY_RECORD_NATIVE:-0}" = 1 ]; then architectures=(-DCMAKE_CUDA_ARCHITECTURES=native); fi
cmake --preset cuda "${architectures[@]}" -DORRERY_BUILD_PROGRAM=ON -DORRERY_BUILD_TESTS=ON > /dev/null
cmake --build --preset cuda --parallel "$(build_jobs)"
code=0
python3 tests/gpu/record.py "$@" < /dev/null || code=$?
python3 tests/docs/record_tables.py
exit "$code"
