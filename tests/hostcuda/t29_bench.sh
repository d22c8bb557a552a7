#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make bench-gpu on hostcuda with tiny shapes: it ends, its rows are there, no result is wrong. Without a GPU make bench-gpu measures
# nothing and says so.
set -u
. tests/hostcuda/lib.sh
BENCH=tiny IMF_GPU="$1/hostcuda/imf" OPS="$1/hostcuda/bench_gpu" timeout 300 sh tests/gpu/bench_gpu.sh "$1" >"$dir/out" 2>&1 || fail "exit $?: $(cat "$dir/out")"
rows=$(grep -c '^| [A-Za-z]' "$dir/out")
[ "$rows" = 22 ] || fail "not 22 lines of the table but $rows: $(cat "$dir/out")"
checked=$(awk -F'|' '$6 ~ /^ *[0-9]+ *$/ { n++; bad += $6 } END { print n + 0, bad + 0 }' "$dir/out")
[ "$checked" = "14 0" ] || fail "rows that were checked, wrong results: $checked: $(cat "$dir/out")"
if ! nvidia-smi >"$dir/smi" 2>&1; then
    make -s BUILD="$1" bench-gpu >"$dir/make" 2>&1
    grep -q 'no GPU is here' "$dir/make" && grep -q 'Error 77' "$dir/make" || fail "without a GPU: $(cat "$dir/make")"
fi
