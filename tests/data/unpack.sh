#!/bin/sh
# Unpacks the test tensors into a folder, build/data unless another is named, and verifies them. Needs xz and a C++20 compiler
# (CXX, or c++). Does nothing when they are there already.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
into=${1:-$here/../../build/data}
mkdir -p "$into"
into=$(cd "$into" && pwd)
if (cd "$into" && sha256sum --check --status "$here/SHA256SUMS" 2>/dev/null); then
  exit 0
fi
work=$(mktemp -d "$into/unpack.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
${CXX:-c++} -std=c++20 -O3 -o "$work/unpack" "$here/unpack.cpp"
xz --decompress --stdout "$here/kjv_qkv.xz" > "$work/packed"
"$work/unpack" "$work" < "$work/packed"
(cd "$work" && sha256sum --check --quiet "$here/SHA256SUMS") || {
  echo "unpack.sh: the unpacked tensors are not those that were packed" >&2
  exit 1
}
# Each file appears whole, also when two builds unpack at once.
mv "$work"/kjv_*.safetensors "$into/"
