#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Right kernels on hostcuda: right values, the same bits in every order; and nvcc assembles the same kernels.
set -u
. tests/hostcuda/lib.sh
timeout 120 "$1/tests/hostcuda/kernels" >"$dir/out" 2>&1 || fail "exit $?: $(cat "$dir/out")"
timeout 60 "$1/tests/hostcuda/count" >"$dir/out" 2>&1 || fail "count: exit $?: $(cat "$dir/out")"
assemble tests/hostcuda/kernels.cuh
exit 0
