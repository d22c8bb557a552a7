#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Right kernels on hostcuda: right values, the same bits in every order; and nvcc assembles the same kernels for sm_80 and sm_90a
# (without nvcc that part is left out, and says so).
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }
timeout 120 "$1/tests/hostcuda/kernels" >"$dir/out" 2>&1 || fail "exit $?: $(cat "$dir/out")"
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null) || { echo "nvcc is not here: the device form was not assembled"; exit 77; }
for arch in 80 90a; do
    "$nvcc" -std=c++17 -I. -gencode=arch=compute_$arch,code=sm_$arch -Xptxas -v -cubin -x cu -o "$dir/cubin" \
        tests/hostcuda/kernels.cuh >"$dir/out" 2>&1 || fail "sm_$arch: $(cat "$dir/out")"
    ! grep -E '\(C75[0-9]*\)' "$dir/out" || fail "sm_$arch: ptxas doubts the kernel"
    ! grep -E '[1-9][0-9]* bytes (stack|spill)' "$dir/out" || fail "sm_$arch: registers are spilled"
done
exit 0
