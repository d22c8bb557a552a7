#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# cuDNN takes the graphs of tests/bench/gpu/cudnn_sdpa.c for an H100 that tests/data/cuda/h100.json describes: it finds its fused kernels for them and
# builds their code; without a driver only loading that remains, where CUDA's stub of a driver fails. Head size 512 is refused.
set -u
. tests/hostcuda/lib.sh
nvcc=$(find_nvcc) || { echo "nvcc is not here: cuDNN was not asked"; exit 77; }
make -s BUILD="$1" "$1/cuda/bench_gpu" >"$dir/out" 2>&1 || fail "$(cat "$dir/out")"
stub=$(dirname "$nvcc")/../lib64/stubs/libcuda.so
ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1' || { [ -e "$stub" ] && ln -s "$(readlink -f "$stub")" "$dir/libcuda.so.1"; } ||
    { echo "neither a driver nor CUDA's stub of one is here: cuDNN was not asked"; exit 77; }
LD_LIBRARY_PATH="$dir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" timeout 300 "$1/cuda/bench_gpu" plan tests/data/cuda/h100.json >"$dir/out" 2>&1 ||
    fail "exit $?: $(cat "$dir/out")"
! grep -qx 'no cuDNN' "$dir/out" || { echo "cuDNN is not here: its graphs were not looked at"; exit 77; }
taken=$(grep -cE '^D (64|128|256), .*: (workspace [0-9]+ bytes|cuDNN, .*cuLibraryLoadData returned error)' "$dir/out")
[ "$taken" = 7 ] || fail "not 7 graphs but $taken were taken: $(cat "$dir/out")"
grep -q '^D 512, .*NOT_SUPPORTED_SHAPE' "$dir/out" || fail "head size 512 was not refused: $(cat "$dir/out")"
