#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Greedy continuations of 50 prompts by SmolLM2 against transformers (tests/data/real/smollm2.json): at least 48 of 50 agree
# over 64 tokens; where one differs, the first difference is a near-tie.
set -u
[ -n "${MODELS:-}" ] || { echo "MODELS is not set; make check-real sets it"; exit 77; }
[ -d "$MODELS/smollm2" ] || { echo "$MODELS/smollm2 is not there"; exit 77; }
exec python3 tests/real/greedy.py "$1/imf" "$MODELS/smollm2" tests/data/real/smollm2.json
