#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf plan (R-MEM1, R-CKPT4, anchor 6): numbers of published models from config.json alone; a node that is too small is refused with
# the bytes and a number of nodes, which does and of which one less does not; nothing is written; what runs is what was planned:
# rows, steps and tokens of the demo's target, and its peak memory (shared memory once) within 10 % on 1, 2 and 4 ranks.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }

recipe() {  # MODEL
    cat >"$dir/$1.yaml" <<END
run_dir: $dir/run
target: {path: tests/data/plan/$1}
sources: [{path: tests/data/plan/$1, n: 4, max_new_tokens: 512}]
sft: {row_tokens: 2048}
END
}
plan() {  # MODEL OPTIONS...: output in $dir/out, its exit code in $code
    model=$1
    shift
    "$imf" plan "$dir/$model.yaml" --speed 1000 "$@" >"$dir/out" 2>"$dir/err"
    code=$?
}
row() { awk -v k="$1" '$0 ~ "^  " k " " { print $(NF - 1); exit }' "$dir/out"; }  # MiB of a node
near() {  # WHAT GOT WANTED: within 0.1 %
    awk -v a="$2" -v b="$3" 'BEGIN { d = a / b - 1; exit !(d < 0.001 && d > -0.001) }' || fail "$model: $1 is $2, wanted $3"
}

# Parameters as their model cards count them. fp32: 4 bytes a weight, 8 a weight for two moments.
for each in llama-3.1-8b:8030.261248 llama-3.1-70b:70553.706496 qwen2.5-72b:72706.203648; do
    name=${each%:*} millions=${each#*:}
    recipe "$name"
    plan "$name" --ranks 8 --ranks-per-node 1 --memory 4096 --stage sft
    [ $code = 0 ] || fail "$name: $code, $(cat "$dir/err")"
    near parameters "$(sed -n "s/^sft: $name, \([0-9.]*\) million parameters/\1/p" "$dir/out")" "$millions"
    near weights "$(row weights)" "$(echo "$millions" | awk '{ print $1 * 1e6 * 4 / 1048576 }')"
    near gradients "$(row gradients)" "$(echo "$millions" | awk '{ print $1 * 1e6 * 4 / 1048576 }')"
    awk -v a="$(row 'optimiser state')" -v b="$millions" 'BEGIN { d = a / (b * 1e6 / 1048576) - 1; exit !(d < 0.05 && d > -0.05) }' ||
        fail "$name: an eighth of the moments is $(row 'optimiser state') MiB"
    plan "$name" --ranks 2 --memory 4096 --stage sample --set dtype=bfloat16
    awk -v a="$(row weights)" -v b="$millions" 'BEGIN { d = a / (b * 1e6 * 2 / 1048576) - 1; exit !(d < 0.01 && d > -0.01) }' ||
        fail "$name: bf16 weights are $(row weights) MiB"
done
# Keys and values of Llama-3.1-8B take 128 KiB a token in bf16 (32 layers, 8 heads of 128): 64 answers of 512 tokens and 17 prompts of
# 1024 are 784 pages of 64 tokens, and a pool that doubles from 128 has 1024.
plan llama-3.1-8b --memory 4096 --stage sample --set dtype=bfloat16
near 'KV cache' "$(row 'KV cache')" 8192

# Families that are not computed are refused in one sentence, or planned with the right number.
for each in mistral-large-123b:122610.069504 gemma-2-27b:27227.128320; do
    name=${each%:*}
    recipe "$name"
    plan "$name" --ranks 2 --memory 8192 --stage sft
    if [ $code = 0 ]; then
        near parameters "$(sed -n "s/^sft: $name, \([0-9.]*\) million parameters/\1/p" "$dir/out")" "${each#*:}"
    else
        [ $code = 65 ] && grep -q "model_type.*is not supported" "$dir/err" && [ "$(wc -l <"$dir/err")" = 1 ] ||
            fail "$name: $code, $(cat "$dir/err")"
    fi
done

# Too small a node, and what it says would do.
plan llama-3.1-8b --ranks 2 --memory 160 --stage sft --set dtype=bfloat16
[ $code = 69 ] || fail "two ranks of 8B on a node of 160 GiB: $code, $(cat "$dir/err")"
grep -qF 'the node (--memory) has 171798691840 bytes' "$dir/err" || fail "bytes there: $(cat "$dir/err")"
want=$(sed -n 's/.*wants \([0-9]*\) bytes on a node.*/\1/p' "$dir/err")
near 'bytes wanted' "$want" "$(row all | awk '{ print $1 * 1048576 }')"
set -- $(sed -n 's/.*would do is \([0-9]*\), with \([0-9]*\) rank.*/\1 \2/p' "$dir/err")
[ $# = 2 ] || fail "no number of nodes: $(cat "$dir/err")"
nodes=$1 each=$2
plan llama-3.1-8b --ranks $((nodes * each)) --ranks-per-node "$each" --memory 160 --stage sft --set dtype=bfloat16
[ $code = 0 ] || fail "$nodes nodes of $each ranks do not do: $(cat "$dir/err")"
fewer=$((nodes - 1)) r=2
while [ $fewer -gt 0 ] && [ $r -gt 0 ]; do
    plan llama-3.1-8b --ranks $((fewer * r)) --ranks-per-node $r --memory 160 --stage sft --set dtype=bfloat16
    [ $code = 69 ] || fail "$fewer nodes of $r ranks do too"
    r=$((r - 1))
done
plan llama-3.1-70b --memory 160 --stage sft
[ $code = 69 ] && grep -q 'no number of nodes would do' "$dir/err" || fail "70B on nodes of 160 GiB: $code, $(cat "$dir/err")"
plan llama-3.1-8b --ranks 9 --memory 4096 --stage sft
[ $code = 78 ] && grep -q 'largest useful number of ranks is 8' "$dir/err" || fail "9 ranks of 8 chains: $code, $(cat "$dir/err")"
plan llama-3.1-8b --speed x
[ $code = 64 ] || fail "--speed x: $code"
plan llama-3.1-8b --stage train
[ $code = 64 ] || fail "--stage train: $code"
[ ! -e "$dir/run" ] || fail "a plan wrote into run_dir"

# The work of a real run: rows, steps and tokens as the stage itself says them, and a speed from its log.
awk 'BEGIN { for (i = 0; i < 70; i++) {
    printf "{\"prompt\":\"say %d and more of it\",\"chosen\":\"%d", i, i; for (k = 0; k < i % 7 + 1; k++) printf " and %d more", i
    printf "\",\"rejected\":\"no %d\"}\n", i } }' >"$dir/rows.jsonl"
