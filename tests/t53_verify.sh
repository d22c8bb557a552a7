#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf verify from a user's rows: ranks and order change nothing (law 1); equal program and tests are run once; a job killed
# half-way is continued; instruction rows get no verdict; a machine without Landlock is refused (69) when there is code.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; cat "$dir/log" 2>/dev/null; exit 1; }
run() { mpirun --allow-run-as-root --oversubscribe -n "$1" "$imf" verify "$dir/r.yaml" --set "run_dir=$2" --set "samples.path=$3" 2>"$dir/log"; }
digest() { grep -o '"digest":"[0-9a-f]*"' "$1/verdicts/done"; }
"$imf" --version >/dev/null || fail "imf does not start"
echo '{"program":"x = 1","tests":["assert x == 1"]}' | "$imf" judge code >"$dir/out" 2>&1 || { tail -n 1 "$dir/out"; exit 77; }

mkdir "$dir/a" "$dir/b"
printf 'verify: {cpu_s: 1}\n' >"$dir/r.yaml"
awk 'BEGIN { for (p = 0; p < 24; p++) for (k = 0; k < 4; k++) {
    kind = p % 3 == 0 ? "math" : p % 3 == 1 ? "code" : "if"
    if (kind == "math") answer = "I think it is \\\\boxed{" (k == 3 ? "\\\\sqrt{" p : p + (k == 2)) "}"
    else if (kind == "code") answer = "```python\\nfor i in range(200000): pass\\ndef f(x):\\n    return x " (k == 2 ? "-" : "+") " " p "\\n```" (k == 1 ? "\\nDone." : "")
    else answer = "words " k
    printf "{\"prompt\":\"question %d\",\"kind\":\"%s\",\"source\":\"s\",\"k\":%d,\"answer\":\"%s\"", p, kind, k, answer
    if (kind == "math") printf ",\"gold\":\"%d\"", p
    if (kind == "code") printf ",\"tests\":[\"assert f(3) == %d\",\"assert f(0) == %d\"]", p + 3, p
    if (kind == "if") printf ",\"checks\":[{\"kind\":\"contains\",\"text\":\"w\"}]"
    print "}" } }' >"$dir/a/own.jsonl"
awk '{ row[NR] = $0 } END { for (i = NR; i > 0; i--) print row[i] }' "$dir/a/own.jsonl" >"$dir/b/own.jsonl"

run 1 "$dir/r1" "$dir/a/own.jsonl" || fail "one rank failed"
# math: 8 prompts, k 0 and 1 are right (k 3 is the square root of p: open brace, undecided); code: k 0, 1, 3 right
grep -q '40 right, 16 wrong, 8 undecided (0 weak); 16 distinct programs run' "$dir/log" || fail "other counts"
run 3 "$dir/r3" "$dir/b/own.jsonl" || fail "three ranks failed"
[ "$(digest "$dir/r1")" = "$(digest "$dir/r3")" ] || fail "digests differ between 1 and 3 ranks"
run 2 "$dir/r1" "$dir/a/own.jsonl" && grep -q "done before" "$dir/log" || fail "an ended stage was redone"

"$imf" verify "$dir/r.yaml" --set "run_dir=$dir/r2" --set "samples.path=$dir/a/own.jsonl" >"$dir/log" 2>&1 &
sleep 0.6
kill -9 $! 2>/dev/null
wait $! 2>/dev/null
run 2 "$dir/r2" "$dir/a/own.jsonl" || fail "a killed job cannot be continued"
[ "$(digest "$dir/r1")" = "$(digest "$dir/r2")" ] || fail "a continued job has another digest"

IMF_SANDBOX=none "$imf" verify "$dir/r.yaml" --set "run_dir=$dir/r4" --set "samples.path=$dir/a/own.jsonl" >"$dir/log" 2>&1
[ $? = 69 ] && grep -q Landlock "$dir/log" || fail "no refusal without Landlock"
IMF_PYTHON=/nowhere/python3 "$imf" verify "$dir/r.yaml" --set "run_dir=$dir/r5" --set "samples.path=$dir/a/own.jsonl" >"$dir/log" 2>&1
[ $? = 69 ] && grep -q python3 "$dir/log" || fail "no refusal without python3"

# Verdicts of tests that ran in the candidate's process (they use a variable) are weak and make no row and no pair by themselves.
for weak in false true; do
    for k in 0 1; do
        test=$([ $weak = true ] && echo 'y = f(1); assert y == 2' || echo 'assert f(1) == 2')
        printf '{"prompt":"weak %s","kind":"code","tests":["%s"],"source":"s","score":0.%d,"answer":"def f(x):\\n    return x + %d"}\n' \
            $weak "$test" $((9 - k)) $((k + 1))
    done
done >"$dir/weak.jsonl"
for allow in false true; do
    for stage in verify pair; do
        "$imf" $stage "$dir/r.yaml" --set "run_dir=$dir/weak-$allow" --set "samples.path=$dir/weak.jsonl" --set pair.allow_weak=$allow \
            >"$dir/log" 2>&1 || fail "imf $stage"
    done
    [ "$(grep -c '"trust":"weak"' "$dir/weak-$allow"/verdicts/data-*.jsonl)" = 2 ] || fail "two weak verdicts are wanted"
    for file in sft dpo; do
        [ "$(grep -c 'weak' "$dir/weak-$allow/export/$file.jsonl")" = $([ $allow = true ] && echo 2 || echo 1) ] ||
            fail "allow_weak $allow: $(cat "$dir/weak-$allow/export/$file.jsonl")"
    done
    listed=$(grep -c '"reason":"weak verdict"' "$dir/weak-$allow"/dropped/data-*.jsonl)
    [ "$listed" = $([ $allow = true ] && echo 0 || echo 2) ] || fail "allow_weak $allow: $listed weak answers are listed"
done
exit 0
