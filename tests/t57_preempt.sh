#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# FT-4: SIGUSR1 during imf sft ends all ranks with 75 and a checkpoint; run again on another number of ranks, the job goes on
# from there and leaves the weights of an undisturbed run. Checkpoints by the clock; which ones are kept; which one is taken.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$*"; exit 1; }

for i in $(seq 64); do echo "{\"instruction\": \"say $i\", \"input\": \"\", \"output\": \"$i and $((i * 7))\"}"; done >"$dir/rows.jsonl"
cat >"$dir/r.yaml" <<END
target: {path: tests/data/decode/tiny}
sft: {data: $dir/rows.jsonl, global_batch: 2, num_train_epochs: 12, learning_rate: 0.001, max_length: 96}
END
mpirun -n 1 "$imf" sft "$dir/r.yaml" --quiet --set run_dir="$dir/whole" || fail "the undisturbed run failed"

steps=$dir/cut/metrics.jsonl
mpirun -n 2 "$imf" sft "$dir/r.yaml" --quiet --set run_dir="$dir/cut" >"$dir/out" 2>&1 &
job=$!
for wait in $(seq 400); do
    [ "$(grep -c '"loss"' "$steps" 2>/dev/null || true)" -gt 3 ] 2>/dev/null && break
    sleep 0.05
done
kill -USR1 $job
wait $job
code=$?
[ "$code" = 75 ] || fail "exit code $code after SIGUSR1, 75 expected: $(cat "$dir/out")"
[ -e "$dir/cut/sft/model" ] && fail "the run ended before the signal: nothing was tested"
ls "$dir/cut/sft" | grep -q '^step_[0-9]*$' || fail "no checkpoint: $(ls "$dir/cut/sft")"
mpirun -n 3 "$imf" sft "$dir/r.yaml" --quiet --set run_dir="$dir/cut" || fail "the second run failed"
cmp "$dir/whole/sft/model/model.safetensors" "$dir/cut/sft/model/model.safetensors" || fail "the weights differ"

# By the clock, on all ranks after the same step; the newest and every sixth stay.
launch() { mpirun -n 2 "$imf" sft "$dir/r.yaml" --quiet --set run_dir="$dir/clock" --set sft.save_seconds=1 "$@" >"$dir/out" 2>&1; }
(launch --set sft.num_train_epochs=100000) &
job=$!
for wait in $(seq 600); do
    ls "$dir/clock/sft" 2>/dev/null | grep -q '^step_[0-9]*$' && break
    sleep 0.1
done
ls "$dir/clock/sft" | grep -q '^step_[0-9]*$' || fail "no checkpoint after save_seconds: $(cat "$dir/out")"
kill -USR1 $(pgrep -P "$(pgrep -P $job -f mpirun | head -n 1)" | head -n 1)  # one rank's signal
wait $job
code=$?
[ $code = 75 ] || fail "exit code $code after SIGUSR1 to one rank, 75 expected: $(cat "$dir/out")"
rm -r "$dir/clock"
launch --set sft.max_steps=14 --set sft.save_steps=2 --set sft.save_seconds=0 --set sft.save_total_limit=1 --set sft.save_keep_every=6 ||
    fail "keep: $(cat "$dir/out")"
kept=$(ls "$dir/clock/sft" | sed -n 's/^step_0*//p' | tr '\n' ' ')
[ "$kept" = "6 12 14 " ] || fail "kept '$kept', not 6, 12 and 14"

# A damaged newest checkpoint: the one before is taken, and the log says which and why.
rm -r "$dir/clock/sft/done.json" "$dir/clock/sft/model"
printf x | dd of="$dir/clock/sft/step_000000014/shard-000.nc" bs=1 seek=9000 conv=notrunc status=none
mpirun -n 2 "$imf" sft "$dir/r.yaml" --set run_dir="$dir/clock" --set sft.max_steps=14 >"$dir/out" 2>&1 || fail "$(cat "$dir/out")"
grep -q 'step 14 is skipped: .*step_000000014/shard-000.nc.*damaged: ' "$dir/out" && grep -q 'resumed from step 12 of 14: .*step_000000012' "$dir/out" ||
    fail "which checkpoint, and why? $(cat "$dir/out")"
