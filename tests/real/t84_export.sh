#!/bin/sh
# SmolLM2 after two steps of `imf sft`, in the published tools: transformers (fp32, eager) gives the same logits and
# log-probabilities (3e-4, see logprobs.py), the same greedy continuations, the same chat ids, and stops where we stop;
# convert_hf_to_gguf.py accepts it, and the weights that come back out of the GGUF file are the exported ones to the bit.
# PEERS: the folder that tools/fetch_reference.sh filled.
set -u
imf=$1/imf
[ -n "${MODELS:-}" ] && [ -d "$MODELS/smollm2" ] || { echo "MODELS/smollm2 is not there; make check-real fetches it"; exit 77; }
peers=${PEERS:-$MODELS} python=${PEERS:-$MODELS}/venv/bin/python
[ -e "$peers/reference.txt" ] || { echo "$peers/venv is not there; make check-real makes it"; exit 77; }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }

awk 'BEGIN { for (i = 0; i < 8; i++) printf "{\"prompt\": \"What is %d plus %d?\", \"completion\": \"It is %d.\"}\n", i, 3 * i, 4 * i }' \
    >"$dir/rows.jsonl"
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

# Debian's torch has no float8, whose names the converter lists and needs for other models only.
"$python" - "$peers/llama.cpp/convert_hf_to_gguf.py" --outtype bf16 --outfile "$dir/model.gguf" "$model" >"$dir/log" 2>&1 <<'END' ||
import runpy, sys, torch
for name in ("float8_e4m3fn", "float8_e5m2"):
    if not hasattr(torch, name):
        setattr(torch, name, None)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
END
    fail "convert_hf_to_gguf.py: $(tail -n 20 "$dir/log")"
"$python" tools/gguf2hf.py "$dir/model.gguf" "$dir/back" || exit 1
python3 tests/real/tensors.py "$model" "$dir/back"
