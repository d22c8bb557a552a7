#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# R-TOK2: every job that renders conversations checks the contract of chat.h at its start and stops when a tokenizer breaks it.
# Here tokenizer_config.json calls '?' the BOS token, so that a question holds one where the template wants none.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$*"; exit 1; }

mkdir "$dir/model"
cp tests/data/text/tiny/qwen/tokenizer.json "$dir/model"
cat >"$dir/model/config.json" <<'END'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1,
 "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 4096, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
 "rope_theta": 10000.0, "tie_word_embeddings": true, "torch_dtype": "float32", "hidden_act": "silu", "eos_token_id": 3}
END
echo '{"prompt": "Which one?", "chosen": "This one.", "rejected": "None.", "kind": "math", "gold": "1"}' >"$dir/rows.jsonl"
cat >"$dir/recipe.yaml" <<END
run_dir: $dir/run
prompts: [{path: $dir/rows.jsonl}]
sources: [{name: s, path: $dir/model, template: qwen2.5, n: 1, max_new_tokens: 2}]
target: {path: $dir/model, template: qwen2.5, init: random}
sft: {data: $dir/rows.jsonl, max_steps: 1, global_batch: 1, max_length: 250}
dpo: {data: $dir/rows.jsonl, max_steps: 1, global_batch: 1, max_length: 250}
eval: {models: sft, max_new_tokens: 2, sets: [{path: $dir/rows.jsonl, name: held}]}
END

echo '{}' >"$dir/model/tokenizer_config.json"
"$imf" sft "$dir/recipe.yaml" >"$dir/log" 2>&1 || fail "sft with a tokenizer in order: $(cat "$dir/log")"
printf '{"bos_token": "?"}\n' | tee "$dir/model/tokenizer_config.json" >"$dir/run/sft/model/tokenizer_config.json"
echo '{"prompt": "Held out"}' >"$dir/held.jsonl"
"$imf" select "$dir/recipe.yaml" --set run_dir="$dir/two" --set "eval.sets[0].path=$dir/held.jsonl" --quiet || fail "select"
for command in "sample two" "sft two" "dpo two" "eval run"; do
    mpirun -n 2 "$imf" "${command% *}" "$dir/recipe.yaml" --set run_dir="$dir/${command#* }" --set dpo.base="$dir/run/sft/model" >"$dir/log" 2>&1
    [ $? = 65 ] && grep -q 'template qwen2.5: [0-9]* BOS tokens, wanted none' "$dir/log" || fail "$command: $(cat "$dir/log")"
done
[ ! -e "$dir/two/samples/done" ] && [ ! -e "$dir/two/sft/model" ] && [ ! -e "$dir/run/eval/summary.json" ] || fail "something was committed"
exit 0
