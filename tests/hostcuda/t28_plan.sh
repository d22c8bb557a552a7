#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf plan with device: cuda: Llama-3.1-8B from config.json alone, the model's published settings on 8 GPUs; what does not fit is refused
# with bytes and a number of ranks that does; the demo's peak on a device is what was planned, within 5 %, whatever its architecture.
set -u
. tests/hostcuda/lib.sh
. tests/lib/mpi.sh
imf=$1/hostcuda/imf
plan() { "$imf" plan "$@" --speed 1000 >"$dir/out" 2>"$dir/err"; }
gpu() { sed -n '/GPU memory/,/come on top/p' "$dir/out" | awk -v k="$1" '$0 ~ "^  " k " " { print $(NF - 1); exit }'; }  # MiB
near() {  # WHAT GOT WANTED SHARE
    awk -v a="$2" -v b="$3" -v e="$4" 'BEGIN { d = a / b - 1; exit !(d < e && d > -e) }' || fail "$1: $2 MiB, wanted $3: $(cat "$dir/out")"
}

eight="input/paper_llama8b.yaml --set target.path=tests/data/plan/llama-3.1-8b --set dpo.base=tests/data/plan/llama-3.1-8b
       --set run_dir=$dir/none --set device=cuda --set dpo.row_tokens=8192 --stage dpo --ranks 8 --memory 4096 --gpu-memory 74"
MIB=7658.25  # of Llama-3.1-8B's weights at a byte each
plan $eight --set shard=grads || fail "8 GPUs, shard: grads: $(cat "$dir/err")"
near weights "$(gpu weights)" "$(echo $MIB | awk '{ print 2 * $1 }')" 0.01
near 'optimiser state' "$(gpu 'optimiser state')" "$(echo $MIB | awk '{ print 16 * $1 / 8 }')" 0.02
near gradients "$(gpu gradients)" "$(echo $MIB | awk '{ print 8 * $1 / 8 + 4 * (128257 * 4096 + 218112000) / 1048576 + 8 * 218112000 / 4 / 1048576 }')" 0.02
# A token and layer: residual 4 H, qkv, o and gate_up in bf16, rstd and lse. A token: 6 H in fp32; norm, dy, swiglu, dwide, dgu, dqkv, dout in bf16; dq, delta.
near activations "$(gpu activations)" "$(awk 'BEGIN { layer = 4 * 4096 + 2 * (6144 + 4096 + 28672) + 4 * 34
    print 8192 * (32 * layer + 24 * 4096 + 2 * (4096 * 3 + 14336 * 4 + 6144) + 4 * (4096 + 32)) / 1048576 }')" 0.005
plan $eight --set shard=states && fail "8 GPUs of 74 GiB do, with shard: states"
grep -q 'shard: grads takes less' "$dir/err" || fail "nothing is advised: $(cat "$dir/err")"
plan $eight --set shard=grads --gpu-memory 65 && fail "8 GPUs of 65 GiB do"
grep -q 'no number of ranks would do' "$dir/err" || fail "ranks beyond grad_chains are advised: $(cat "$dir/err")"
plan $eight --set shard=grads --gpu-memory 65 --set dpo.grad_chains=32 && fail "8 GPUs of 65 GiB do"
more=$(sed -n 's/.*; \([0-9]*\) ranks would do.*/\1/p' "$dir/err")
plan $eight --set shard=grads --gpu-memory 65 --set dpo.grad_chains=32 --ranks "$more" || fail "$more ranks do not do: $(cat "$dir/err")"
plan $eight --set shard=grads --gpu-memory 65 --set dpo.grad_chains=32 --ranks $((more - 1)) && fail "$more ranks are not the fewest"

awk 'BEGIN { for (i = 0; i < 12; i++) printf "{\"prompt\":\"what is %d plus 3?\",\"chosen\":\"it is %d, I say\",\"rejected\":\"no %d\"}\n", i, i + 3, i }' >"$dir/rows.jsonl"
cat >"$dir/r.yaml" <<END
dtype: bfloat16
device: cuda
target: {path: input/demo/novice}
sft: {data: $dir/rows.jsonl, global_batch: 8, max_steps: 1, max_length: 64, grad_chains: 4, row_tokens: 128}
dpo: {data: $dir/rows.jsonl, global_batch: 8, max_steps: 1, max_length: 64, grad_chains: 4, row_tokens: 128}
END
# As many prompts as samples are in flight: all lengths are at their limit.
cat >>"$dir/r.yaml" <<END
prompts: [{path: input/demo/prompts.jsonl}]
select: {max_prompts: 8}
sources: [{name: novice, path: input/demo/novice, temperature: 1, n: 2, max_new_tokens: 24}]
sample: {slots: 8}
END
"$imf" select "$dir/r.yaml" --set run_dir="$dir/sample:2:-" >"$dir/log" 2>&1 || fail "select: $(cat "$dir/log")"
for how in sample:2:- sft:1:states dpo:2:states dpo:2:grads; do
    stage=${how%%:*} shard=${how##*:} ranks=${how#*:} ranks=${ranks%:*} sm=90
    [ $shard = - ] && shard=states
    [ $how != dpo:2:states ] || sm=80
    plan "$dir/r.yaml" --set run_dir="$dir/$how" --set shard=$shard --stage $stage --ranks $ranks || fail "$how: $(cat "$dir/err")"
    HOSTCUDA_SM=$sm mpirun -n $ranks "$imf" $stage "$dir/r.yaml" --set run_dir="$dir/$how" --set shard=$shard >"$dir/log" 2>&1 || fail "$how: $(cat "$dir/log")"
    peak=$(sed -n "s/^gpu: at most \([0-9.]*\) MiB.*/\1/p" "$dir/log")
    echo "$how: planned $(gpu all) MiB, at most $peak MiB"
    near "$how" "$(gpu all)" "$peak" 0.05
done
