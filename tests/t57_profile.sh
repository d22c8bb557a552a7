#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A profile of every stage (profile.jsonl, --profile, the report's page): the phases sum to the wall time within 2 %, what a stage
# does is in its phase, no phase is left out of order, and the profile is asked for or it is silent.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$*"; exit 1; }

awk 'BEGIN { for (i = 0; i < 48; i++)
    printf "{\"prompt\":\"say %d and more of the same\",\"chosen\":\"%d and more of the same\",\"rejected\":\"no\"}\n", i, i }' >"$dir/rows.jsonl"
cat >"$dir/r.yaml" <<END
run_dir: $dir/run
target: {path: input/demo/novice}
sft: {data: $dir/rows.jsonl, global_batch: 8, max_length: 64, max_steps: 4, grad_chains: 2}
dpo: {data: $dir/rows.jsonl, global_batch: 8, max_length: 64, max_steps: 4, grad_chains: 2}
END
"$imf" sft "$dir/r.yaml" --quiet --profile >"$dir/out" 2>"$dir/sft" || fail "imf sft: $(cat "$dir/sft")"
mpirun -n 2 "$imf" dpo "$dir/r.yaml" --quiet --profile >"$dir/out" 2>"$dir/dpo" || fail "imf dpo: $(cat "$dir/dpo")"
"$imf" sft "$dir/r.yaml" --quiet >"$dir/out" 2>&1 || fail "imf sft again: $(cat "$dir/out")"  # has ended: a third line
grep -q 'profile of' "$dir/out" && fail "a table that nobody asked for"

python3 - "$dir" <<'END' || fail "profile.jsonl: $(cat "$dir/run/profile.jsonl" "$dir/sft" "$dir/dpo")"
import json, re, sys
dir = sys.argv[1]
rows = [json.loads(line) for line in open(dir + "/run/profile.jsonl")]
assert [(r["stage"], r["ranks"]) for r in rows] == [("sft", 1), ("dpo", 2), ("sft", 1)]
names = ["gemm", "attention", "elementwise", "optimiser", "communication", "wait", "io", "draw", "other"]
for r in rows:
    mean, most = r["mean_ms"], r["max_ms"]
    assert sorted(mean) == sorted(most) == sorted(names)
    assert abs(sum(mean.values()) - r["wall_ms"]) <= 0.02 * r["wall_ms"]
    assert all(most[n] >= mean[n] >= 0 for n in names)
    assert 0 < r["memory"]["max"] <= r["memory"]["sum"] <= r["memory"]["max"] * r["ranks"]
    for n in ["messages", "bytes", "collectives"]:
        assert r[n]["max"] <= r[n]["sum"] <= r[n]["max"] * r["ranks"] and (r[n]["sum"] > 0) == (r["ranks"] > 1), n
for r, n in [(r, n) for r in rows[:2] for n in ["gemm", "attention", "elementwise", "optimiser", "io", "other"]]:
    assert r["mean_ms"][n] > 0, n
assert rows[1]["mean_ms"]["communication"] > 0 and rows[1]["mean_ms"]["wait"] > 0
assert all(rows[2]["mean_ms"][n] == 0 for n in ["gemm", "attention", "elementwise", "optimiser"])
assert all(r["mean_ms"]["draw"] == 0 for r in rows)
for r in rows[:2]:  # the table says the same
    table = open(dir + "/" + r["stage"]).read()
    assert "out of order" not in table
    said = dict(re.findall(r"^  (\w+) +([0-9.]+) +[0-9.]+ +[0-9.]+$", table, re.M))
    assert {n: float(x) for n, x in said.items()} == r["mean_ms"]
    total, share = re.search(r"^  sum +([0-9.]+) +([0-9.]+)$", table, re.M).groups()
    assert abs(float(total) - r["wall_ms"]) <= 0.02 * r["wall_ms"] and 98 <= float(share) <= 102
END
echo '{"text":"say 3"}' | "$imf" generate input/demo/novice --max-new-tokens 8 --profile >"$dir/answer" 2>"$dir/out" || fail "imf generate"
grep -q '"finish"' "$dir/answer" || fail "imf generate --profile wrote: $(cat "$dir/answer")"
awk '($1 == "draw" || $1 == "gemm") && $2 > 0 { n++ } END { exit n != 2 }' "$dir/out" || fail "generate: $(cat "$dir/out")"
[ "$(ls "$dir/run/profile.jsonl"*)" = "$dir/run/profile.jsonl" ] || fail "left behind: $(ls "$dir/run")"

"$imf" report "$dir/r.yaml" >/dev/null || fail "imf report"
grep -q '<h2>Where the time went' "$dir/run/report.html" || fail "the page says nothing about times"
rows=$(grep -o '<tr><td>[a-z]*<td class="n">[0-9]*<td class="n">[0-9.]* s' "$dir/run/report.html" | sed 's/<[^>]*>/ /g' | awk '{ print $1, $2 }')
[ "$rows" = "$(printf 'sft 2\ndpo 1')" ] || fail "rows of the page: $rows"
"$imf" show "$dir/run/profile.jsonl" | grep -q 'mean_ms' || fail "imf show profile.jsonl"
exit 0
