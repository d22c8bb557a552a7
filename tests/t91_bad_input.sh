#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Bad input: one message naming file, line or rank and what to do, the documented exit code on all ranks (mpirun hands it on), nothing
# committed, nothing lost. HPC-18, PRS-10.
set -u
imf=$1/imf
dir=$(mktemp -d)
full=$dir/full
trap 'mountpoint -q "$full" && umount "$full"; rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$1"; exit 1; }

# expect CODE PATTERN COMMAND...: on two ranks; one message that matches, that exit code.
expect() {
    code=$1 pattern=$2; shift 2
    mpirun -n 2 "$imf" "$@" --quiet >"$dir/out" 2>&1 </dev/null
    got=$?
    [ "$got" = "$code" ] || fail "imf $*: exit code $got, $code expected: $(cat "$dir/out")"
    [ "$(grep -c '^imf: error ' "$dir/out")" = 1 ] || fail "imf $*: not exactly one message: $(cat "$dir/out")"
    grep '^imf: error ' "$dir/out" | grep -q -- "$pattern" || fail "imf $*: no '$pattern' in: $(grep '^imf: error' "$dir/out")"
}

for i in 1 2 3 4 5 6; do echo "{\"prompt\": \"say $i\"}"; done >"$dir/prompts.jsonl"
cat >"$dir/recipe.yaml" <<END
run_dir: $dir/run
prompts:
  - path: $dir/prompts.jsonl
    dataset: few
sources:
  - name: tiny
    path: $dir/model
    n: 2
    max_new_tokens: 12
target:
  path: $dir/model
sft:
  data: $dir/rows.jsonl
  global_batch: 4
  max_length: 64
  row_tokens: 128
END
for i in 1 2 3 4 5 6 7 8; do echo "{\"instruction\": \"say $i\", \"input\": \"\", \"output\": \"$i\"}"; done >"$dir/rows.jsonl"
model() { rm -rf "$dir/model"; cp -r tests/data/decode/tiny "$dir/model"; }
model

# The recipe: unknown key with file:line:column and the nearest name; wrong type; a value out of range.
sed 's/max_length/max_lenght/' "$dir/recipe.yaml" >"$dir/typo.yaml"
expect 78 'typo.yaml:15:3.*max_lenght.*max_length' sft "$dir/typo.yaml"
expect 78 'global_batch' sft "$dir/recipe.yaml" --set sft.global_batch=many
expect 78 'row_tokens' sft "$dir/recipe.yaml" --set sft.row_tokens=-3
expect 78 'dtype' sample "$dir/recipe.yaml" --set dtype=float16
expect 64 'no command' smaple "$dir/recipe.yaml"
expect 66 'nowhere.yaml' sample "$dir/nowhere.yaml"

# Prompts: a malformed line is named.
{ head -n 3 "$dir/prompts.jsonl"; echo '{"prompt": "torn'; } >"$dir/torn.jsonl"
expect 65 'torn.jsonl:4' select "$dir/recipe.yaml" --set "prompts[0].path=$dir/torn.jsonl"
expect 66 'missing.jsonl' select "$dir/recipe.yaml" --set "prompts[0].path=$dir/missing.jsonl"
mpirun -n 2 "$imf" select "$dir/recipe.yaml" --quiet || fail "select failed"

# Another job at work in the run directory (here: this shell) is named, and its lease stays.
echo "local $(hostname) $$ $(cut -d' ' -f22 /proc/$$/stat)" >"$dir/run/lease"
expect 73 "belongs to a running job .*process $$" select "$dir/recipe.yaml"
[ -s "$dir/run/lease" ] || fail "the lease of a running job is gone"
rm "$dir/run/lease"

# Weights: missing, cut short, NaN, another shape; a tokenizer that is torn. (One of another model: t92_other_tokenizer.sh.)
rm "$dir/model/model.safetensors"
expect 66 'safetensors' sample "$dir/recipe.yaml"
model
truncate -s -100 "$dir/model/model.safetensors"
expect 65 'model.safetensors' sample "$dir/recipe.yaml"
model
size=$(stat -c %s "$dir/model/model.safetensors")
printf '\377\377\377\377' | dd of="$dir/model/model.safetensors" bs=1 seek=$((size - 64)) conv=notrunc status=none
expect 65 'NaN' sample "$dir/recipe.yaml"
model
sed -i 's/"intermediate_size": *[0-9]*/"intermediate_size": 64/' "$dir/model/config.json"
expect 65 'shape' sample "$dir/recipe.yaml"
model
echo '{"version": "1.0"' >"$dir/model/tokenizer.json"
expect 65 'tokenizer.json' sample "$dir/recipe.yaml"
model
[ -e "$dir/run/samples/done" ] && fail "a failed sample stage was committed"

# Training data: a malformed row; a row without an answer.
cp "$dir/rows.jsonl" "$dir/bad.jsonl"
echo '{"instruction": "x", "output": 3}' >>"$dir/bad.jsonl"
expect 65 'bad.jsonl:9' sft "$dir/recipe.yaml" --set sft.data="$dir/bad.jsonl"

# A full disk: code 74 (or 73), and no result that looks finished.
if [ "$(id -u)" = 0 ] && mkdir "$full" && mount -t tmpfs -o size=64k tmpfs "$full" 2>/dev/null; then
    mkdir "$full/run"
    mpirun -n 2 "$imf" select "$dir/recipe.yaml" --quiet --set run_dir="$full/run" || fail "select on a small disk failed"
    head -c 65536 /dev/zero >"$full/filler" 2>/dev/null
    expect 74 "$full" sample "$dir/recipe.yaml" --set run_dir="$full/run"
    [ -e "$full/run/samples/done" ] && fail "a sample stage was committed on a full disk"
    rm "$full/filler"
    mount -o remount,size=8m "$full"
    mpirun -n 2 "$imf" sample "$dir/recipe.yaml" --quiet --set run_dir="$full/run" || fail "sample could not go on after the disk got room"
fi
exit 0
