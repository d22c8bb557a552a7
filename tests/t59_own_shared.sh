#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Own material (item 13): --set target.path= takes Hugging Face directories as Llama-3.2 and Qwen-2.5 have them (their real tokenizers
# and templates; the weights are random and small) and the demo layouts of ../shared/data/chat, which a clone has not.
# SHARED=DIR: elsewhere.
set -u
imf=$1/imf shared=${SHARED:-../shared}
[ -e "$shared/data/chat/dpo_en_demo.json" ] || { echo "$shared/data/chat is not there"; exit 77; }
[ -e "$shared/tokenizers/qwen-2.5/tokenizer.json.xz" ] || { echo "$shared/tokenizers is not there"; exit 77; }
command -v xz >/dev/null || { echo "xz is not installed"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }

directory() {  # NAME: its tokenizer's files; config.json comes from standard input
    mkdir "$dir/$1" && cat >"$dir/$1/config.json"
    xz -dc "$shared/tokenizers/$1/tokenizer.json.xz" >"$dir/$1/tokenizer.json"
    cp "$shared/tokenizers/$1/tokenizer_config.json" "$dir/$1"
}
directory llama-3.1 <<'END2'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
 "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 128256, "max_position_embeddings": 131072,
 "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "hidden_act": "silu",
 "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
 "rope_type": "llama3"}, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "attention_bias": false}
END2
directory qwen-2.5 <<'END2'
{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
 "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768, "rms_norm_eps": 1e-06,
 "rope_theta": 1000000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "hidden_act": "silu", "use_sliding_window": false,
 "sliding_window": 32768, "max_window_layers": 28, "bos_token_id": 151643, "eos_token_id": 151645}
END2
train() {  # COMMAND FILE RUN OPTIONS...
    command=$1 file=$2 run=$3
    shift 3
    "$imf" "$command" input/own.yaml --set run_dir="$dir/$run" --set "$command.data=$shared/data/chat/$file" \
        --set "$command.max_steps=2" --set "$command.global_batch=4" --set "$command.row_tokens=0" --set "$command.max_length=160" \
        --set "$command.val_size=4" "$@" >"$dir/log" 2>&1 || fail "$command on $file: $(cat "$dir/log")"
}
count() { grep -q "$1" "$dir/log" || fail "$file: no '$1' in: $(cat "$dir/log")"; }

for model in llama-3.1 qwen-2.5; do
    train sft alpaca_en_demo.json "$model.run" --set target.path="$dir/$model" --set target.init=random
    count 'of 999 rows' && count '14 duplicates'
    [ -s "$dir/$model.run/sft/model/model.safetensors" ] || fail "no model of $model"
    own=$dir/$model.run/sft/model  # from here on a directory with weights, as it is downloaded
    train sft identity.json "$model.second" --set target.path="$own"
    count 'of 91 rows'
    train dpo dpo_en_demo.json "$model.second" --set target.path="$own"
    count 'of 300 rows' && count 'loss 0.6931'
    train dpo dpo_zh_demo.json "$model.third" --set target.path="$own"
    count 'of 300 rows'
done
"$imf" sft input/own.yaml --quiet --set target.path=input/demo/novice --set sft.data="$shared/data/chat/dpo_en_demo.json" \
    --set run_dir="$dir/x" >"$dir/log" 2>&1
[ $? = 65 ] && grep -q 'dpo_en_demo.json: entry [0-9]*: row .*role system' "$dir/log" || fail "a role without a token: $(cat "$dir/log")"
exit 0
