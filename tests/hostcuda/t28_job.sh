#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# jobs/dpo_llama8b.slurm: as Slurm would start it, on 8 GPUs of 80 GB with Llama-3.1-8B's header alone, it is planned, to the bytes that follow from the
# header's shapes, and started where it fits. The same script without Slurm trains a tiny Llama 3 on 2 and on 4 ranks of hostcuda; a stop and another
# number of ranks change no bit.
set -u
. tests/hostcuda/lib.sh
. tests/lib/mpi.sh
command -v bash >/dev/null || { echo "bash is not here, and job scripts are bash"; exit 77; }
imf=$(cd "$1" && pwd)/hostcuda/imf
export IMF_HOME="$PWD" IMF_SITE="$dir/site.sh"
recipe=input/paper_llama8b.yaml

# site NAME=VALUE...: the site's settings.
site() { { echo '. "$IMF_HOME/jobs/site.sh"'; echo "IMF=$imf RUNS=$dir/runs $*"; } >"$IMF_SITE"; }
job() { bash jobs/dpo_llama8b.slurm "$recipe" "$@" >"$dir/log" 2>&1; }
ends() {  # CODE WHAT
    [ "$code" = "$1" ] || fail "$2: code $code, wanted $1: $(cat "$dir/log")"
}

# --- 8 GPUs of 80 GB: the weights are a header, and nothing behind it ----------------------------------------------------------
big=$dir/Llama-3.1-8B-Instruct
mkdir -p "$big" "$dir/bin"
cp tests/data/plan/llama-3.1-8b/config.json "$big"
python3 - "$big" <<'END' || fail "no header"
import json, os, struct, sys
c = json.load(open(sys.argv[1] + "/config.json"))
H, F, V = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
kv = H // c["num_attention_heads"] * c["num_key_value_heads"]
shapes = {"model.embed_tokens.weight": [V, H], "model.norm.weight": [H], "lm_head.weight": [V, H]}
for i in range(c["num_hidden_layers"]):
    for name, shape in {"input_layernorm": [H], "post_attention_layernorm": [H], "self_attn.q_proj": [H, H], "self_attn.k_proj": [kv, H], "self_attn.v_proj": [kv, H],
                        "self_attn.o_proj": [H, H], "mlp.gate_proj": [F, H], "mlp.up_proj": [F, H], "mlp.down_proj": [H, F]}.items():
        shapes[f"model.layers.{i}.{name}.weight"] = shape
header, at = {}, 0
for name, shape in shapes.items():
    n = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
    header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + n]}
    at += n
