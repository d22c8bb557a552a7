#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Qwen2.5-Coder-1.5B's logits and log-probabilities on 50 prompts against transformers (tests/data/real/qwen-coder.json), to
# 3e-4, and the greedy continuations of 10 of them. Needs 8 GB of memory. The fixture: real.py --tokens 8, no --prompts.
set -u
[ -n "${MODELS:-}" ] || { echo "MODELS is not set; make check-real sets it"; exit 77; }
[ -d "$MODELS/qwen-coder" ] || { echo "$MODELS/qwen-coder is not there"; exit 77; }
python3 tests/real/logprobs.py "$1/imf" "$MODELS/qwen-coder" tests/data/real/qwen-coder.json || exit 1
exec python3 tests/real/greedy.py "$1/imf" "$MODELS/qwen-coder" tests/data/real/qwen-coder.json 5
