#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Ranks of different machines agree on the lowest instruction set level: rank 1 is held at `base`, so all compute there. Going on at
# another level is warned about and recorded in jobs.jsonl.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
echo '{"prompt": "Hello"}' >"$dir/prompts.jsonl"
printf 'run_dir: %s\nprompts:\n  - path: %s\n' "$dir/run" "$dir/prompts.jsonl" >"$dir/recipe.yaml"
mpirun --allow-run-as-root --oversubscribe -n 1 "$imf" select "$dir/recipe.yaml" : -n 1 -x IMF_ISA=base "$imf" select "$dir/recipe.yaml" \
    >"$dir/out" 2>&1 || { cat "$dir/out"; exit 1; }
grep -q 'cpu: float32 on base with .*, 2 ranks of 1 threads' "$dir/out" || { echo "no level agreed on:"; cat "$dir/out"; exit 1; }

grep -q '"break"' "$dir/run/jobs.jsonl" && { echo "a break after one job"; exit 1; }
for level in base avx2; do
    IMF_ISA=$level "$imf" select "$dir/recipe.yaml" >"$dir/$level" 2>&1 || { cat "$dir/$level"; exit 1; }
done
grep -q 'the job before computed' "$dir/base" && { echo "warned on the same level"; cat "$dir/base"; exit 1; }
if grep -q 'cpu: float32 on avx2' "$dir/avx2"; then
    grep -q '^warning: cpu: the job before computed on base .*IMF_ISA=base' "$dir/avx2" || { echo "not warned:"; cat "$dir/avx2"; exit 1; }
    grep -c . "$dir/run/jobs.jsonl" | grep -qx 3 && tail -n 1 "$dir/run/jobs.jsonl" | grep -q '"break": *"base with [a-zA-Z]* -> avx2 with' ||
        { echo "not recorded:"; cat "$dir/run/jobs.jsonl"; exit 1; }
fi
exit 0
