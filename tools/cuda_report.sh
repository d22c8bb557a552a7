#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make cuda-report: tools/cuda_report.py against the committed table, with NVIDIA's disassemblers from PyPI (kept in BUILD/cuda-tools).
# usage: cuda_report.sh BUILD [--write]; exit 77 without nvcc
set -eu
build=$1 table=tests/hostcuda/sass.txt
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null) || { echo "nvcc is not here: no machine code to look at"; exit 77; }
find_tools() { bin=$(ls -d "$build"/cuda-tools/nvidia/*/bin 2>/dev/null | head -1); [ -n "$bin" ] && [ -x "$bin/cuobjdump" ] && [ -x "$bin/nvdisasm" ]; }
if ! command -v cuobjdump >/dev/null || ! command -v nvdisasm >/dev/null; then
    if ! find_tools; then
        python3 -m pip install -q --target "$build/cuda-tools" nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm ||
            { echo "cuobjdump and nvdisasm are not here and PyPI gave none; put NVIDIA's into PATH"; exit 69; }
        chmod +x "$build"/cuda-tools/nvidia/*/bin/*
        find_tools
    fi
    PATH=$PATH:$(cd "$bin" && pwd)
    export PATH
fi
case ${2:-} in
--write) set -- --write "$table" ;;
*) set -- --check "$table" ;;
esac
exec python3 tools/cuda_report.py --nvcc "$nvcc" --cuobjdump "$(command -v cuobjdump)" "$@"
