#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# peers.sh DIR: the programs that `make bench-cpu PEERS=DIR` compares with, thrown away with DIR (7 GB, half an hour).
#   DIR/venv             torch, transformers, trl and what they need
#   DIR/llama/source     llama.cpp, whole in the source distribution of llama-cpp-python
#   DIR/llama/build/bin  llama-batched-bench, built for the CPU at hand
# Needs python3-venv, cmake and g++. What is already there is not made again.
#
# llama.cpp's own -march=native build crashed on a machine with AMX, so its flags are taken from /proc/cpuinfo one by one and
# AMX is left out.
set -eu
[ $# = 1 ] || { echo "usage: peers.sh DIR" >&2; exit 64; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)

if [ ! -e "$dir/venv/bin/trl" ]; then
    python3 -m venv "$dir/venv"
    "$dir/venv/bin/pip" -q install torch transformers trl tokenizers gguf datasets accelerate sentencepiece safetensors
fi

source=$dir/llama/source
if [ ! -e "$source" ]; then
    mkdir -p "$dir/llama/download"
    "$dir/venv/bin/pip" -q download --no-binary :all: --no-deps -d "$dir/llama/download" llama-cpp-python
    tar xzf "$dir"/llama/download/llama_cpp_python-*.tar.gz -C "$dir/llama/download"
    mv "$dir"/llama/download/llama_cpp_python-*/vendor/llama.cpp "$source"
    rm -rf "$dir/llama/download"
fi

flag() {  # CPUINFO-NAME CMAKE-NAME
    if grep -qw "$1" /proc/cpuinfo; then echo "-DGGML_$2=ON"; else echo "-DGGML_$2=OFF"; fi
}
if [ ! -e "$dir/llama/build/bin/llama-batched-bench" ]; then
    cmake -S "$source" -B "$dir/llama/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=OFF \
        $(flag avx AVX) $(flag avx2 AVX2) $(flag fma FMA) $(flag f16c F16C) $(flag bmi2 BMI2) $(flag avx512bw AVX512) \
        $(flag avx512vbmi AVX512_VBMI) $(flag avx512_vnni AVX512_VNNI) $(flag avx512_bf16 AVX512_BF16) \
        -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        >"$dir/llama/cmake.log" 2>&1
    cmake --build "$dir/llama/build" --target llama-batched-bench -j2 >"$dir/llama/build.log" 2>&1
fi
