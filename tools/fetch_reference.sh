#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fetch_reference.sh DIR: the published tools that an exported model is compared with.
#   DIR/venv        Python with transformers (22 MB from PyPI) over Debian's python3-torch: PyPI's torch brings 3 GB of CUDA
#   DIR/llama.cpp   convert_hf_to_gguf.py and its library, from the source package of llama-cpp-python (51 MB)
# Made once; DIR/reference.txt, written last, names the versions, and another list here makes both anew.
# Drawback: Debian's torch is 1.13, so transformers is of late 2024, not today's.
set -eu
[ $# = 1 ] || { echo "usage: fetch_reference.sh DIR" >&2; exit 64; }
packages="transformers==4.46.3 jinja2==3.1.6 sentencepiece==0.2.0 gguf==0.19.0" converter="llama-cpp-python==0.3.14"
mkdir -p "$1"
out=$(cd "$1" && pwd)
[ "$(cat "$out/reference.txt" 2>/dev/null)" != "$packages $converter" ] || exit 0

echo "imf: fetching transformers and the GGUF converter" >&2
rm -rf "$out/venv" "$out/llama.cpp" "$out/reference.txt"
work=$(mktemp -d "$out/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
/usr/bin/python3 -m venv --system-site-packages "$out/venv" ||
    { echo "imf: python3-venv is missing: apt-get install python3-venv" >&2; exit 69; }
"$out/venv/bin/python" -c 'import torch' ||
    { echo "imf: torch is missing: apt-get install python3-torch" >&2; exit 69; }
"$out/venv/bin/pip" -q install --no-cache-dir $packages ||
    { echo "imf: pip could not install $packages (no network?)" >&2; exit 69; }
"$out/venv/bin/pip" -q download --no-deps --no-binary "${converter%%=*}" -d "$work" "$converter" ||
    { echo "imf: pip could not download $converter" >&2; exit 69; }
mkdir "$work/llama.cpp"
tar xzf "$work"/llama_cpp_python-*.tar.gz -C "$work/llama.cpp" --strip-components=3 --wildcards \
    '*/vendor/llama.cpp/convert_hf_to_gguf.py' '*/vendor/llama.cpp/gguf-py/gguf/*'
mv "$work/llama.cpp" "$out/llama.cpp"
echo "$packages $converter" >"$out/reference.txt"
