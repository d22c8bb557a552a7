#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# SmolLM2 after two steps of `imf sft`, in the published tools: transformers (fp32, eager) gives the same logits and
# log-probabilities (3e-4, see logprobs.py), the same greedy continuations, the same chat ids, and stops where we stop;
# convert_hf_to_gguf.py accepts it, and the weights that come back out of the GGUF file are the exported ones to the bit.
# PEERS: the folder that tools/fetch_reference.sh filled.
set -u
imf=$1/imf
[ -n "${MODELS:-}" ] || { echo "MODELS is not set; make check-real sets it"; exit 77; }
[ -d "$MODELS/smollm2" ] || { echo "$MODELS/smollm2 is not there"; exit 77; }
peers=${PEERS:-$MODELS} python=${PEERS:-$MODELS}/venv/bin/python
[ -e "$peers/reference.txt" ] || { echo "$peers/venv is not there; make check-real makes it"; exit 77; }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }

for i in 1 2 3 4 5 6 7 8; do
    echo "{\"prompt\": \"What is $i plus $i?\", \"completion\": \"It is $((2 * i)).\"}"
done >"$dir/rows.jsonl"
cat >"$dir/recipe.yaml" <<END
seed: 1
run_dir: $dir/run
target: {path: $MODELS/smollm2}
sft: {data: $dir/rows.jsonl, global_batch: 4, max_steps: 2, learning_rate: 0.00001, max_length: 64}
END
"$imf" sft "$dir/recipe.yaml" --quiet || fail "imf sft: exit $?"
model=$dir/run/sft/model
python3 tests/real/tensors.py "$model" "$MODELS/smollm2" >"$dir/log" && fail "two steps changed no weight"

"$python" tests/real/export.py "$imf" "$model" || exit 1
"$python" tools/reference/real.py "$model" "$dir/expected.json" --rows 10 --tokens 32 || exit 1
python3 tests/real/logprobs.py "$imf" "$model" "$dir/expected.json" || exit 1
python3 tests/real/greedy.py "$imf" "$model" "$dir/expected.json" || exit 1

"$python" tests/real/convert.py "$peers/llama.cpp/convert_hf_to_gguf.py" --outtype bf16 --outfile "$dir/model.gguf" "$model" \
    >"$dir/log" 2>&1 || fail "convert_hf_to_gguf.py: $(tail -n 20 "$dir/log")"
"$python" tools/gguf2hf.py "$dir/model.gguf" "$dir/back" || exit 1
python3 tests/real/tensors.py "$model" "$dir/back"
