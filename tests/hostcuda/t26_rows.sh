#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Row-wise kernels, optimiser, log-probabilities and DPO on hostcuda against formulas in double; and nvcc's code of them keeps every register.
set -u
. tests/hostcuda/lib.sh
for t in rows logprob; do
    timeout 300 "$1/tests/hostcuda/$t" >"$dir/out" 2>&1 || fail "$t: exit $?: $(cat "$dir/out")"
done
printf '#include "kernels/cuda/%s.cuh"\n' optim logprob dpo >"$dir/all.cu"
for y in uint16_t float; do echo "template __global__ void rmsnorm_fwd<$y>(rows::Norm<$y>);"; done >>"$dir/all.cu"
for g in Silu Gelu; do for way in fwd bwd; do echo "template __global__ void glu_$way<rows::$g>(rows::Glu);"; done; done >>"$dir/all.cu"
assemble "$dir/all.cu"
[ "$(grep -c 'Compiling entry function' "$dir/ptxas")" -ge 19 ] || fail "not all kernels: $(cat "$dir/ptxas")"
echo '#include "kernels/cuda/logprob_sm90.cuh"' >"$dir/sm90.cu"
assemble "$dir/sm90.cu" 90a
[ "$(grep -c 'Compiling entry function.*_sm90N' "$dir/ptxas")" = 2 ] || fail "not both Hopper kernels: $(cat "$dir/ptxas")"
exit 0
