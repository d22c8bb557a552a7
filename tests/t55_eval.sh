#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf eval on a tiny model: every kind judged, one table whatever the layout, a restart repeats nothing.
set -eu
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMP_NUM_THREADS=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl_vader_single_copy_mechanism=none
fail() { echo "$1"; exit 1; }

for i in 1 2 3 4 5 6 7 8; do
    echo "{\"question\": \"say $i\", \"answer\": \"#### $i\"}" >>"$dir/math.jsonl"
    echo "{\"messages\": [{\"role\":\"user\",\"content\":\"do $i\"}], \"kind\": \"if\", \"checks\":" \
        "[{\"kind\":\"char_count\",\"min\":1},{\"kind\":\"contains\",\"text\":\"never $i never\"}]}" >>"$dir/if.jsonl"
done
for i in 1 2 3; do
    echo "{\"prompt\": \"f$i\", \"kind\": \"code\", \"tests\": [\"assert f(1) == $i\"]}" >>"$dir/code.jsonl"
done
cat >"$dir/recipe.yaml" <<END
target:
  path: tests/data/decode/tiny
eval:
  models: target,warm=tests/data/decode/tiny
  max_new_tokens: 12
  sets:
    - path: $dir/math.jsonl
      protocol: gsm8k
    - path: $dir/code.jsonl
    - path: $dir/if.jsonl
END
evaluate() {  # RUN RANKS [--set ...]
    run=$1 ranks=$2
    shift 2
    mpirun -n "$ranks" "$imf" eval "$dir/recipe.yaml" --quiet --set run_dir="$dir/$run" "$@" >"$dir/$run.out" 2>"$dir/$run.err" || {
        code=$?
        grep -q 'error 69' "$dir/$run.err" && { tail -1 "$dir/$run.err"; exit 77; }
        fail "eval failed: $(cat "$dir/$run.err")"
    }
}

evaluate one 1
[ -f "$dir/one/eval/target/done" ] && [ -f "$dir/one/eval/warm/done" ] || fail "a record set per model expected"
grep -q '"count":19' "$dir/one/eval/target/done" || fail "19 answers expected: $(cat "$dir/one/eval/target/done")"
cat "$dir/one/eval/target/"data-*.jsonl >"$dir/answers"
for key in model set kind prompt grade outcome finish extracted text; do
    [ "$(grep -c "\"$key\":" "$dir/answers")" -ge 19 ] || fail "answers without $key"
done
# Any non-empty answer meets one of two conditions; the same model twice differs by exactly nothing (common random numbers).
python3 - "$dir/one/eval/summary.json" <<'END' || fail "summary: $(cat "$dir/one/eval/summary.json")"
import json, sys
s = json.load(open(sys.argv[1]))
rows = {(r["model"], r["kind"]): r for r in s["rows"]}
assert rows["target", "math"]["n"] == 8 and rows["target", "code"]["n"] == 3 and rows["target", "mean"]["n"] == 19
assert 0 < rows["target", "if"]["mean"] <= 0.5 and rows["target", "if"]["lo"] <= rows["target", "if"]["mean"]
assert rows["target", "math"]["truncated"] > 0 and rows["target", "math"]["reward_mean"] is None
mean = [r["mean"] for (m, k), r in rows.items() if m == "target" and k != "mean"]
assert abs(rows["target", "mean"]["mean"] - sum(mean) / 3) < 1e-12
assert all(p["diff"] == p["lo"] == p["hi"] == 0 for p in s["paired"]) and len(s["paired"]) == 4
END

# Law 1: ranks, slots and the order of rows change no bit.
for set in math code if; do sort -r "$dir/$set.jsonl" >"$dir/x" && mv "$dir/x" "$dir/$set.jsonl"; done
evaluate two 3 --set sample.slots=2
cmp "$dir/one/eval/summary.json" "$dir/two/eval/summary.json" || fail "another table on 3 ranks"
cmp "$dir/one/eval/target/done" "$dir/two/eval/target/done" || fail "other answers on 3 ranks"
evaluate seed 1 --set eval.seed=7
cmp -s "$dir/one/eval/target/done" "$dir/seed/eval/target/done" && fail "the seed changed nothing"

# A restart computes nothing that is there; a model can be added later.
evaluate two 2 --set eval.models=target,warm=tests/data/decode/tiny,third=tests/data/decode/tiny
[ "$(grep -o '"a":"target","b":"third","diff":0.0,' "$dir/two/eval/summary.json" | wc -l)" = 4 ] ||
    fail "an added model with the same weights answers the same"

