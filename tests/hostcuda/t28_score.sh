#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf score with device: cuda on hostcuda: scores, objectives and gates are the CPU's in bf16 but for its rounding; ranks and interruptions change no bit; scores that
# were begun on one are not continued on the other; so it is with eval's rewards and answers; imf plan knows the peak of the GPU's memory. Reward models that imf
# reward trains on it, backbone and heads, give the scores of those that the CPU trains, as near; ranks and shard: change no bit of them.
set -u
. tests/hostcuda/lib.sh
. tests/lib/mpi.sh
printf 'dtype: bfloat16\nreward: {path: input/demo/reward, max_length: 128}\nsamples: {path: %s}\n' "$dir/own.jsonl" >"$dir/r.yaml"
printf 'target: {path: input/demo/novice}\neval: {models: target, sets: [{path: %s, name: math}], temperature: 0, max_new_tokens: 8}\n' "$dir/math.jsonl" >>"$dir/r.yaml"
head -n 3 input/demo/heldout_math.jsonl >"$dir/math.jsonl"
answers 12
# score PROGRAM RANKS RUN OPTIONS...
stage=score
score() {
    program=$1/imf ranks=$2 run=$3
    shift 3
    mpirun -n "$ranks" "$program" $stage "$dir/r.yaml" --set run_dir="$dir/$run" "$@" >"$dir/log" 2>&1
}
good() { score "$@" || fail "$3: $(cat "$dir/log")"; }
digest() { sed -n 's/.*"digest": *"\([0-9a-f]*\)".*/\1/p' "$dir/$1/scores/done"; }
# refused OPTIONS...: another device is not taken for the one that computed.
refused() {
    score "$@"
    [ $? = 78 ] && grep -q 'was made with other inputs (device)' "$dir/log" || fail "$3 was not refused: $(cat "$dir/log")"
}

good "$1" 1 fp32 --set dtype=float32
good "$1" 1 cpu
good "$1/hostcuda" 1 one --set device=cuda
grep "a GPU's memory" "$dir/log" >"$dir/peak" && cp "$dir/log" "$dir/one.log" || fail "nothing computed on the device: $(cat "$dir/log")"
good "$1/hostcuda" 2 two --set device=cuda
[ -n "$(digest one)" ] && [ "$(digest one)" = "$(digest two)" ] || fail "1 and 2 ranks give other scores"
refused "$1/hostcuda" 1 cpu --set device=cuda
IMF_FAULT=journal-index:7@score score "$1/hostcuda" 1 cut --set device=cuda && fail "the fault did not come"
refused "$1" 1 cut
good "$1/hostcuda" 1 cut --set device=cuda
[ "$(digest one)" = "$(digest cut)" ] || fail "a run that was interrupted gives other scores"
near_scores fp32 cpu one

# The plan is for batches of 2,048 tokens; activations are in proportion to tokens.
"$1/hostcuda/imf" plan "$dir/r.yaml" --set run_dir="$dir/none" --set device=cuda --stage score --speed 1000 >"$dir/plan" || fail "plan: exit $?"
tokens=$(sed -n 's/^score: .* unscored.*, \([0-9]*\) tokens/\1/p' "$dir/one.log") peak=$(sed -n 's/.*at most \([0-9.]*\) MiB.*/\1/p' "$dir/peak")
sed -n '/GPU memory/,/come on top/p' "$dir/plan" | awk -v tokens="$tokens" -v peak="$peak" '$1 == "weights" { w = $2 } $1 == "activations" { a = $2 }
    END { want = w + a * tokens / 2048; print "planned", want, "MiB, at most", peak; exit !(w > 0 && a > 0 && peak / want < 1.05 && peak / want > 0.95) }' ||
    fail "a peak of $peak MiB with $tokens tokens was not planned: $(cat "$dir/plan")"
"$1/hostcuda/imf" plan "$dir/r.yaml" --set run_dir="$dir/none" --set device=cuda --stage score --speed 1000 --gpu-memory 0.001 >"$dir/plan" 2>&1
[ $? = 69 ] && grep -q 'score (reward) wants .* of a GPU' "$dir/plan" || fail "a GPU of 1 MiB does: $(cat "$dir/plan")"

awk 'BEGIN { for (i = 0; i < 4; i++)
    printf "{\"prompt\":\"what is %d plus 3?\",\"answers\":[{\"text\":\"it is %d, I say\",\"score\":1,\"objectives\":{\"right\":1,\"sure\":0.%d}},{\"text\":\"no idea\",\"score\":0,\"objectives\":{\"right\":0,\"sure\":0.%d}}]}\n", i, i + 3, 9 - i, i
}' >"$dir/graded.jsonl"
cat >>"$dir/r.yaml" <<END
reward_train: {base: input/demo/novice, data: [{path: $dir/graded.jsonl}], backbone: both, max_steps: 2, warmup_ratio: 0, learning_rate: 0.001, global_batch: 2, grad_chains: 2,
               row_tokens: 40, gate_steps: 20, val_size: 0}
END
# reward PROGRAM RANKS RUN OPTIONS...: trains $dir/RUN/reward/model.
reward() {
    stage=reward
    good "$@"
    stage=score
}
trained() { sha256sum <"$dir/$1/reward/model/model.safetensors"; }
reward "$1" 1 rfp32 --set dtype=float32
reward "$1" 1 rcpu
reward "$1/hostcuda" 2 rgpu --set device=cuda --set shard=grads
reward "$1/hostcuda" 1 rgpu1 --set device=cuda
grep -q "a GPU's memory" "$dir/log" || fail "imf reward does not compute on the device: $(cat "$dir/log")"
[ "$(trained rgpu)" = "$(trained rgpu1)" ] || fail "1 and 2 ranks train other reward models"
for run in rfp32 rcpu rgpu; do good "$1" 1 $run --set dtype=float32 --set reward.path="$dir/$run/reward/model"; done
near_scores rfp32 rcpu rgpu
stage=reward
score "$1" 1 none --set device=cuda
[ $? = 69 ] || fail "imf reward without a device: $(cat "$dir/log")"

stage=eval
good "$1" 1 cpu
good "$1/hostcuda" 2 one --set device=cuda
refused "$1" 1 one
mv "$dir/one/eval/target" "$dir/kept" && cp -r "$dir/cpu/eval/target" "$dir/one/eval/target"  # the same answers, but for who gave them
refused "$1/hostcuda" 1 one --set device=cuda
