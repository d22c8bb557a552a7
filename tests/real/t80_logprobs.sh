#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# SmolLM2's logits and log-probabilities on 50 prompts against transformers (tests/data/real/smollm2.json), to 3e-4.
set -u
[ -n "${MODELS:-}" ] || { echo "MODELS is not set; make check-real sets it"; exit 77; }
[ -d "$MODELS/smollm2" ] || { echo "$MODELS/smollm2 is not there"; exit 77; }
exec python3 tests/real/logprobs.py "$1/imf" "$MODELS/smollm2" tests/data/real/smollm2.json
