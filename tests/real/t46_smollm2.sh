#!/bin/sh
# SFT of SmolLM2 against TRL (tests/data/train/smollm2-sft.txt).
make -s BUILD="$1" "$1/tests/t46_reference" || exit 1
exec "$1/tests/t46_reference" real
