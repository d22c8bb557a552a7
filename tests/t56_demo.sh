#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# input/demo: the generator reproduces its prompts, splits share no prompt, the C checker agrees with the generator's, the
# models load and the whole folder stays under 12 MB.
set -eu
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export PYTHONDONTWRITEBYTECODE=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1
fail() { echo "$1"; exit 1; }
command -v python3 >/dev/null || { echo "python3 is missing"; exit 77; }

python3 tools/demo_world/make_data.py prompts "$dir"
for file in prompts heldout_math heldout_code heldout_if; do
    cmp "$dir/$file.jsonl" input/demo/$file.jsonl || fail "$file.jsonl is not what the generator writes"
done
python3 - "$dir" <<'END' || fail "splits"
import json, sys
sys.path.insert(0, "tools/demo_world")
import random, world
names = ["prompts", "heldout_math", "heldout_code", "heldout_if"]
text = lambda line: json.loads(line)["messages"][0]["content"]
sets = [set(map(text, open(f"input/demo/{n}.jsonl"))) for n in names]
assert sum(map(len, sets)) == len(set.union(*sets)), "a prompt is in two files"
assert all(world.split_of(q) == "pipeline" for q in sets[0]) and all(world.split_of(q) == "heldout" for s in sets[1:] for q in s)
r = random.Random(1)  # answers of every quality, for the C checker
with open(f"{sys.argv[1]}/rows", "w") as f, open(f"{sys.argv[1]}/grades", "w") as g:
    for _ in range(300):
        item = world.draw("if", "heldout", r)
        answer = world.if_habit(item, r, 0.6)
        f.write(json.dumps({"checks": item.parts["checks"], "answer": answer}) + "\n")
        g.write("%.9f\n" % world.grade(item, answer))
END
"$imf" judge checks <"$dir/rows" >"$dir/verdicts"
python3 -c 'import json, sys
for line in open(sys.argv[1]): print("%.9f" % json.loads(line)["grade"])' "$dir/verdicts" | cmp - "$dir/grades" || fail "grades differ"
for model in abacus byte clerk novice reward; do "$imf" show input/demo/$model >/dev/null || fail "$model does not load"; done
[ "$(du -sk input/demo | cut -f1)" -le 12288 ] || fail "input/demo is larger than 12 MB"
