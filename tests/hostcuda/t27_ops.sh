#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# cuda_x of kernels/cuda/device.h on hostcuda against op_x of the CPU; and nvcc takes their source as it is. Files for sm_90a alone have no kernel
# that others have: the runtime would find either program under its name.
set -u
. tests/hostcuda/lib.sh
timeout 300 "$1/tests/hostcuda/ops" >"$dir/out" 2>&1 || fail "exit $?: $(cat "$dir/out")"
find_nvcc >/dev/null || { echo "nvcc is not here: the ops were not compiled for a GPU"; exit 77; }
make -s BUILD="$1" CUDA=1 >"$dir/out" 2>&1 || fail "$(cat "$dir/out")"
kernels() { nm "$@" | grep -o '__device_stub__Z[0-9]*[a-z0-9_]*' | sort -u; }
kernels "$1"/cuda/kernels/cuda/*_sm90.o >"$dir/sm90"
kernels $(ls "$1"/cuda/kernels/cuda/*.o | grep -v _sm90.o) >"$dir/others"
[ -s "$dir/sm90" ] && [ -s "$dir/others" ] || fail "no kernels are found"
shared=$(comm -12 "$dir/sm90" "$dir/others")
[ -z "$shared" ] || fail "kernels of sm_90a alone and of others: $shared"
exit 0
