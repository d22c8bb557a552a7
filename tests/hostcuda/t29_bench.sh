#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make bench-gpu on hostcuda with tiny shapes: it ends, its rows are there, no result is wrong (nor those of a stand-in for cuDNN). Without a GPU it measures
# nothing and says so.
set -u
. tests/hostcuda/lib.sh
BENCH=tiny IMF_GPU="$1/hostcuda/imf" OPS="$1/hostcuda/bench_gpu" PEERS= timeout 300 sh tests/gpu/bench_gpu.sh "$1" \
    >"$dir/out" 2>&1 || fail "exit $?: $(cat "$dir/out")"
rows=$(grep -c '^| [A-Za-z]' "$dir/out")
[ "$rows" = 34 ] || fail "not 34 lines of the table but $rows: $(cat "$dir/out")"
checked=$(awk -F'|' '$6 ~ /^ *[0-9]+ *$/ { n++; bad += $6 } END { print n + 0, bad + 0 }' "$dir/out")
[ "$checked" = "25 0" ] || fail "rows that were checked, wrong results: $checked: $(cat "$dir/out")"
judged=$(grep -ciE ' met( |,|$)' "$dir/out") unjudged=$(grep -c 'not judged' "$dir/out")  # the training step's peak is 0 here; TRL is not beside
[ "$judged $unjudged" = "15 3" ] || fail "bars that were judged, and not: $judged $unjudged: $(cat "$dir/out")"
if ! nvidia-smi >"$dir/smi" 2>&1; then
    make -s BUILD="$1" bench-gpu >"$dir/make" 2>&1
    grep -q 'no GPU is here' "$dir/make" && grep -q 'Error 77' "$dir/make" || fail "without a GPU: $(cat "$dir/make")"
fi
