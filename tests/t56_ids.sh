#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Law 3: a target that shares the source's tokenizer is trained on the ids that were sampled, not on the text tokenised anew.
# R-TRUNC1, R-THR2: an answer that was cut by length is not chosen unless pair.allow_cut says so, is listed by its id, and gets no
# stop token in training.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export OMP_NUM_THREADS=1
fail() { echo "$*"; exit 1; }

# Untrained weights sample bytes that no tokenizer would put together in that way.
for i in $(seq 20); do echo "{\"prompt\": \"say $i and then $i$i$i\"}"; done >"$dir/prompts.jsonl"
cp -r tests/data/reward "$dir/rm"
sed 's/"imf_gating_pattern"/"unused"/; s/^{/{"imf_gating_pattern": [2],/' tests/data/reward/config.json >"$dir/rm/config.json"
cat >"$dir/recipe.yaml" <<END
run_dir: $dir/run
prompts: [{path: $dir/prompts.jsonl}]
sources: [{name: tiny, path: tests/data/decode/tiny, n: 6, temperature: 1, max_new_tokens: 24}]
reward: {path: $dir/rm}
pair: {margin_min: 0, margin_max: 1000, sft_fraction: 0.5}
target: {path: tests/data/decode/tiny}
sft: {max_steps: 1, global_batch: 4, max_length: 128}
dpo: {max_steps: 1, global_batch: 4, max_length: 128}
END
stage() { "$imf" "$@" >"$dir/log" 2>&1 || fail "imf $1: $(cat "$dir/log")"; }
for command in select sample score; do stage $command "$dir/recipe.yaml"; done
for run in run cut; do
    [ $run = run ] || { mkdir "$dir/cut"; cp -r "$dir"/run/prompts "$dir"/run/samples "$dir"/run/scores "$dir/cut/"; }
    allow=$([ $run = cut ] && echo true || echo false)
    for command in pair sft dpo; do
        stage $command "$dir/recipe.yaml" --set run_dir="$dir/$run" --set pair.allow_cut="$allow"
        sed -n "s/^$command: [0-9]* \(examples\|pairs\) of .*; \([0-9]*\) tokens.*/\2/p" "$dir/log" >"$dir/$run.$command"
    done
    python3 - "$dir" "$dir/$run" "$imf" "$allow" <<'END' || fail "$run: $(cat "$dir/log")"
import glob, json, subprocess, sys
top, run, imf, allow = sys.argv[1:]
def read(name):
    lines = [json.loads(l) for f in sorted(glob.glob(f"{run}/{name}/data-*.jsonl")) for l in open(f)]
    return {l["id"]: l["data"] for l in lines if "id" in l}
def prompt_tokens(messages):
    row = json.dumps({"messages": messages})
    out = subprocess.run([imf, "tokens", "tests/data/decode/tiny"], input=row, capture_output=True, text=True, check=True)
    return len(json.loads(out.stdout)["ids"])
def length(answer):
    return len(answer["ids"]) + (answer["finish"] == "stop")
samples, rows, pairs = read("samples"), read("sft_rows"), read("pairs")
ends = [s["finish"] for s in samples.values()]
assert ends.count("stop") > 3 and ends.count("length") > 3, "the samples are too much alike to test anything"
assert rows and pairs
sft = sum(prompt_tokens(r["messages"]) + length(r) - 1 for r in rows.values())  # the last token has nothing to predict
dpo = sum(prompt_tokens(p["messages"]) + length(p["chosen"]) + length(p["rejected"]) - 1 for p in pairs.values())
said = [int(open(f"{run}.{c}").read()) for c in ("sft", "dpo")]
assert said == [sft, dpo], f"tokens {said}, but the sampled ids are {[sft, dpo]}"
chosen = [r["finish"] for r in rows.values()] + [p["chosen"]["finish"] for p in pairs.values()]
rejected = [p["rejected"]["finish"] for p in pairs.values()]
listed = {d["id"] for d in read("dropped").values() if d["reason"].startswith("cut by length")}
unscored = {d["sample"] for d in read("scores").values() if "unscored" in d}
cut = {i for i, s in samples.items() if s["finish"] == "length"} - unscored
assert ("length" in chosen) == (allow == "true"), chosen
assert "length" in rejected, rejected
assert listed == (set() if allow == "true" else cut), "list of cut answers"
END
done
exit 0
