#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fuzz.sh DIR SECONDS TARGET...: runs the libFuzzer programs DIR/TARGET one after the other, the time divided evenly. Seeds and kept
# inputs are read from tests/fuzz/corpus/TARGET; what is new goes to DIR/corpus/TARGET, what breaks a promise to DIR/found.
# Prints a line a target; exit 1 when one found something. Move a found input to tests/fuzz/corpus/TARGET: make check replays it.
set -u
dir=$1 seconds=$2
shift 2
each=$((seconds / $#)) bad=0
[ "$each" -ge 1 ] || { echo "fuzz: $seconds seconds are too few for $# targets; give at least SECONDS=$#"; exit 64; }
mkdir -p "$dir/found"
for target in "$@"; do
    mkdir -p "$dir/corpus/$target"
    log=$dir/$target.log
    "$dir/$target" -max_total_time="$each" -timeout=30 -rss_limit_mb=3072 -use_value_profile=1 -print_final_stats=1 \
        -artifact_prefix="$dir/found/$target-" "$dir/corpus/$target" "tests/fuzz/corpus/$target" >"$log" 2>&1
    code=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    [ "$code" = 0 ] && echo "fuzz $target: clean, ${runs:-0} inputs in $each s" && continue
    bad=1
    echo "fuzz $target: found $(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1); see $log"
done
exit $bad
