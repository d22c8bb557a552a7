#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# SmolLM2 in bfloat16 on the 50 prompts of t80_logprobs.sh: its error is at most twice that of transformers' bf16 model.
set -u
[ -n "${MODELS:-}" ] || { echo "MODELS is not set; make check-real sets it"; exit 77; }
[ -d "$MODELS/smollm2" ] || { echo "$MODELS/smollm2 is not there"; exit 77; }
exec python3 tests/real/logprobs_bf16.py "$1/imf" "$MODELS/smollm2" tests/data/real/smollm2.json tests/data/real/smollm2-bf16.json