# Bad input: a model that is not there (66), a changed record (65), other prompts in the same run directory (78).
refused() {  # CODE WORDS [--set ...]
    code=$1 words=$2 got=0
    shift 2
    "$imf" eval "$dir/recipe.yaml" --quiet --set run_dir="$dir/one" "$@" >/dev/null 2>"$dir/err" || got=$?
    [ "$got" = "$code" ] && grep -q "$words" "$dir/err" || fail "expected $code with '$words', got $got: $(cat "$dir/err")"
}
refused 66 'train it first' --set eval.models=target,dpo
refused 78 'other prompts' --set eval.max_new_tokens=13
sed -i 's/"grade":0.5/"grade":0.9/' "$dir/one/eval/target/"data-*.jsonl
refused 65 'eval/target'

# Answers of one protocol or template are never taken for those of another with the same decoding.
evaluate plain 1 --set "eval.sets[0].protocol=" --set eval.temperature=0 --set eval.top_p=1 --set eval.models=target
greedy() { refused "$@" --set run_dir="$dir/plain" --set eval.temperature=0 --set eval.top_p=1 --set eval.models=target; }
greedy 78 'other prompts'
greedy 78 'other inputs' --set "eval.sets[0].protocol=" --set target.template=imf-demo

# A limit draws by id: the order of the file changes nothing, what is over it is listed.
awk '{line[NR] = $0} END {for (i = NR; i > 0; i--) print line[i]}' "$dir/if.jsonl" >"$dir/turned.jsonl"
for order in if turned; do
    evaluate "$order" 2 --set eval.models=target --set eval.sets[2].limit=3 --set "eval.sets[2].path=$dir/$order.jsonl" \
        --set eval.sets[2].name=if
done
cmp -s "$dir/if/eval/summary.json" "$dir/turned/eval/summary.json" || fail "a limit takes other prompts of a turned file"
[ "$(grep -c '"reason":"over eval.sets\[\].limit"' "$dir/if/eval/dropped.jsonl")" = 5 ] || fail "prompts over a limit are not listed"

# What is no item is listed (law 7); a prompt without room for an answer counts as wrong and ends nothing.
awk 'BEGIN { print "{\"prompt\":\"a\",\"kind\":\"math\",\"gold\":\"1\"}"; print "{\"prompt\":\"a\",\"kind\":\"math\",\"gold\":\"1\"}"
    print "{\"prompt\":\"b\",\"kind\":\"math\"}"
    printf "{\"kind\":\"math\",\"gold\":\"1\",\"prompt\":\""; for (i = 0; i < 4000; i++) printf "long "; print "\"}" }' >"$dir/odd.jsonl"
printf 'target: {path: tests/data/decode/tiny}\neval: {models: target, sets: [{path: %s/odd.jsonl}]}\n' "$dir" >"$dir/odd.yaml"
mpirun -n 2 "$imf" eval "$dir/odd.yaml" --set run_dir="$dir/odd" --set eval.max_new_tokens=4 >"$dir/odd.out" 2>&1 || fail "odd prompts: $(cat "$dir/odd.out")"
grep -q '1 prompts leave no room' "$dir/odd.out" || fail "a prompt without room is not counted: $(cat "$dir/odd.out")"
grep -q '"reason":"duplicate"' "$dir/odd/eval/dropped.jsonl" || fail "a duplicate is not listed"
grep -q '"reason":"no gold answer","row":".*odd.jsonl:3"' "$dir/odd/eval/dropped.jsonl" || fail "a row without gold is not listed"
grep -q '"n":2,' "$dir/odd/eval/summary.json" && grep -q 'leaves no room in' "$dir/odd/eval/target/"data-*.jsonl ||
    fail "an over-long prompt is not part of n: $(cat "$dir/odd/eval/summary.json")"

# Checks that cannot be graded are refused before an answer is drawn.
echo '{"prompt":"a","kind":"if","checks":[{"kind":"contains","text":"b"},{"kind":"start_with","text":"a"}]}' >"$dir/odd.jsonl"
refused 65 'odd.jsonl:1: check 2: unknown kind "start_with"; did you mean "starts_with"' --set run_dir="$dir/unfit" \
    --set "eval.sets[2].path=$dir/odd.jsonl"
[ ! -d "$dir/unfit/eval/target" ] || fail "answers were drawn before checks were read"
exit 0
