#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf sft, dpo and reward on a user's files: order of lines and ranks change no bit; what is dropped is counted and listed;
# ended runs are not repeated; what is wrong is named, with the exit code of the manual.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$*"; exit 1; }
expect() {  # CODE TEXT COMMAND...: its exit code and a piece of its message
    want=$1 text=$2
    shift 2
    "$@" >"$dir/out" 2>&1 </dev/null
    got=$?
    [ "$got" = "$want" ] || fail "exit $got, wanted $want: $*: $(cat "$dir/out")"
    grep -q -- "$text" "$dir/out" || fail "the message does not say '$text': $(cat "$dir/out")"
}
weights() { cat "$1"/*.safetensors | sha256sum | cut -c1-32; }

# A tiny random target with the demo's tokenizer, and rows: 40 prompts, some of them long.
mkdir "$dir/base" "$dir/a" "$dir/b"
cp tests/data/reward/tokenizer.json tests/data/reward/tokenizer_config.json "$dir/base"
cat >"$dir/base/config.json" <<'EOF'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
 "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 288, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
 "rope_theta": 10000.0, "tie_word_embeddings": true, "torch_dtype": "float32", "hidden_act": "silu", "eos_token_id": 3}
EOF
awk 'BEGIN { for (i = 0; i < 40; i++) {
    more = i % 8 ? "" : " and much more of the same and much more of the same and much more of the same"
    printf "{\"prompt\":\"question %d%s\",\"chosen\":\"answer %d\",\"rejected\":\"no idea %d\"}\n", i, more, i * 7, i % 5 } }' >"$dir/a/rows.jsonl"
awk '{ row[NR] = $0 } END { for (i = NR; i > 0; i--) print row[i] }' "$dir/a/rows.jsonl" >"$dir/b/rows.jsonl"
head -n 1 "$dir/a/rows.jsonl" >>"$dir/b/rows.jsonl"  # a duplicate
cat >"$dir/r.yaml" <<EOF
seed: 5
target: {path: $dir/base, init: random, template: imf-demo}
sft: {data: $dir/a/rows.jsonl, global_batch: 8, num_train_epochs: 2, learning_rate: 0.003, max_length: 64, val_size: 0.1, eval_steps: 2}
dpo: {data: $dir/a/rows.jsonl, global_batch: 8, num_train_epochs: 1, learning_rate: 0.001, max_length: 256, val_size: 4, eval_steps: 2}
reward_train: {base: $dir/1/sft/model, template: imf-demo, data: [{path: $dir/a/rows.jsonl}], backbone: bt, global_batch: 8,
               learning_rate: 0.001, gate_steps: 20, gate_hidden: 16, gate_batch: 16, val_size: 0.2}
EOF
train() {  # RANKS COMMAND RUN OPTIONS...
    ranks=$1 command=$2 run=$3
    shift 3
    mpirun -n "$ranks" "$imf" "$command" "$dir/r.yaml" --set run_dir="$dir/$run" "$@" >"$dir/$run.log" 2>&1 ||
        fail "$command on $ranks ranks: $(cat "$dir/$run.log")"
}

train 1 sft 1
grep -q '35 examples of 40 rows: 5 too long' "$dir/1.log" || fail "dropped rows are not counted: $(cat "$dir/1.log")"
[ "$(grep -c 'longer than max_length' "$dir/1/sft/dropped.jsonl")" = 5 ] || fail "dropped rows are not listed"
id=$(sed -n '1s/.*"id":"\([0-9a-f]*\)".*/\1/p' "$dir/1/sft/dropped.jsonl")
"$imf" trace "$dir/r.yaml" --set run_dir="$dir/1" "$id" | grep -q 'imf sft: longer than max_length' || fail "trace of a user's row"
grep -q '"eval_loss"' "$dir/1/metrics.jsonl" || fail "no held-out loss"
python3 - "$dir/1/metrics.jsonl" <<'EOF' || fail "token accuracy: $(cat "$dir/1/metrics.jsonl")"
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
train = [r["mean_token_accuracy"] for r in rows if "loss" in r]
held = [r["eval_mean_token_accuracy"] for r in rows if "eval_loss" in r]
assert held and all(0 <= x <= 1 for x in train + held) and train[-1] > train[0] and held[-1] > held[0]
EOF
[ -s "$dir/1/sft/model/README.md" ] && [ -s "$dir/1/sft/model/tokenizer.json" ] || fail "the exported directory is not complete"
train 1 sft 1
grep -q 'already trained' "$dir/1.log" || fail "an ended run is repeated"
train 1 dpo 1
grep -q '^reference log-probs: \([0-9]*\)/\1 pairs (100 %), in .* s$' "$dir/1.log" || fail "no progress line: $(cat "$dir/1.log")"
LC_ALL=C grep -q "$(printf '[\001-\010\013-\037]')" "$dir/1.log" && fail "control characters, and this is no terminal"
train 1 reward 1 --set reward_train.data[0].limit=30
grep -q 'held-out pairs: the better answer wins' "$dir/1.log" || fail "no held-out accuracy: $(cat "$dir/1.log")"
grep -q 'over reward_train.data' "$dir/1/reward/dropped.jsonl" || fail "rows over a limit are not listed"
train 1 dpo half --set dtype=bfloat16 --set dpo.base="$dir/1/sft/model"
for run in 1 half; do
    sed -n 's/.*"step":0,.*"eval_loss":\([0-9.]*\),"eval_rewards\/chosen":0,"eval_rewards\/rejected":0,.*/\1/p' "$dir/$run/metrics.jsonl" |
        grep -q '^0.693147182$' || fail "held-out DPO loss of $run does not begin at ln 2"
done
[ "$(weights "$dir/1/dpo/model")" != "$(weights "$dir/half/dpo/model")" ] || fail "bfloat16 computes in float32"

# imf show says something about everything that the three stages left, one of each name.
find "$dir/1" | awk -F/ '!seen[$NF]++' >"$dir/left"
while read -r path; do
    "$imf" show "$path" >"$dir/out" 2>&1 || fail "imf show $path: $(cat "$dir/out")"
done <"$dir/left"
"$imf" show "$dir/1/sft/model/README.md" | grep -q 'sft model written by imf' || fail "imf show of a model card"

train 3 sft 3 --set sft.data="$dir/b/rows.jsonl" --set sft.micro_rows=3
grep -q '1 duplicates' "$dir/3.log" || fail "a duplicate is not counted"
train 2 dpo 3 --set dpo.data="$dir/b/rows.jsonl" --set dpo.micro_rows=2
train 2 reward 3 --set reward_train.data[0].limit=30 --set "reward_train.data[0].path=$dir/b/rows.jsonl" --set reward_train.micro_rows=2
for stage in sft dpo reward; do
    [ "$(weights "$dir/1/$stage/model")" = "$(weights "$dir/3/$stage/model")" ] || fail "$stage: weights depend on the layout"
done
cmp -s "$dir/1/metrics.jsonl" "$dir/3/metrics.jsonl" || fail "curves depend on the layout: $(diff "$dir/1/metrics.jsonl" "$dir/3/metrics.jsonl")"

# exact: false takes a gradient chain a rank, so more ranks than grad_chains are welcome; it says so, gives other bits, and an exact
# recipe does not go on from it.
train 3 sft fast --set exact=false --set sft.grad_chains=2
grep -q '3 ranks, gradient in 3 chains' "$dir/fast.log" && grep -q 'exact: false, so the weights depend' "$dir/fast.log" ||
    fail "exact: false is not told: $(cat "$dir/fast.log")"
[ "$(weights "$dir/1/sft/model")" != "$(weights "$dir/fast/sft/model")" ] || fail "exact: false changes nothing"
expect 78 'another recipe' "$imf" sft "$dir/r.yaml" --quiet --set run_dir="$dir/fast" --set sft.grad_chains=2

sft() { "$imf" sft "$dir/r.yaml" --quiet --set run_dir="$dir/x" "$@"; }
sft --set sft.truncation=keep_start --set sft.max_steps=1 --set sft.max_length=96 || fail "keep_start"
[ "$(grep -c 'cut to max_length' "$dir/x/sft/dropped.jsonl")" = 5 ] || fail "cut rows are not listed: $(cat "$dir/x/sft/dropped.jsonl")"
expect 78 "another recipe" sft --set sft.max_steps=2
expect 0 'eval_steps is 0' sft --set sft.max_steps=1 --set sft.eval_steps=0 --set run_dir="$dir/z"
expect 0 'val_size holds out no row' sft --set sft.max_steps=1 --set sft.val_size=0 --set run_dir="$dir/zz"
expect 78 'largest useful number of ranks is 1' mpirun -n 2 "$imf" sft "$dir/r.yaml" --quiet --set run_dir="$dir/y" --set sft.grad_chains=1
expect 78 'row_tokens' sft --set sft.row_tokens=16 --set run_dir="$dir/y"
expect 65 'template' sft --set target.template=none --set run_dir="$dir/y"
expect 66 'none.jsonl' sft --set sft.data="$dir/none.jsonl" --set run_dir="$dir/y"
printf '{"prompt":"a","completion":"b"}\n{"prompt":\n' >"$dir/torn.jsonl"
expect 65 'torn.jsonl:2' sft --set sft.data="$dir/torn.jsonl" --set run_dir="$dir/y"
sed 's/"vocab_size": 288/"vocab_size": 16/' "$dir/base/config.json" >"$dir/b/config.json"
cp "$dir/base"/tokenizer* "$dir/b"
expect 65 'do not belong together' sft --set target.path="$dir/b" --set run_dir="$dir/y"
# R-REF2: reference log-probabilities of another model, of other pairs, a changed byte, a torn file: one message, and its code, on
# all ranks; removed, they are computed again and the run ends with the same weights. (Every byte and NaN: t48_refs.c.)
rm -rf "$dir/1/dpo/model" "$dir/1/dpo/done.json" "$dir/1/dpo"/step_*
refs=$dir/1/dpo/ref_logps.bin
refused() {  # TEXT OPTIONS...
    text=$1
    shift
    expect 65 "$text" mpirun -n 3 "$imf" dpo "$dir/r.yaml" --quiet --set run_dir="$dir/1" "$@"
    [ "$(grep -c '^imf: error ' "$dir/out")" = 1 ] || fail "not one message: $(cat "$dir/out")"
    [ -e "$dir/1/dpo/model" ] && fail "a model was trained on refused references"
    return 0
}
cp "$refs" "$dir/refs"
refused 'ref_logps.bin belongs to another model or to other pairs; choose another run_dir, or remove it' --set dpo.base=tests/data/decode/tiny --set target.template=auto
sed '$ s/answer [0-9]*/answer 9/' "$dir/a/rows.jsonl" >"$dir/changed.jsonl"
refused 'ref_logps.bin belongs to another model or to other pairs' --set dpo.data="$dir/changed.jsonl"
head -n 39 "$dir/a/rows.jsonl" >"$dir/changed.jsonl"
refused 'ref_logps.bin belongs to another model or to other pairs' --set dpo.data="$dir/changed.jsonl"
printf '\377' | dd of="$refs" bs=1 seek=300 conv=notrunc status=none
refused 'ref_logps.bin does not match its own sum.*remove it, and it is computed again'
echo x >>"$refs"
refused 'ref_logps.bin is torn'
rm "$refs"
train 2 dpo 1
cmp -s "$refs" "$dir/refs" || fail "computed again, the reference log-probabilities differ"
[ "$(weights "$dir/1/dpo/model")" = "$(weights "$dir/3/dpo/model")" ] || fail "dpo: other weights with references computed again"
exit 0
