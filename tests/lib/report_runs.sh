# SPDX-License-Identifier: Apache-2.0
# report_runs.sh: sourced with $imf and $dir set; makes what the tests of the report look at:
#   $dir/all     the demo's recipe, small: every stage, two ranks
#   $dir/moved   answers of somebody's own file, hostile ones among them; made under another name and then moved; a torn
#                metrics.jsonl, warnings, no training and no evaluation
#   $dir/old     a recipe and nothing else
. tests/lib/mpi.sh
export OMP_NUM_THREADS=1

small="--set select.max_prompts=60 --set sft.max_steps=6 --set dpo.max_steps=4 --set eval.max_new_tokens=24"
for i in 0 1 2; do small="$small --set eval.sets[$i].limit=6"; done
mpirun -n 2 "$imf" run input/demo.yaml --quiet $small --set run_dir="$dir/all" >"$dir/out" 2>&1 || { cat "$dir/out"; exit 1; }

python3 - "$dir/own.jsonl" <<'END_OF_PYTHON'
import json, sys
bad = ["<script>alert(1)</script>", "\"'&<>` onload=\"x\"", "a\u2028b\u2029c", "\u202etfel ot thgir\u202c \u2066x\u2069", "</pre></style><b>&lt;",
       "\x07\x1b[31m", "\ufeffmark \u200b\u200e", "f\u00fcr \U0001f469\u200d\U0001f52c \u05d0\u05d1", "<!-- ]]> --"]
with open(sys.argv[1], "w") as f:
    for p in range(20):
        for s in ("plain", "<img src=x>\u202e\"'"):
            for k in range(3):
                answer = " ".join(bad) + f" {p} {s} {k} " + "x" * (0 if p % 3 else 30000)
                score = ((7 * p + 3 * k) % 11) / 120 - 0.03
                row = {"prompt": f"q {p} {bad[p % 9]}", "source": s, "answer": answer, "score": score,
                       "dataset": "d<1>" if p % 3 else "", "kind": "if"}
                if p % 5 == 1:
                    row.update(kind="math", gold="1", verdict=["right", "wrong", "undecided"][k])
                f.write(json.dumps(row) + "\n")
END_OF_PYTHON
printf 'run_dir: %s/made\nsamples: {path: %s/own.jsonl}\n' "$dir" "$dir" >"$dir/r.yaml"
"$imf" pair "$dir/r.yaml" --quiet >"$dir/out" 2>&1 || { cat "$dir/out"; exit 1; }
mv "$dir/made" "$dir/moved"
rm "$dir/moved/profile.jsonl"  # as earlier versions left it
printf '{"time":"2026-01-01T00:00:00Z","level":"warn","component":"dpo","text":"<b>careful</b>"}\n{"time":"20' >>"$dir/moved/log.jsonl"
for i in 1 2 3; do printf '{"stage":"sft","step":%d,"epoch":0.1,"loss":%d.5}\n' $i $i; done >"$dir/moved/metrics.jsonl"
printf '{"stage":"sft","st' >>"$dir/moved/metrics.jsonl"

mkdir "$dir/old"
printf 'run_dir: somewhere/else\n' >"$dir/old/recipe.yaml"
for run in all moved old; do
    "$imf" report "$dir/$run" --quiet >"$dir/out" 2>&1 || { echo "report of $run: $(cat "$dir/out")"; exit 1; }
done
