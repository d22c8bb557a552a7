#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The five lines of README.md's "Your own models and data", as they stand there: only the model is one of the demo's, under the
# name of the downloaded one, and the user's files are small.
set -u
build=$(cd "$1" && pwd) root=$(pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$*"; exit 1; }

sed -n '/In five lines:/,/^SFT data/p' README.md | grep '^    ' | sed 's/^    //; s/  *# .*//' >"$dir/lines"
[ "$(wc -l <"$dir/lines")" = 5 ] || fail "README.md has not five lines: $(cat "$dir/lines")"
cd "$dir" || exit 1
ln -s "$build" build && ln -s "$root/input" input && ln -s "$root/input/demo/novice" Llama-3.2-1B-Instruct
awk 'BEGIN { for (i = 0; i < 40; i++) {
    printf "{\"messages\":[{\"role\":\"user\",\"content\":\"say %d\"},{\"role\":\"assistant\",\"content\":\"%d!\"}]}\n", i, i >"mine.jsonl"
    printf "{\"prompt\":\"say %d\",\"chosen\":\"%d!\",\"rejected\":\"no\"}\n", i, i >"pairs.jsonl" }
    print "{\"prompt\":\"say 3\"}" >"questions.jsonl" }'
cat >my_recipe.yaml <<'END2'
run_dir: runs/all
prompts: [{path: input/demo/prompts.jsonl, limit: 12}]
sources: [{name: clerk, path: input/demo/clerk, n: 3, temperature: 1, max_new_tokens: 40}]
reward: {path: input/demo/reward, max_length: 128}
pair: {margin_min: 0.0001, margin_max: 10}
target: {path: input/demo/novice}
sft: {global_batch: 4, max_length: 128, max_steps: 2}
dpo: {global_batch: 4, max_length: 128, max_steps: 2}
eval: {sets: [{path: input/demo/heldout_math.jsonl, limit: 3}], max_new_tokens: 20}
END2
n=0
while read -r line; do
    n=$((n + 1))
    sh -c "$line" >"out$n" 2>"err$n" </dev/null || fail "line $n of README.md: $line: $(cat "err$n")"
done <lines
[ -s runs/mine/sft/model/model.safetensors ] && [ -s runs/mine/dpo/model/model.safetensors ] || fail "no models"
grep -q '"eval_loss"' runs/mine/metrics.jsonl || fail "input/own.yaml measures nothing that is held out"
grep -q '"finish"' out3 || fail "imf generate wrote: $(cat out3)"
[ -s runs/all/eval/summary.json ] && [ -s runs/all/report.html ] || fail "imf run did not end with a report"
find runs -mindepth 1 | awk -F/ '!seen[$NF]++' >left  # imf show for everything that a run leaves, one of each name
while read -r path; do
    build/imf show "$path" >shown 2>&1 || fail "imf show $path: $(cat shown)"
done <left
grep -q 'sft.learning_rate' out5 || fail "imf help recipe"
exit 0
