#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf sft and dpo with device: cuda on hostcuda: the demo's target follows the CPU's bf16 curve; ranks and shard: change no bit, also
# of a run that goes on from a checkpoint, which it does on the CPU too, and on a device of another architecture. Without a device the program ends with 69 and says what to do.
# It takes longest, so it begins first.
set -u
. tests/hostcuda/lib.sh
. tests/lib/mpi.sh
pairs
cat >"$dir/r.yaml" <<END
seed: 5
target: {path: input/demo/novice}
sft: {data: $dir/rows.jsonl, global_batch: 4, max_steps: 20, learning_rate: 0.0001, max_length: 64, grad_chains: 4, logging_steps: 1, save_steps: 14}
dpo: {data: $dir/rows.jsonl, base: $dir/untied, loss_type: sigmoid_norm, beta: 10, global_batch: 4, max_steps: 20, learning_rate: 0.00002, max_length: 64, grad_chains: 4, logging_steps: 1, save_steps: 14}
END
# The demo's target with a head of its own, as Llama-3.1-8B has one; and as Qwen 2, with biases.
for model in untied qwen; do
    cp -r input/demo/novice "$dir/$model"
    python3 - "$dir/$model" $model <<'END'
import json, struct, sys
path = sys.argv[1] + "/config.json"
config = json.load(open(path))
config["tie_word_embeddings"] = False
with open(sys.argv[1] + "/model.safetensors", "rb") as f:
    header, data = json.loads(f.read(struct.unpack("<Q", f.read(8))[0])), f.read()
def add(name, shape, bytes_):
    global data
    header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(data), len(data) + len(bytes_)]}
    data += bytes_
first, last = header["model.embed_tokens.weight"]["data_offsets"]
assert header["model.embed_tokens.weight"]["dtype"] == "BF16"
add("lm_head.weight", header["model.embed_tokens.weight"]["shape"], data[first:last])
if sys.argv[2] == "qwen":
    config.update(model_type="qwen2", architectures=["Qwen2ForCausalLM"])
    for l in range(config["num_hidden_layers"]):
        for name, n in (("q", 128), ("k", 64), ("v", 64)):
            add(f"model.layers.{l}.self_attn.{name}_proj.bias", [n], struct.pack(f"<{n}H", *(0x3d00 + 5 * i % 97 for i in range(n))))
text = json.dumps(header).encode()
with open(sys.argv[1] + "/model.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text + data)
json.dump(config, open(path, "w"))
END
done
# train PROGRAM RANKS STAGE RUN OPTIONS...
train() {
    program=$1/imf ranks=$2 stage=$3 run=$4
    shift 4
    mpirun -n "$ranks" "$program" "$stage" "$dir/r.yaml" --set run_dir="$dir/$run" "$@" >"$dir/log" 2>&1 || fail "$stage, $run: $(cat "$dir/log")"
}
weights() { sha256sum <"$dir/$1/model/model.safetensors"; }

# again RUN STAGE: as if the run had ended behind its checkpoint of step 14.
again() {
    cp -r "$dir/gpu" "$dir/$1"
    rm -r "$dir/$1/$2/step_000000020" "$dir/$1/$2/done.json" "$dir/$1/$2/model"
}

for stage in sft dpo; do
    train "$1" 1 $stage fp32
    train "$1" 1 $stage cpu --set dtype=bfloat16
    train "$1/hostcuda" 2 $stage gpu --set dtype=bfloat16 --set device=cuda
    for how in 1:states 4:grads; do
        again other $stage
        train "$1/hostcuda" ${how%:*} $stage other --set dtype=bfloat16 --set device=cuda --set shard=${how#*:}
        grep -q 'resumed from step 14' "$dir/log" || fail "$stage: not resumed: $(cat "$dir/log")"
        [ "$(weights gpu/$stage)" = "$(weights other/$stage)" ] || fail "$stage: $how gives other bits than 2:states"
        rm -r "$dir/other"
    done
    again ampere $stage
    export HOSTCUDA_SM=80
    train "$1/hostcuda" 2 $stage ampere --set dtype=bfloat16 --set device=cuda
    unset HOSTCUDA_SM
    grep -q 'compute capability 8.0' "$dir/log" && grep -q 'resumed from step 14' "$dir/log" || fail "$stage, sm_80: $(cat "$dir/log")"
    follows $stage ampere
    again host $stage
    train "$1" 1 $stage host --set dtype=bfloat16
    grep -q 'resumed from step 14' "$dir/log" || fail "$stage: the CPU does not go on: $(cat "$dir/log")"
    follows $stage
    rm -r "$dir/host" "$dir/ampere"
done

# Biases, no kernel of Hopper's, and a rank without rows: a few steps.
export HOSTCUDA_SM=80
for how in 1:grads 2:states; do
    train "$1/hostcuda" ${how%:*} sft "qwen$how" --set dtype=bfloat16 --set device=cuda --set shard=${how#*:} --set target.path="$dir/qwen" --set sft.max_steps=2 --set sft.global_batch=1
done
unset HOSTCUDA_SM
train "$1" 1 sft qwencpu --set dtype=bfloat16 --set target.path="$dir/qwen" --set sft.max_steps=2 --set sft.global_batch=1
[ "$(weights qwen1:grads/sft)" = "$(weights qwen2:states/sft)" ] || fail "a model with biases: 2 ranks give other bits than 1"
python3 - "$dir" <<'END' || fail "a model with biases leaves the CPU's curve"
import json, sys
gpu, cpu = ([json.loads(line) for line in open(f"{sys.argv[1]}/{run}/metrics.jsonl")] for run in ("qwen1:grads", "qwencpu"))
assert len(gpu) == len(cpu) >= 2
for g, c in zip(gpu, cpu):
    for key in ("loss", "grad_norm"):
        assert abs(g[key] - c[key]) <= 0.02 * c[key], (g, c)
END

program=$1/imf
nvcc=$(find_nvcc) && { program=$1/cuda/imf; make -s BUILD="$1" CUDA=1 || fail "the program for GPUs is not built"; }
CUDA_VISIBLE_DEVICES= "$program" sft "$dir/r.yaml" --set run_dir="$dir/none" --set dtype=bfloat16 --set device=cuda >"$dir/log" 2>&1
[ $? = 69 ] && grep -q 'device: cpu' "$dir/log" || fail "without a device: $(cat "$dir/log")"
