#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# cuda_x of kernels/cuda/device.h on hostcuda against op_x of the CPU; and nvcc takes their source as it is.
set -u
. tests/hostcuda/lib.sh
timeout 300 "$1/tests/hostcuda/ops" >"$dir/out" 2>&1 || fail "exit $?: $(cat "$dir/out")"
nvcc=$(find_nvcc) || { echo "nvcc is not here: the ops were not compiled for a GPU"; exit 77; }
for f in kernels/cuda/*.cu; do
    "$nvcc" -std=c++17 -Isrc -I. -gencode=arch=compute_90a,code=sm_90a -c -o "$dir/o" "$f" >"$dir/out" 2>&1 || fail "$f: $(cat "$dir/out")"
done
exit 0
