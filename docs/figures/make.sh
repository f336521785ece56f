#!/usr/bin/env bash
# Draws the figures of the pages from real runs of build/release/orrery: bash docs/figures/make.sh
# Of several runs the fastest is kept, for on a busy machine ranks wait for cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

run=(build/release/orrery trace --ranks 4 --seq-len 4096 --heads 4 --kv-heads 2 --mask causal)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
best=""
for i in 1 2 3 4 5 6 7 8; do
  seconds=$("${run[@]}" --out "$folder/$i.svg" --json - |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["measured"]["forward_seconds"]["median"])')
  best=$(printf '%s %s\n%s\n' "$seconds" "$i" "$best" | sed '/^$/d' | sort -g | head -1)
done
cp "$folder/${best#* }.svg" docs/figures/ring.svg
echo "docs/figures/ring.svg: ${run[*]}, ${best% *} s"
