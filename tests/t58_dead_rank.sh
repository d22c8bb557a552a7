#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# FT-1: one rank of three is killed; the launcher ends the job within 30 s with a code of its own, the next start names rank, host
# and stage, and goes on. A job that is ended from outside (SIGTERM) blames nobody. FT-7: three starts that end in the same step
# are followed by exit 70 with a report.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$*"; cat "$dir/out"; exit 1; }
for i in $(seq 64); do echo "{\"instruction\": \"say $i\", \"input\": \"\", \"output\": \"$i and $((i * 7))\"}"; done >"$dir/rows.jsonl"
cat >"$dir/r.yaml" <<END
run_dir: $dir/run
target: {path: tests/data/decode/tiny}
sft: {data: $dir/rows.jsonl, global_batch: 2, num_train_epochs: 9000, learning_rate: 0.001, max_length: 96, save_steps: 50}
END
begin() {  # starts the job and waits until it has computed some steps
    rm -f "$dir/run/metrics.jsonl"
    mpirun -n 3 "$imf" sft "$dir/r.yaml" --quiet >"$dir/out" 2>&1 &
    job=$!
    for wait in $(seq 600); do [ "$(grep -c loss "$dir/run/metrics.jsonl" 2>/dev/null)" -gt 60 ] 2>/dev/null && return; sleep 0.05; done
    fail "no steps"
}
gone() {  # all ranks of the world file within 30 s; wait for the launcher has the code
    wait $job
    code=$?
    for wait in $(seq 60); do
        living=
        for pid in $pids; do
            ! grep -q '^State:.*[RSD] ' "/proc/$pid/status" 2>/dev/null || living=$living$pid
        done
        [ -z "$living" ] && return
        sleep 0.5
    done
    fail "processes $living live on"
}
for rank in 1 0; do
    begin
    pids=$(awk 'NR > 1 { print $3 }' "$dir/run/lease.world")
    victim=$(awk -v r=$rank 'NR > 1 && $1 == r { print $3 }' "$dir/run/lease.world")
    kill -9 "$victim"
    gone
    [ $code != 0 ] && [ $code != 75 ] || fail "exit code $code after kill -9 of rank $rank"
    begin
    grep -q "ended in stage sft: rank $rank (host $(hostname), process $victim) died first" "$dir/out" || fail "rank $rank is not named"
    kill -USR1 $job
    wait $job
    [ $? = 75 ] || fail "the next start did not go on"
    ! ls "$dir"/run/lease* >/dev/null 2>&1 || fail "left over: $(ls "$dir"/run/lease*)"
done

# Ended from outside.
begin
pids=$(awk 'NR > 1 { print $3 }' "$dir/run/lease.world")
kill -TERM $pids
gone
begin
grep -q 'died first' "$dir/out" && fail "SIGTERM is taken for a death"
pids=$(awk 'NR > 1 { print $3 }' "$dir/run/lease.world")
kill -USR1 $job
wait $job

# A learning rate that breaks the numbers: the same step fails in every start.
for start in 1 2 3; do
    "$imf" sft "$dir/r.yaml" --quiet --set run_dir="$dir/nan" --set sft.learning_rate=1 --set sft.max_grad_norm=0 \
        --set sft.adam_epsilon=0 --set sft.warmup_ratio=0 --set sft.adam_beta2=0 >"$dir/out" 2>&1
    [ $? = 70 ] && grep -q ' is nan\| is inf\| is -nan' "$dir/out" || fail "start $start did not break the numbers"
done
"$imf" sft "$dir/r.yaml" --quiet --set run_dir="$dir/nan" --set sft.learning_rate=1 --set sft.max_grad_norm=0 \
    --set sft.adam_epsilon=0 --set sft.warmup_ratio=0 --set sft.adam_beta2=0 >"$dir/out" 2>&1
[ $? = 70 ] && grep -q 'the last 3 starts all ended while they computed step' "$dir/out" || fail "a fourth start tried again"
exit 0
