#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# attn_fwd on hostcuda against sums in double; and nvcc's code of it keeps every register.
set -u
. tests/hostcuda/lib.sh
timeout 300 "$1/tests/hostcuda/attention" >"$dir/out" 2>&1 || fail "exit $?: $(cat "$dir/out")"
echo '#include "kernels/cuda/attn_fwd.cuh"' >"$dir/all.cu"
for D in 64 128 256; do echo "template __global__ void attn_fwd<$D>(attn::Fwd);" >>"$dir/all.cu"; done
assemble "$dir/all.cu"
[ "$(grep -c 'Compiling entry function.*attn_fwd' "$dir/ptxas")" = 3 ] || fail "not three kernels: $(cat "$dir/ptxas")"
exit 0
