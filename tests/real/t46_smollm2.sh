#!/bin/sh
# 50 steps of SFT, DPO and LN-DPO on SmolLM2 against TRL (tests/data/train/smollm2-*.txt).
exec "$1/tests/t46_reference" real
