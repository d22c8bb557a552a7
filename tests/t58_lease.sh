#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# FT-1, the lease of a run directory: of two jobs at once the second one ends with 73, naming the first, which goes on
# undisturbed; the lease of a job that died is taken over with a message.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$*"; exit 1; }

for i in $(seq 64); do
    echo "{\"instruction\": \"say $i\", \"input\": \"\", \"output\": \"$i and $((i * 7))\"}"
done >"$dir/rows.jsonl"
cat >"$dir/r.yaml" <<END
target: {path: tests/data/decode/tiny}
sft: {data: $dir/rows.jsonl, global_batch: 2, num_train_epochs: 12, learning_rate: 0.001, max_length: 96}
END
sft() { mpirun -n "$1" "$imf" sft "$dir/r.yaml" --quiet --set run_dir="$dir/$2"; }
sft 2 whole || fail "the undisturbed run failed"

sft 2 both >"$dir/first" 2>&1 &
job=$!
for wait in $(seq 1000); do
    [ -s "$dir/both/metrics.jsonl" ] && break
    sleep 0.02
done
[ -s "$dir/both/lease" ] || fail "the first job has no lease: $(cat "$dir/first")"
owner=$(cut -d' ' -f3 "$dir/both/lease")
kill -STOP "$owner"  # or it might have ended before the second one looks
sft 1 both >"$dir/second" 2>&1
code=$?
kill -CONT "$owner"
kill -0 $job 2>/dev/null || fail "the first job ended too early: nothing was tested"
[ $code = 73 ] || fail "the second job ended with $code, 73 expected: $(cat "$dir/second")"
grep -q "$dir/both belongs to a running job .*process $owner" "$dir/second" ||
    fail "the owner is not named: $(cat "$dir/second")"
wait $job || fail "the first job was disturbed: $(cat "$dir/first")"
cmp "$dir/whole/sft/model/model.safetensors" "$dir/both/sft/model/model.safetensors" || fail "the weights differ"
ls "$dir/both" | grep -q lease && fail "a lease is left: $(ls "$dir/both")"

IMF_FAULT=step-finished:3 sft 2 dead >"$dir/out" 2>&1 && fail "the fault did not end the job"
[ -s "$dir/dead/lease" ] || fail "a killed job leaves no lease: nothing was tested"
sft 1 dead >"$dir/out" 2>&1 || fail "the lease of a dead job is not taken over: $(cat "$dir/out")"
grep -q "$dir/dead was left by job .* which is gone" "$dir/out" ||
    fail "it is taken over without a word: $(cat "$dir/out")"
cmp "$dir/whole/sft/model/model.safetensors" "$dir/dead/sft/model/model.safetensors" ||
    fail "the weights differ after the take-over"
IMF_FAULT=nowhere:1 sft 1 dead >"$dir/out" 2>&1
[ $? = 64 ] || fail "IMF_FAULT with an unknown point: $(cat "$dir/out")"
