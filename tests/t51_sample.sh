#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf sample on a tiny model. Law 1: ranks, slots, the order of input rows and a killed job change no bit of any sample.
set -eu
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$1"; exit 1; }

for i in 1 2 3 4 5 6 7 8 9 10 11; do echo "{\"prompt\": \"say $i and then $i$i$i\"}"; done >"$dir/prompts.jsonl"
long=$(printf 'word %.0s' $(seq 60))
echo "{\"prompt\": \"$long\"}" >>"$dir/prompts.jsonl"
cat >"$dir/recipe.yaml" <<END
prompts:
  - path: $dir/prompts.jsonl
    dataset: few
sources:
  - name: warm
    path: tests/data/decode/tiny
    n: 4
    temperature: 0.8
    max_new_tokens: 80
  - name: penalised
    path: tests/data/decode/tiny
    n: 3
    temperature: 1
    top_p: 0.8
    repetition_penalty: 1.2
    max_new_tokens: 30
END
digest() { sed -n 's/.*"digest":"\([0-9a-f]*\)".*/\1/p' "$dir/$1/samples/done"; }
sample() {  # RUN RANKS SLOTS [PROMPTS [THREADS]]
    mpirun -n "$2" "$imf" select "$dir/recipe.yaml" --quiet --set run_dir="$dir/$1" --set "prompts[0].path=${4:-$dir/prompts.jsonl}"
    mpirun -n "$2" "$imf" sample "$dir/recipe.yaml" --quiet --set run_dir="$dir/$1" --set sample.slots="$3" \
        --set threads="${5:-1}" 2>"$dir/$1.err" ||
        fail "sample failed: $(cat "$dir/$1.err")"
}

sample one 1 1
grep -q '"count":77' "$dir/one/samples/done" || fail "11 prompts x 7 samples expected: $(cat "$dir/one/samples/done")"
cat "$dir/one/samples/"data-*.jsonl >"$dir/samples"
grep -q '"finish":"stop"' "$dir/samples" && grep -q '"finish":"length"' "$dir/samples" || fail "both ways to end expected"
[ "$(grep -c '"seed":42,"source":"warm"' "$dir/samples")" = 44 ] || fail "44 samples of the first source expected"

# Law 7: the prompt that leaves no room is listed, once for every source.
grep -q '"count":2' "$dir/one/dropped_samples/done" || fail "dropped: $(cat "$dir/one/dropped_samples/done")"
grep -q 'no samples of warm' "$dir/one.err" || fail "no warning about the long prompt"

# Law 1.
sort -r "$dir/prompts.jsonl" >"$dir/shuffled.jsonl"
sample two 2 4 "$dir/shuffled.jsonl"
sample three 3 64
sample four 1 5 "$dir/prompts.jsonl" 2
for run in two three four; do [ "$(digest one)" = "$(digest $run)" ] || fail "run $run has another digest"; done
"$imf" select "$dir/recipe.yaml" --quiet --set run_dir="$dir/seed"
"$imf" sample "$dir/recipe.yaml" --quiet --set run_dir="$dir/seed" --set seed=43 --set sample.slots=64 2>/dev/null
[ "$(digest one)" != "$(digest seed)" ] || fail "the seed changed nothing"

# A job killed half-way leaves a part without an index and with a torn last line.
mkdir -p "$dir/killed"
cp -r "$dir/one/prompts" "$dir/killed/"
mkdir "$dir/killed/samples"
cat "$dir/one/samples/data-00000.jsonl" | head -n 31 >"$dir/killed/samples/part-00000000000001-local-000000.jsonl"
sed -n 32p "$dir/one/samples/data-00000.jsonl" | head -c 100 >>"$dir/killed/samples/part-00000000000001-local-000000.jsonl"
mpirun -n 2 "$imf" sample "$dir/recipe.yaml" --set run_dir="$dir/killed" 2>"$dir/killed.err" || fail "resume: $(cat "$dir/killed.err")"
grep -q 'resumed: 30 samples' "$dir/killed.err" || fail "resume: $(cat "$dir/killed.err")"
[ "$(digest one)" = "$(digest killed)" ] || fail "the resumed run has another digest"

# Another model in the same directory: what is there does not belong to it.
cp -r tests/data/decode/tiny "$dir/model"
sed "s|tests/data/decode/tiny|$dir/model|" "$dir/recipe.yaml" >"$dir/moved.yaml"
"$imf" select "$dir/moved.yaml" --quiet --set run_dir="$dir/moved"
"$imf" sample "$dir/moved.yaml" --quiet --set run_dir="$dir/moved" 2>/dev/null
printf 'zz' | dd of="$dir/model/model.safetensors" bs=1 seek="$(($(stat -c %s "$dir/model/model.safetensors") - 8))" conv=notrunc status=none
status=0
"$imf" sample "$dir/moved.yaml" --set run_dir="$dir/moved" 2>"$dir/error" || status=$?
[ $status = 78 ] && grep -q samples "$dir/error" || fail "another model, exit $status: $(cat "$dir/error")"
rm -r "$dir/model"  # samples outlive their source
"$imf" sample "$dir/moved.yaml" --set run_dir="$dir/moved" 2>"$dir/error" && grep -q 'done before' "$dir/error" ||
    fail "no model, exit $?: $(cat "$dir/error")"

# The same samples twice under two names are refused; so is a model directory that is not there.
status=0
"$imf" sample "$dir/recipe.yaml" --set run_dir="$dir/one" --set "sources[1].temperature=0.8" --set "sources[1].top_p=0.95" \
    --set "sources[1].repetition_penalty=1" --set "sources[1].max_new_tokens=80" 2>"$dir/error" || status=$?
[ $status = 78 ] && grep -q "'warm' and 'penalised' are the same" "$dir/error" || fail "exit $status: $(cat "$dir/error")"
status=0
"$imf" sample "$dir/recipe.yaml" --set run_dir="$dir/nothing" 2>"$dir/error" || status=$?
[ $status = 66 ] && grep -q 'imf select' "$dir/error" || fail "exit $status: $(cat "$dir/error")"
