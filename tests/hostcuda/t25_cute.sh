#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# hostcuda's tensor core instructions, swizzles and descriptors are CuTe's.
set -u
. tests/hostcuda/lib.sh
timeout 120 "$1/tests/hostcuda/cute" tests/data/cuda >"$dir/out" 2>&1 || fail "cute: exit $?: $(cat "$dir/out")"
exit 0
