# SPDX-License-Identifier: Apache-2.0
# Sourced by the tests of this directory. Makes $dir, a directory that goes when the test ends.
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }
find_nvcc() { command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null; }

# assemble FILE: nvcc's code of its kernels for sm_80 and sm_90a, every register kept, nothing that ptxas doubts; what ptxas said of the
# last one is in $dir/ptxas. Without nvcc the test ends here as skipped, and says so.
assemble() {
    nvcc=$(find_nvcc) || { echo "nvcc is not here: the device form was not assembled"; exit 77; }
    for arch in 80 90a; do
        "$nvcc" -std=c++17 -I. -gencode=arch=compute_$arch,code=sm_$arch -Xptxas -v -cubin -x cu -o "$dir/cubin" "$1" >"$dir/ptxas" 2>&1 ||
            fail "sm_$arch: $(cat "$dir/ptxas")"
        ! grep -E '\(C75[0-9]*\)' "$dir/ptxas" || fail "sm_$arch: ptxas doubts a kernel"
        ! grep -E '[1-9][0-9]* bytes (stack|spill)' "$dir/ptxas" || fail "sm_$arch: registers are spilled"
    done
}
