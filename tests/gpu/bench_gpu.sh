#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make bench-gpu: the ops' table, then the program's, whose shares are of the peaks in the first one. BENCH=tiny IMF_GPU=build/hostcuda/imf
# OPS=build/hostcuda/bench_gpu tries this script itself on the emulation. PEERS=DIR: TRL is in DIR/venv (tools/bench/peers.sh), with torch for this GPU.
set -u
build=$1 version=${2:-} out=$(mktemp)
trap 'rm -f "$out"' EXIT
echo "$(date -u +%F), make bench-gpu, $version"
"${OPS:-$build/cuda/bench_gpu}" ${BENCH:-} >"$out" || exit
cat "$out"
# rate WORDS: of the row that begins so, as a plain number.
rate() { awk -F'|' -v w="$1" 'index($2, w) { split($4, v, " "); print v[1] * (v[2] == "GB/s" ? 1e9 : 1e12); exit }' "$out"; }
echo
exec python3 tools/bench/bench_gpu.py --imf "${IMF_GPU:-$build/cuda/imf}" --work "$build/bench_gpu" --flops "$(rate 'product 8192')" --bytes "$(rate 'copy 1 GiB')" \
    ${BENCH:+--$BENCH} ${PEERS:+--peers "$PEERS"}
