#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Token sampling on hostcuda: the CPU's choice for thousands of rows; and nvcc's code of it keeps every register and contracts no operation to fma.
set -u
. tests/hostcuda/lib.sh
timeout 300 "$1/tests/hostcuda/sample" >"$dir/out" 2>&1 || fail "exit $?: $(cat "$dir/out")"
assemble kernels/cuda/sample.cuh
[ "$(grep -c 'Compiling entry function' "$dir/ptxas")" = 1 ] || fail "not one kernel: $(cat "$dir/ptxas")"
flag=$(make -s -n -W kernels/cuda/ops_sample.cu BUILD="$1" CUDA=1 "$1/cuda/kernels/cuda/ops_sample.o" V=1 | grep -o -e '--fmad=false')
[ -n "$flag" ] || fail "the program's kernel is compiled without --fmad=false"
"$nvcc" -std=c++17 -O3 -Isrc -I. "$flag" -arch=sm_80 -ptx -o "$dir/ptx" kernels/cuda/ops_sample.cu >"$dir/out" 2>&1 || fail "$(cat "$dir/out")"
grep -q 'mul\.rn\.f32' "$dir/ptx" || fail "no kernel in the PTX"
! grep -nE '\bfma\.|(mul|[^d]\.add|sub)\.f(32|64)' "$dir/ptx" | grep -v 'red\.' || fail "operations are contracted, or may be"
exit 0