cat >"$dir/small.yaml" <<END
run_dir: $dir/run
target: {path: input/demo/novice}
dpo: {data: $dir/rows.jsonl, global_batch: 16, max_length: 160, num_train_epochs: 2, val_size: 6, grad_chains: 3}
END
plan small --stage dpo
[ $code = 0 ] || fail "small: $(cat "$dir/err")"
"$imf" dpo "$dir/small.yaml" >"$dir/log" 2>&1 || fail "imf dpo: $(cat "$dir/log")"
steps=$(sed -n 's/.*held out), \([0-9]*\) steps of.*/\1/p' "$dir/log")
grep -q "work: $steps steps," "$dir/out" || fail "the stage made $steps steps: $(cat "$dir/out")"
"$imf" plan "$dir/small.yaml" --stage dpo >"$dir/out" 2>&1 || fail "plan again: $(cat "$dir/out")"
grep -q 'tokens/s (measured in this run directory on 1 rank)' "$dir/out" || fail "the log was not used: $(cat "$dir/out")"
rm -r "$dir/run"

# Peak memory. Rows of 512 tokens make it large beside the program itself.
command -v python3 >/dev/null || { echo "python3 is not installed: memory was not measured"; exit 77; }
grep -q "^Pss_Anon:" /proc/self/smaps_rollup 2>/dev/null || { echo "/proc/self/smaps_rollup is not there: memory was not measured"; exit 77; }
python3 - "$dir" <<'END'
import json, sys
with open(sys.argv[1] + "/sft.jsonl", "w") as sft, open(sys.argv[1] + "/dpo.jsonl", "w") as dpo, open(sys.argv[1] + "/prompts.jsonl", "w") as p:
    for i in range(128):
        answer = f"the answer is {i}. " * (9 + i % 11)
        sft.write(json.dumps({"instruction": f"say {i}", "output": answer}) + "\n")
        dpo.write(json.dumps({"prompt": f"say {i}", "chosen": answer, "rejected": f"maybe {i}. " * (4 + i % 9)}) + "\n")
        p.write(json.dumps({"prompt": f"say {i} and go on"}) + "\n")
END
measure() {  # STAGE DATA OPTIONS...
    stage=$1 data=$2
    shift 2
    python3 tools/plan_measure.py --imf "$imf" --work "$dir/work" --model input/demo/novice --data "$data" --stage "$stage" --tolerance 10 "$@" \
        >"$dir/out" 2>&1 || fail "planned and measured memory differ by more than 10 %: $(cat "$dir/out")"
}
rows="global_batch=128 max_length=512 row_tokens=2048 max_steps=1 grad_chains=4"
measure sft "$dir/sft.jsonl" --layouts 1,2,4 $(for r in $rows; do echo --set "sft.$r"; done)
measure dpo "$dir/dpo.jsonl" --layouts 1,2,4 $(for r in $rows; do echo --set "dpo.$r"; done)
measure sample "$dir/prompts.jsonl" --layouts 1,2 --set sample.slots=256 --set 'sources[0].n=8' --set 'sources[0].max_new_tokens=32'
exit 0
