#!/bin/sh
# 50 steps of SFT, DPO and LN-DPO on SmolLM2 against TRL (tests/data/train/smollm2-*.txt).
make -s BUILD="$1" "$1/tests/t46_reference" || exit 1
exec "$1/tests/t46_reference" real
