#!/bin/sh
# Ranks of different machines agree on the lowest instruction set level: rank 1 is held at `base`, so all compute there.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
echo '{"prompt": "Hello"}' >"$dir/prompts.jsonl"
printf 'run_dir: %s\nprompts:\n  - path: %s\n' "$dir/run" "$dir/prompts.jsonl" >"$dir/recipe.yaml"
mpirun --allow-run-as-root --oversubscribe -n 1 "$imf" select "$dir/recipe.yaml" : -n 1 -x IMF_ISA=base "$imf" select "$dir/recipe.yaml" \
    >"$dir/out" 2>&1 || { cat "$dir/out"; exit 1; }
grep -q 'cpu: float32 on base with .*, 2 ranks of 1 threads' "$dir/out" || { echo "no level agreed on:"; cat "$dir/out"; exit 1; }
