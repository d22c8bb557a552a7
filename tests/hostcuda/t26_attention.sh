#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Attention forward, backward and of paged decoding on hostcuda against sums in double, with errors of torch's own size; and nvcc's code of them keeps every register.
set -u
. tests/hostcuda/lib.sh
for t in attention attention_bwd decode; do
    timeout 300 "$1/tests/hostcuda/$t" >"$dir/out" 2>&1 || fail "$t: exit $?: $(cat "$dir/out")"
done
timeout 300 "$1/tests/hostcuda/accuracy" tests/data/ops/attention_bf16.txt >"$dir/out" 2>&1 || fail "accuracy: exit $?: $(cat "$dir/out")"
printf '#include "kernels/cuda/%s.cuh"\n' attn_fwd attn_bwd decode >"$dir/all.cu"
for D in 64 128 256; do
    echo "template __global__ void attn_bwd_prepare<$D>(attn_bwd::Bwd);"
    echo "template __global__ void decode_combine<$D>(decode::Decode);"
    for cap in false true; do
        echo "template __global__ void attn_fwd<$D, $cap>(attn::Fwd);"
        echo "template __global__ void attn_bwd_main<$D, $cap>(attn_bwd::Bwd);"
        echo "template __global__ void decode_chunks<$D, $cap>(decode::Decode);"
    done
done >>"$dir/all.cu"
assemble "$dir/all.cu"
[ "$(grep -c 'Compiling entry function' "$dir/ptxas")" = 26 ] || fail "not 26 kernels: $(cat "$dir/ptxas")"
exit 0
