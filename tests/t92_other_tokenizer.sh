#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A tokenizer that does not belong to the model is found at the start of sample, sft, score, generate, logprobs, eval and reward (most
# before a weight is read): one message, 65. What only looks odd (more rows than tokens, an added token without a row) is taken.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$*"; exit 1; }

for i in 1 2 3 4; do echo "{\"prompt\": \"say $i\"}"; done >"$dir/prompts.jsonl"
for i in 1 2 3 4; do echo "{\"instruction\": \"say $i\", \"input\": \"\", \"output\": \"$i\"}"; done >"$dir/rows.jsonl"
echo '{"messages": [{"role": "user", "content": "say 1"}, {"role": "assistant", "content": "1"}]}' >"$dir/talk.jsonl"
echo '{"messages": [{"role": "user", "content": "say 1"}]}' >"$dir/question.jsonl"
echo '{"question": "say 1", "answer": "#### 1"}' >"$dir/held.jsonl"
echo '{"prompt": "say 1", "chosen": "1", "rejected": "2"}' >"$dir/pairs.jsonl"
cat >"$dir/recipe.yaml" <<END
run_dir: $dir/run
prompts: [{path: $dir/prompts.jsonl, dataset: few}]
sources: [{name: tiny, path: $dir/model, n: 1, max_new_tokens: 4}]
target: {path: $dir/model}
reward: {path: $dir/reward}
sft: {data: $dir/rows.jsonl, global_batch: 4, max_length: 64}
eval: {models: target, max_new_tokens: 4, sets: [{path: $dir/held.jsonl, protocol: gsm8k}]}
reward_train: {base: $dir/model, data: [{path: $dir/pairs.jsonl}], backbone: bt, gate_steps: 2}
END
model() {  # a model directory, and one of a reward model
    rm -rf "$dir/model" "$dir/reward"
    cp -r tests/data/decode/tiny "$dir/model"
    cp -r tests/data/reward "$dir/reward"
}
refused() {  # PATTERN INPUT COMMAND...
    pattern=$1 input=$2
    shift 2
    "$@" >"$dir/out" 2>&1 <"$input"
    code=$?
    [ "$code" = 65 ] || fail "$*: exit code $code, 65 expected: $(cat "$dir/out")"
    [ "$(grep -c '^imf: error ' "$dir/out")" = 1 ] || fail "$*: not exactly one message: $(cat "$dir/out")"
    grep -q -- "do not belong together: $pattern.*put the model's own tokenizer.json" "$dir/out" || fail "$*: no '$pattern' in: $(cat "$dir/out")"
}
stages() {  # PATTERN COMMAND...: on two ranks
    pattern=$1
    shift
    for command in "$@"; do refused "$pattern" /dev/null mpirun -n 2 "$imf" "$command" "$dir/recipe.yaml" --quiet; done
}

model
"$imf" select "$dir/recipe.yaml" --quiet && "$imf" sample "$dir/recipe.yaml" --quiet || fail "nothing is wrong yet"
rm -r "$dir/run/samples" "$dir/run/dropped_samples"

# A larger vocabulary: ids that the embedding lacks. No weight is read: they may even be missing.
cp input/demo/byte/tokenizer* "$dir/model"
rm "$dir/model/model.safetensors"
larger='tokenizer.json gives plain text ids up to 511, vocab_size in config.json is 264'
stages "$larger" sample sft eval
refused "$larger" "$dir/question.jsonl" "$imf" generate "$dir/model"
cp tests/data/decode/tiny/model.safetensors "$dir/model"
stages "$larger" reward
refused "$larger" "$dir/talk.jsonl" "$imf" logprobs "$dir/model"
cp input/demo/byte/tokenizer* "$dir/reward"
refused "$larger" "$dir/talk.jsonl" "$imf" score --model "$dir/reward"
[ -e "$dir/run/samples/done" ] || [ -e "$dir/run/sft/model" ] && fail "a refused stage was committed"

# A smaller one: every id has a row, but the model's stop token is none.
model
cp tests/data/reward/tokenizer* "$dir/model"
smaller="config.json says eos_token_id 263, which is no special token of tokenizer.json ('no token')"
stages "$smaller" sample sft
refused "$smaller" "$dir/question.jsonl" "$imf" generate "$dir/model"
model
sed -i 's/"eos_token_id": *[0-9]*/"eos_token_id": 70/; s/"bos_token_id": *[0-9]*/"bos_token_id": null/' "$dir/reward/config.json"
refused 'config.json says eos_token_id 70, which is no special token' "$dir/talk.jsonl" "$imf" score --model "$dir/reward"
sed -i 's/"bos_token_id": *[0-9]*/"bos_token_id": 65/' "$dir/model/config.json"
stages "config.json says bos_token_id 65, which is no special token of tokenizer.json ('[^']*'; its BOS is 259)" sample
model
sed -i 's/"vocab_size": *264/"vocab_size": 262/; /"bos_token_id"/d' "$dir/model/config.json"
sed -i '/"eos_token"/d' "$dir/model/tokenizer_config.json"
stages "a part of the chat template imf-demo is token 262 ('<|assistant|>'), vocab_size in config.json is 262" sft

# Fine: an added token without a row that nothing uses; one of several stop tokens that is an ordinary one.
model
sed -i 's/"added_tokens": *\[/&{"id": 300, "content": "<|image|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},/' \
    "$dir/model/tokenizer.json"
sed -i 's/"eos_token_id": *263/"eos_token_id": [70, 263]/' "$dir/model/config.json"
"$imf" sample "$dir/recipe.yaml" --quiet || fail "an added token without a row is no fault while nothing uses it"
"$imf" generate "$dir/model" <"$dir/question.jsonl" >"$dir/out" || fail "the same in generate"
echo '{"messages": [{"role": "user", "content": "what is on <|image|>?"}]}' >"$dir/image.jsonl"
"$imf" generate "$dir/model" <"$dir/image.jsonl" >"$dir/out" 2>&1
[ $? = 65 ] && grep -q 'id 300 is outside the vocabulary' "$dir/out" || fail "where it is used, it is a fault: $(cat "$dir/out")"
exit 0
