#!/usr/bin/env bash
# mpi_failure.sh MPIRUN PROGRAM CASE RANKS EXIT_CODE SECONDS PATTERN
# A job that goes wrong must end by itself within SECONDS, with EXIT_CODE, saying PATTERN (as grep -E reads it), and
# leave no process behind.
set -u
mpirun=$1 program=$2 case=$3 ranks=$4 expected=$5 seconds=$6 pattern=$7
# A copy under a name of its own makes the processes of this job easy to tell from others.
folder=$(mktemp -d)
output=$folder/output
trap 'rm -rf "$folder"' EXIT
cp "$program" "$folder/ranks"

begin=$(date +%s%3N)
timeout -k 2 40 "$mpirun" --allow-run-as-root --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -n "$ranks" \
  "$folder/ranks" "$case" >"$output" 2>&1
code=$?
took=$(($(date +%s%3N) - begin))  # milliseconds
cat "$output"
echo "-- exit code $code after $took ms"

[ "$code" = 77 ] && exit 77  # skipped, by all ranks together

failed=0
complain() { echo "-- $1"; failed=1; }
[ "$code" = "$expected" ] || complain "expected exit code $expected"
[ "$took" -le $((seconds * 1000)) ] || complain "expected an end within $seconds s"
grep -qE -- "$pattern" "$output" || complain "expected: $pattern"
left=""
for _ in 1 2 3 4 5 6 7 8 9 10; do
  # Zombies have ended; they wait only for somebody to take note.
  left=$(for pid in $(pgrep -f "$folder/ranks"); do ps -o pid=,stat=,args= -p "$pid"; done |
    awk '$2 !~ /^Z/ && /ranks/')
  [ -z "$left" ] && break
  sleep 0.2
done
[ -z "$left" ] || complain "still running: $left"
exit $failed
