#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# attn_fwd on hostcuda against sums in double; and nvcc's code for sm_80 and sm_90a keeps every register (without nvcc that part is
# left out, and says so).
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }
timeout 300 "$1/tests/hostcuda/attention" >"$dir/out" 2>&1 || fail "exit $?: $(cat "$dir/out")"
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null) || { echo "nvcc is not here: the device form was not assembled"; exit 77; }
printf '#include "kernels/cuda/attn_fwd.cuh"\ntemplate __global__ void attn_fwd<64>(attn::Fwd);\ntemplate __global__ void attn_fwd<128>(attn::Fwd);\n' >"$dir/all.cu"
echo 'template __global__ void attn_fwd<256>(attn::Fwd);' >>"$dir/all.cu"
for arch in 80 90a; do
    "$nvcc" -std=c++17 -I. -gencode=arch=compute_$arch,code=sm_$arch -Xptxas -v -cubin -o "$dir/cubin" "$dir/all.cu" >"$dir/out" 2>&1 ||
        fail "sm_$arch: $(cat "$dir/out")"
    [ "$(grep -c 'Compiling entry function.*attn_fwd' "$dir/out")" = 3 ] || fail "sm_$arch: not three kernels: $(cat "$dir/out")"
    ! grep -E '\(C75[0-9]*\)' "$dir/out" || fail "sm_$arch: ptxas doubts a kernel"
    ! grep -E '[1-9][0-9]* bytes (stack|spill)' "$dir/out" || fail "sm_$arch: registers are spilled"
done
exit 0
