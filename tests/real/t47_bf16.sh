#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# 50 bf16 steps of SFT, DPO and LN-DPO of SmolLM2 are as near to fp32 as torch's own bf16 (tests/data/train/smollm2-*-bf16-1*.txt).
set -u
[ -n "${MODELS:-}" ] && [ -d "$MODELS/smollm2" ] || { echo "MODELS/smollm2 is not there; make check-real fetches it"; exit 77; }
make -s BUILD="$1" "$1/tests/t46_reference" || exit 1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
printf '%s\n' dpo ln sft | xargs -P 2 -I KIND sh -c 'IMF_TEST_VERBOSE=1 "$1/tests/t46_reference" bf16 KIND >"$2/KIND" 2>&1' - "$1" "$dir"
code=$?
cat "$dir/sft" "$dir/dpo" "$dir/ln"
exit $code
