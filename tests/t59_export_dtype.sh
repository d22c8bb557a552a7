#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What a written model keeps of its training: export_dtype, also after the end of training; warnings when nothing was learned and
# when rounding takes the training away (R-NUM1, R-NUM3).
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export OMP_NUM_THREADS=1
fail() { echo "$*"; exit 1; }

for i in 1 2 3 4 5 6 7 8; do echo "{\"prompt\": \"say $i\", \"completion\": \"It is $i.\"}"; done >"$dir/rows.jsonl"
cat >"$dir/recipe.yaml" <<END
target: {path: input/demo/novice}
sft: {data: $dir/rows.jsonl, global_batch: 4, max_steps: 2, max_length: 64, learning_rate: 1e-3, warmup_ratio: 0}
END
sft() { run=$1; shift; "$imf" sft "$dir/recipe.yaml" --set run_dir="$dir/$run" "$@" >"$dir/log" 2>&1 || fail "sft: $(cat "$dir/log")"; }
says() { grep -q "$1" "$dir/log" || fail "no '$1' in: $(cat "$dir/log")"; }
silent() { ! grep -q 'rounding to\|nothing was learned' "$dir/log" || fail "a warning for nothing: $(cat "$dir/log")"; }

sft run && silent
says '[1-9][0-9.]* % of the weights have changed, [1-9][0-9.]* % as written in BF16'
sft run && says 'already trained'

# Another number format: written anew from the last checkpoint, without a step; fp32 keeps everything.
sft run --set sft.export_dtype=float32 && says 'as written in F32'
grep -q 'step 1/2' "$dir/log" && fail "trained again for another number format"
sft other --set sft.export_dtype=float32
cmp -s "$dir/run/sft/model/model.safetensors" "$dir/other/sft/model/model.safetensors" || fail "the model written anew differs"
"$imf" show "$dir/run/sft/model/model.safetensors" | grep -q F32 || fail "not in float32"

sft small --set sft.learning_rate=1e-7 && says 'rounding to BF16 takes most of the training away'
sft small32 --set sft.learning_rate=1e-7 --set sft.export_dtype=float32 && silent
sft none --set sft.learning_rate=0 && says 'no weight has changed: nothing was learned'
exit 0
