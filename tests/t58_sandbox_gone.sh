#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# FT-1 for the code judge: a rank of imf verify is killed while candidate programs run; supervisors, servers and candidates of all
# ranks are gone within 30 s.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$*"; cat "$dir/out"; exit 1; }
for i in $(seq 12); do
    printf '{"prompt":"loop %d","kind":"code","tests":["assert f(1) == 1"],"source":"s","answer":"```python\\ndef f(n):\\n    while n: n = n + %d\\n```"}\n' $i $i
done >"$dir/rows.jsonl"
printf 'run_dir: %s/run\nsamples: {path: %s/rows.jsonl}\nverify: {cpu_s: 20}\n' "$dir" "$dir" >"$dir/r.yaml"
mpirun -n 3 "$imf" verify "$dir/r.yaml" --quiet >"$dir/out" 2>&1 &
job=$!
below() { for child in $(pgrep -P "$1"); do echo "$child"; below "$child"; done; }
busy() {  # a candidate is at work: a server of each rank has children of its own
    all=$(below $job)
    [ "$(echo $all | wc -w)" -ge 15 ]
}
for wait in $(seq 200); do busy && break; kill -0 $job 2>/dev/null || break; sleep 0.1; done
if ! busy; then
    wait $job
    [ $? = 69 ] && { echo "this machine has no code sandbox"; exit 77; }
    fail "no candidates: $all"
fi
kill -9 "$(awk 'NR > 1 && $1 == 1 { print $3 }' "$dir/run/lease.world")"
wait $job
code=$?
[ $code != 0 ] && [ $code != 75 ] || fail "exit code $code after kill -9"
for wait in $(seq 60); do
    left=
    for pid in $all; do ! grep -q '^State:.*[RSDT] ' "/proc/$pid/status" 2>/dev/null || left="$left $pid"; done
    [ -z "$left" ] && exit 0
    sleep 0.5
done
found=$(ps -o pid,ppid,comm -p "$(echo $left | tr ' ' ',')")
kill -9 $left
fail "left over: $found"
