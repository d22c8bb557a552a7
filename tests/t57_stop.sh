#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# FT-4 for every stage: SIGUSR1 and SIGUSR2 at any moment of imf run end all ranks with 75 and one message; the same command goes on,
# and what comes out at last is what an undisturbed run gives. FAULTS=n asks for n signals at random instants.
# One rank's signal is enough, also before the first stage; FT-5: SLURM_JOB_END_TIME stops training in time.
set -u
imf=$1/imf rounds=${FAULTS:-3}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$*"; cat "$dir/out"; exit 1; }
launch() { mpirun -n 2 "$imf" "$@" >"$dir/out" 2>&1; }
results() {  # of run directory $1
    for set in prompts samples scores verdicts sft_rows pairs; do
        echo "$set $(sed -n 's/.*"digest": *"\([0-9a-f]*\)".*/\1/p' "$1/$set/done")"
    done
    for stage in sft dpo; do cat "$1/$stage/model/"*.safetensors | sha256sum; done
    cat "$1/metrics.jsonl" "$1/eval/summary.json"
}
stopped() {  # CODE WHO: 75 and one message, or 0
    [ "$1" = 75 ] || [ "$1" = 0 ] || fail "exit code $1 after a signal to $2, 75 expected"
    [ "$1" = 0 ] || [ "$(grep -c 'run the same command to go on' "$dir/out")" = 1 ] || fail "no message, or more than one"
    ! ls "$dir"/cut/lease* >/dev/null 2>&1 || fail "left over: $(ls "$dir"/cut/lease*)"
}
ready() {  # both ranks have come to main() and listen to SIGUSR1; before that the system's default ends them
    ranks=$(pgrep -P $job)
    for pid in $ranks; do grep -q '^SigCgt:.*[2367abef]..$' "/proc/$pid/status" 2>/dev/null || return 1; done
    [ "$(echo $ranks | wc -w)" = 2 ]
}
recipe=tests/data/law1.yaml
all="select sample score verify pair sft dpo eval"
for stage in $all; do launch "$stage" $recipe --quiet --set run_dir="$dir/whole" || fail "$stage"; done
results "$dir/whole" >"$dir/want"

# Each start does the stages that are left; a signal comes 0 to 0.7 s after the ranks have begun.
seed=$(date +%N) hits=0 round=0 left=$all
while [ -n "$left" ]; do
    stage=${left%% *}
    round=$((round + 1))
    mpirun -n 2 "$imf" "$stage" $recipe --quiet --set run_dir="$dir/cut" >"$dir/out" 2>&1 &
    job=$!
    if [ $hits -lt "$rounds" ]; then
        delay=$(awk -v s="$seed$round" 'BEGIN { srand(s % 2000000011); r = rand(); print 0.7 * rand() }')
        until ready || ! kill -0 $job 2>/dev/null; do sleep 0.01; done
        sleep "$delay"
        if [ $((round % 2)) = 0 ]; then kill -USR1 $job 2>/dev/null
        else kill -USR2 $(pgrep -P $job | tail -n 1) 2>/dev/null; fi
    fi
    wait $job
    code=$?
    stopped $code "$stage after $delay s"
    [ $code = 0 ] || hits=$((hits + 1))
    [ $code = 75 ] || { [ "$left" = "$stage" ] && left= || left=${left#* }; }
    # The stages are short: begin again until enough signals have hit.
    if [ -z "$left" ] && [ $hits -lt "$rounds" ]; then
        results "$dir/cut" >"$dir/got"
        cmp -s "$dir/want" "$dir/got" || fail "after $hits signals: $(diff "$dir/want" "$dir/got")"
        rm -r "$dir/cut"
        left=$all
    fi
    [ $round -lt $((100 + 40 * rounds)) ] || fail "no end after $round starts, $hits signals"
done
results "$dir/cut" >"$dir/got"
cmp -s "$dir/want" "$dir/got" || fail "after $hits signals: $(diff "$dir/want" "$dir/got")"

# The batch system's time: none is left, then enough.
rm -r "$dir/cut/sft"
SLURM_JOB_END_TIME=$(date +%s) launch sft $recipe --quiet --set run_dir="$dir/cut"
code=$?
[ $code = 75 ] && grep -q 'time limit' "$dir/out" || fail "no time left: exit code $code, 75 expected"
SLURM_JOB_END_TIME=$(($(date +%s) + 3600)) launch sft $recipe --quiet --set run_dir="$dir/cut" || fail "an hour left: exit code $?"
exit 0
