#!/bin/sh
# Qwen2.5-Coder-1.5B's logits and log-probabilities on 10 prompts against transformers (tests/data/real/qwen-coder.json), to
# 3e-4. Needs 8 GB of memory.
set -u
[ -n "${MODELS:-}" ] || { echo "MODELS is not set; make check-real sets it"; exit 77; }
[ -d "$MODELS/qwen-coder" ] || { echo "$MODELS/qwen-coder is not there"; exit 77; }
exec python3 tests/real/logprobs.py "$1/imf" "$MODELS/qwen-coder" tests/data/real/qwen-coder.json
