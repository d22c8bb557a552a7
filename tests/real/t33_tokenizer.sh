#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tokenizers of the real models: ids of 1 MB of mixed text and of 200 conversations against the stored hashes, which were made
# by `tokenizers` and apply_chat_template (tools/reference/tokenizer.py expect); chat_template known by its hash.
set -u
imf=$1/imf
[ -n "${MODELS:-}" ] || { echo "MODELS is not set: make check-real fetches the real models"; exit 77; }
for m in smollm2 qwen-coder; do
    python3 tools/reference/tokenizer.py check "$imf" "$MODELS/$m" "tests/data/text/$m.hash" || exit 1
    echo '{"messages": [{"role": "user", "content": "Hi"}]}' | "$imf" tokens "$MODELS/$m" >/dev/null || exit 1
done
