#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Ranks that wait for a rank that fails, on hostcuda's NCCL: all end within seconds, with that rank's error and code. First the calls of src/par
# alone, on one node and on two; then imf sft, whose rank 0 or 1 fails in the middle of a step.
set -u
. tests/hostcuda/lib.sh
. tests/lib/mpi.sh
for case in waits sits leaves goes_on breaks blames; do
    timeout 60 mpirun -n 2 "$1/tests/hostcuda/watch" $case >"$dir/out" 2>&1 || fail "$case: exit $?: $(cat "$dir/out")"
done
for case in waits leaves goes_on blames; do  # each rank is a node: no memory is shared
    IMF_NODES=2 timeout 60 mpirun -n 2 "$1/tests/hostcuda/watch" $case >"$dir/out" 2>&1 || fail "$case, 2 nodes: exit $?: $(cat "$dir/out")"
done

awk 'BEGIN { for (i = 0; i < 12; i++) printf "{\"prompt\":\"what is %d plus 3?\",\"chosen\":\"it is %d, I say\"}\n", i, i + 3 }' >"$dir/rows.jsonl"
cat >"$dir/r.yaml" <<EOF
dtype: bfloat16
device: cuda
target: {path: input/demo/novice}
sft: {data: $dir/rows.jsonl, global_batch: 4, max_steps: 3, max_length: 64, grad_chains: 4, row_tokens: 32}
EOF
for how in 1:grads:1 0:grads:1 1:states:1 1:grads:2; do
    rank=${how%%:*} shard=${how#*:} shard=${shard%:*} nodes=${how##*:}
    IMF_NODES=$nodes IMF_FAULT=row-fails:3:$rank@sft timeout 120 mpirun -n 2 "$1/hostcuda/imf" sft "$dir/r.yaml" --quiet --set run_dir="$dir/$how" --set shard=$shard >"$dir/out" 2>&1
    code=$?
    [ $code = 65 ] || fail "$how: exit $code: $(cat "$dir/out")"
    [ "$(grep -c 'imf: error' "$dir/out")" = 1 ] && grep -q "error 65 .*a row of rank $rank has failed" "$dir/out" || fail "$how: $(cat "$dir/out")"
done
