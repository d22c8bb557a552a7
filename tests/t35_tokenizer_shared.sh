#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tokenizers of Qwen-2.5 and Llama-3.1 on 1 MB of mixed text and 200 conversations, as tests/real/t33_tokenizer.sh does it for
# the models that can be fetched. Their files lie in ../shared/tokenizers (SHARED=DIR: elsewhere), which a clone has not.
set -u
imf=$1/imf shared=${SHARED:-../shared}/tokenizers
[ -e "$shared/qwen-2.5/tokenizer.json.xz" ] || { echo "$shared/qwen-2.5/tokenizer.json.xz is not there"; exit 77; }
command -v xz >/dev/null || { echo "xz is not installed"; exit 77; }
out=$(mktemp -d) && trap 'rm -rf "$out"' EXIT
for m in qwen-2.5 llama-3.1; do
    mkdir "$out/$m"
    xz -dc "$shared/$m/tokenizer.json.xz" >"$out/$m/tokenizer.json" && cp "$shared/$m/tokenizer_config.json" "$out/$m/" || exit 1
    python3 tools/reference/tokenizer.py check "$imf" "$out/$m" "tests/data/text/$m.hash" || exit 1
    echo '{"messages": [{"role": "user", "content": "Hi"}]}' | "$imf" tokens "$out/$m" >/dev/null || exit 1
done
