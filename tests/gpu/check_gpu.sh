#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make check-gpu: the program on a real GPU, one rank: SFT and LN-DPO follow the CPU's bf16 curve, a second run and shard: grads give the same
# bits, DPO begins at ln 2, greedy answers and scores are the CPU's; then compute-sanitizer's memcheck, racecheck and synccheck on two steps. Prints
# device and driver. Exit 77 without a GPU. IMF_GPU=build/hostcuda/imf tries this script itself on the emulation.
set -u
build=$1
. tests/hostcuda/lib.sh
if [ -z "${IMF_GPU:-}" ]; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || { echo "no GPU is here (nvidia-smi): nothing was checked"; exit 77; }
    make -s BUILD="$build" CUDA=1 || fail "the program for GPUs is not built"
fi
gpu=${IMF_GPU:-$build/cuda/imf} cpu=$build/imf
pairs
recipe 16 32 >"$dir/r.yaml"
cat >>"$dir/r.yaml" <<END
sft: {data: $dir/rows.jsonl, global_batch: 4, max_steps: 20, learning_rate: 0.0001, max_length: 64, grad_chains: 2, logging_steps: 1}
dpo: {data: $dir/rows.jsonl, loss_type: sigmoid_norm, beta: 10, global_batch: 4, max_steps: 20, learning_rate: 0.00002, max_length: 64, grad_chains: 2, logging_steps: 1}
END
# ran PROGRAM STAGE RUN OPTIONS...
ran() {
    binary=$1 what=$2 into=$3
    shift 3
    "$binary" "$what" "$dir/r.yaml" --set run_dir="$dir/$into" "$@" >"$dir/log" 2>&1 || fail "$what, $into: $(cat "$dir/log")"
}
weights() { sha256sum <"$dir/$1/model/model.safetensors"; }

for stage in sft dpo; do
    ran "$cpu" $stage fp32 --set dtype=float32
    ran "$cpu" $stage cpu
    ran "$gpu" $stage gpu --set device=cuda
    ran "$gpu" $stage again --set device=cuda --set shard=grads
    [ "$(weights gpu/$stage)" = "$(weights again/$stage)" ] || fail "$stage: a second run, with shard: grads, gives other bits"
    follows $stage
done
for run in cpu gpu; do
    option=device=cpu program=$cpu
    [ $run = cpu ] || option=device=cuda program=$gpu
    for stage in select sample; do ran "$program" $stage $run-sample --set $option; done
    cat "$dir/$run-sample"/samples/*.jsonl | grep -o '"ids":\[[0-9,]*\]' | sort >"$dir/$run.ids"
done
[ -s "$dir/cpu.ids" ] || fail "no samples"
echo "greedy answers: $(comm -12 "$dir/cpu.ids" "$dir/gpu.ids" | wc -l) of $(wc -l <"$dir/cpu.ids") are the CPU's"
[ "$(comm -12 "$dir/cpu.ids" "$dir/gpu.ids" | wc -l)" -ge 15 ] || fail "greedy answers differ in more than a near-tie"
answers 64
# scored PROGRAM RUN DTYPE DEVICE
scored() { ran "$1" score "$2" --set samples.path="$dir/own.jsonl" --set reward.path=input/demo/reward --set dtype="$3" --set device="$4"; }
scored "$cpu" fp32-score float32 cpu
scored "$cpu" cpu-score bfloat16 cpu
scored "$gpu" gpu-score bfloat16 cuda
near_scores fp32-score cpu-score gpu-score
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck; do
        rm -rf "$dir/sane"
        compute-sanitizer --tool $tool --error-exitcode 9 "$gpu" dpo "$dir/r.yaml" --set run_dir="$dir/sane" --set device=cuda --set dpo.max_steps=2 >"$dir/log" 2>&1 ||
            fail "compute-sanitizer $tool: $(tail -n 30 "$dir/log")"
        echo "compute-sanitizer $tool: clean"
    done
elif [ -z "${IMF_GPU:-}" ]; then fail "compute-sanitizer is not in PATH"; fi
echo "1 passed, 0 failed, 0 skipped"