text = json.dumps(header).encode()
with open(sys.argv[1] + "/model.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text)
    os.truncate(f.fileno(), 8 + len(text) + at)  # a hole: it takes no room
END
printf '#!/bin/sh\n[ "$1" = --mpi=list ] && echo pmix_v4 || echo "srun $*" >>"%s/started"\n' "$dir" >"$dir/bin/srun"
chmod +x "$dir/bin/srun"

# planned SHARD ROW_TOKENS: the job on a node of 8 GPUs; $code is how it ended.
planned() {
    rm -f "$dir/started"
    PATH="$dir/bin:$PATH" SLURM_JOB_ID=1 SLURM_NTASKS=8 SLURM_JOB_NUM_NODES=1 SLURM_CPUS_PER_TASK=8 SLURM_MEM_PER_NODE=2097152 \
        job --set target.path="$big" --set dpo.base="$big" --set shard="$1" --set dpo.row_tokens="$2"
    code=$?
    python3 - "$dir/log" "$big" "$1" "$2" <<'END' || fail "shard: $1, rows of $2 tokens: $(cat "$dir/log")"
import json, re, struct, sys
log, shard, T, ranks = open(sys.argv[1]).read(), sys.argv[3], int(sys.argv[4]), 8
with open(sys.argv[2] + "/model.safetensors", "rb") as f:
    shapes = {name: t["shape"] for name, t in json.loads(f.read(struct.unpack("<Q", f.read(8))[0])).items()}
size = lambda of: sum(s[0] * (s[1] if len(s) > 1 else 1) for name, s in shapes.items() if name.startswith(of))
P, layer, vocabulary, layers = size(""), size("model.layers.0."), size("lm_head"), len({n.split(".")[2] for n in shapes if ".layers." in n})
(V, H), F = shapes["lm_head.weight"], shapes["model.layers.0.mlp.up_proj.weight"][0]
wide = H + 2 * shapes["model.layers.0.self_attn.k_proj.weight"][0]  # q, k and v
# fp32 of the head and of one layer; int64 of everything, or of the own share and a quarter of a layer on its way
gradients = 4 * (vocabulary + layer) + (8 * P if shard == "states" else 8 * P / ranks + 8 * layer / 4)
kept = 4 * H + 2 * (wide + H + 2 * F) + 4 * (32 + 2)  # of a token and layer: residual; qkv, o, gate and up in bf16; lse, rstd
once = 6 * 4 * H + 2 * (3 * H + 4 * F + wide) + 4 * (H + 32)  # of a token
want = {"weights": 2 * P, "gradients": gradients, "optimiser state": (3 * 4 + 4) * P / ranks, "activations": T * (layers * kept + once)}
want["all"] = sum(want.values())
table = log[log.index("GPU memory"):]
for name, bytes_ in want.items():
    got = float(re.search(rf"^  {name} +([0-9.]+) MiB", table, re.M).group(1)) * 2 ** 20
    print(f"{shard}, {T} tokens: {name} {got / 1e9:.2f} GB, {bytes_ / 1e9:.2f} from the shapes")
    assert abs(got / bytes_ - 1) < 0.01, name
assert abs(2 * P / 1e9 - 16.06) < 0.01, P
END
}
site NODES=1 RANKS_PER_NODE=8 GPUS_PER_NODE=8 GPU_MEMORY=72
for tokens in 4096 8192; do
    planned grads $tokens
    ends 70 "shard: grads fits"  # the launcher that says 0 has trained nothing
    grep -q -- "--cpus-per-task=8 $imf dpo $recipe --set device=cuda" "$dir/started" || fail "not started: $(cat "$dir/log")"
    planned states $tokens
    ends 69 "shard: states does not fit"
    [ ! -e "$dir/started" ] && grep -q 'shard: grads takes less' "$dir/log" || fail "shard: states: $(cat "$dir/log")"
done
rm -r "$big"

# --- a tiny one of that family, with its template, without Slurm ------------------------------------------------------------------
cp -r input/demo/novice "$dir/tiny"
python3 - "$dir/tiny" <<'END' || fail "no tiny model"
import json, struct, sys
def text_of(name): return open(f"{sys.argv[1]}/{name}", encoding="utf-8").read()
config, tokenizer = json.loads(text_of("config.json")), text_of("tokenizer.json")
config.update(tie_word_embeddings=False, rope_theta=500000.0, max_position_embeddings=131072, rope_scaling={
    "rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192})
for ours, theirs in ("<|bos|>", "<|begin_of_text|>"), ("<|user|>", "<|start_header_id|>"), ("<|assistant|>", "<|end_header_id|>"), ("<|end|>", "<|eot_id|>"):
    assert ours in tokenizer
    tokenizer = tokenizer.replace(ours, theirs)
with open(sys.argv[1] + "/model.safetensors", "rb") as f:
    header, data = json.loads(f.read(struct.unpack("<Q", f.read(8))[0])), f.read()
first, last = header["model.embed_tokens.weight"]["data_offsets"]
header["lm_head.weight"] = dict(header["model.embed_tokens.weight"], data_offsets=[len(data), len(data) + last - first])
text = json.dumps(header).encode()
with open(sys.argv[1] + "/model.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text + data + data[first:last])
json.dump(config, open(sys.argv[1] + "/config.json", "w"))
open(sys.argv[1] + "/tokenizer.json", "w", encoding="utf-8").write(tokenizer)
END
rm "$dir/tiny/tokenizer_config.json"
pairs
head -n 16 "$dir/rows.jsonl" >"$dir/few.jsonl"
tiny="--set target.path=$dir/tiny --set dpo.base=$dir/tiny --set dpo.data=$dir/few.jsonl --set dpo.global_batch=4 --set dpo.max_length=96
      --set dpo.row_tokens=128 --set dpo.logging_steps=1 --set dpo.learning_rate=0.0001"  # all else as published
weights() { sha256sum <"$dir/runs/$1/dpo/model/model.safetensors"; }

site RANKS_PER_NODE=2 GPUS_PER_NODE=2
job $tiny --set run_dir="$dir/runs/two"
code=$?
ends 0 "2 ranks"
grep -q '2 ranks of 1 cores by mpirun' "$dir/log" || fail "not 2 ranks by mpirun: $(cat "$dir/log")"
python3 - "$dir/runs/two/metrics.jsonl" <<'END' || fail "the curve: $(cat "$dir/runs/two/metrics.jsonl")"
import json, sys
loss = [row["loss"] for row in map(json.loads, open(sys.argv[1])) if "loss" in row]
assert len(loss) == 4 and loss[0] == 0.693147182 and loss[-1] < loss[0], loss
END

site RANKS_PER_NODE=4 GPUS_PER_NODE=4
bash jobs/dpo_llama8b.slurm "$recipe" $tiny --set run_dir="$dir/runs/four" >"$dir/log" 2>&1 &
for _ in $(seq 600); do grep -q '"loss"' "$dir/runs/four/metrics.jsonl" 2>/dev/null && break; sleep 0.1; done
kill -s USR1 $!
wait $!
code=$?
ends 75 "4 ranks, asked to stop"
grep -q 'the same command goes on' "$dir/log" || fail "the stop is not explained: $(cat "$dir/log")"
job $tiny --set run_dir="$dir/runs/four"
code=$?
ends 0 "4 ranks again"
grep -q 'resumed from step [1-3] of 4' "$dir/log" || fail "it did not go on: $(cat "$dir/log")"
[ "$(weights two)" = "$(weights four)" ] || fail "4 ranks and a stop give other bits than 2 ranks"
[ "$(weights two)" != "$(sha256sum <"$dir/tiny/model.safetensors")" ] || fail "nothing was learnt"

site RANKS_PER_NODE=2 GPUS_PER_NODE=2 GPU_MEMORY=0.001
job $tiny --set run_dir="$dir/runs/small"
code=$?
ends 69 "a GPU that is too small"
[ ! -e "$dir/runs/small/dpo" ] || fail "what does not fit was begun"
exit 0
