#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# t12_par under mpirun: 1..4 ranks, one node and two pretended ones; the digest of records that all ranks write is one.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
for n in 1 2 3 4; do
    for nodes in 0 2; do
        IMF_NODES=$nodes mpirun --allow-run-as-root --oversubscribe -n $n "$1/tests/t12_par" "$dir/$n-$nodes" >"$dir/out" 2>&1 ||
            { echo "$n ranks, IMF_NODES=$nodes:"; cat "$dir/out"; exit 1; }
        cat "$dir/out" >>"$dir/digests"
    done
done
[ "$(sort -u "$dir/digests" | wc -l)" = 1 ] && [ "$(wc -l <"$dir/digests")" = 8 ] || { echo "digests differ"; cat "$dir/digests"; exit 1; }
