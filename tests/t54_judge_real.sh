#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Reference solutions and gold answers of the public sets (item 5): all 164 HumanEval and 378 MBPP+ (v0.2.0) references pass in
# the sandbox and one mutant of each fails; every GSM8K and MATH gold equals itself and differs from a perturbed one. Needs the public sets in
# ../shared/data (SHARED=DIR: elsewhere), which a clone has not.
set -u
imf=$1/imf
data=${SHARED:-../shared}/data
[ -e "$data/humaneval/HumanEval.jsonl" ] || { echo "no public data sets here (SHARED=DIR says where)"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
compare() { # ROWS VERDICTS N: N rows (0: at least 100) and every verdict as expected
    python3 - "$@" <<'PY' || bad=1
import json, sys
rows = [json.loads(l) for l in open(sys.argv[1])]
out = [json.loads(l) for l in open(sys.argv[2])]
wrong = [(r["id"], r["expect"], o["verdict"], o["reason"]) for r, o in zip(rows, out)
         if o["verdict"] not in r["expect"].split("|")]
for w in wrong[:20]:
    print(*w)
want = int(sys.argv[3])
if len(out) != len(rows) or len(rows) < 100 or want and len(rows) != want:
    sys.exit("%d rows, %d verdicts, %d rows wanted" % (len(rows), len(out), want))
sys.exit(bool(wrong))
PY
}
for set in humaneval/HumanEval:164 mbpp/MbppPlus-v0.1.0:378; do
    python3 tools/reference/code_rows.py "$data/${set%:*}.jsonl" >"$dir/rows" || exit 1
    "$imf" judge code <"$dir/rows" >"$dir/out" || { tail -n 1 "$dir/out"; exit 1; }
    compare "$dir/rows" "$dir/out" $((2 * ${set#*:}))
done
python3 tools/reference/math_rows.py "$data" >"$dir/rows" || exit 1
"$imf" judge math <"$dir/rows" >"$dir/out" || exit 1
compare "$dir/rows" "$dir/out" 0
[ $bad = 0 ]
