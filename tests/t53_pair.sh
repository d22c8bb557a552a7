#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf pair from a user's rows (item 13): ranks and the order of rows change nothing (law 1); bad rows are named; an ended
# stage is not redone; another recipe in the same run directory is refused; trace finds a pair by the beginning of its id.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }
run() { mpirun --allow-run-as-root --oversubscribe -n "$1" "$imf" pair "$dir/r.yaml" --quiet --set "run_dir=$2" --set "samples.path=$3"; }
digests() { grep -o '"digest":"[0-9a-f]*"' "$1/dropped/done" "$1/sft_rows/done" "$1/pairs/done" | sed 's/.*digest/digest/'; }
code() { "$@" >"$dir/out" 2>&1; echo $?; }

mkdir "$dir/a" "$dir/b"
printf 'pair: {margin_min: 0.005}\n' >"$dir/r.yaml"
awk 'BEGIN { srand(3); for (p = 0; p < 40; p++) for (s = 0; s < 3; s++) for (k = 0; k < 4; k++) {
    kind = p % 2 ? "if" : "math"
    printf "{\"prompt\":\"question %d\",\"kind\":\"%s\",\"source\":\"s%d\",\"answer\":\"answer %d\",\"score\":%.3f", p, kind, s,
        rand() * 9, 0.1 + rand() / 10
    if (kind == "math") printf ",\"gold\":\"%d\",\"verdict\":\"%s\"", p, rand() < 0.4 ? "right" : rand() < 0.9 ? "wrong" : "undecided"
    print "}" } }' >"$dir/a/own.jsonl"
awk '{ row[NR] = $0 } END { for (i = NR; i > 0; i--) print row[i] }' "$dir/a/own.jsonl" >"$dir/b/own.jsonl"
run 1 "$dir/r1" "$dir/a/own.jsonl" || fail "one rank failed"
run 3 "$dir/r3" "$dir/b/own.jsonl" || fail "three ranks failed"
[ "$(digests "$dir/r1")" = "$(digests "$dir/r3")" ] || fail "digests differ between 1 and 3 ranks"
[ "$(digests "$dir/r1" | sort -u | wc -l)" = 3 ] || fail "three digests are wanted"
cmp "$dir/r1/export/dpo.jsonl" "$dir/r3/export/dpo.jsonl" && cmp "$dir/r1/export/sft.jsonl" "$dir/r3/export/sft.jsonl" || exit 1
[ -s "$dir/r1/export/dpo.jsonl" ] && [ -s "$dir/r1/export/sft.jsonl" ] || fail "empty export"
before=$(digests "$dir/r1")
run 2 "$dir/r1" "$dir/a/own.jsonl" || fail "an ended stage cannot be run again"
[ "$before" = "$(digests "$dir/r1")" ] || fail "an ended stage was redone"

[ "$(code "$imf" pair "$dir/r.yaml" --set "run_dir=$dir/r1" --set "samples.path=$dir/a/own.jsonl" --set pair.margin_min=0)" = 78 ] ||
    fail "another recipe in the same run directory: $(cat "$dir/out")"
grep -q run_dir "$dir/out" || fail "the message does not say what to do"
sed 3d "$dir/a/own.jsonl" >"$dir/fewer.jsonl"
[ "$(code "$imf" pair "$dir/r.yaml" --set "run_dir=$dir/r1" --set "samples.path=$dir/fewer.jsonl")" = 78 ] || fail "other input"

{ cat "$dir/a/own.jsonl"; echo '{"prompt":"x","source":"s1"}'; } >"$dir/bad.jsonl"
[ "$(code "$imf" pair "$dir/r.yaml" --set "run_dir=$dir/r4" --set "samples.path=$dir/bad.jsonl")" = 65 ] || fail "row without answer"
grep -q 'bad.jsonl:481.*answer' "$dir/out" || fail "the row is not named: $(cat "$dir/out")"
[ ! -e "$dir/r4/samples/done" ] || fail "a broken import was committed"
{ cat "$dir/a/own.jsonl"; echo '{"prompt":"question 0","kind":"math","gold":"7","source":"s1","answer":"b"}'; } >"$dir/bad.jsonl"
[ "$(code "$imf" pair "$dir/r.yaml" --set "run_dir=$dir/r4" --set "samples.path=$dir/bad.jsonl")" = 65 ] || fail "two gold answers"

pair=$(sed -n 2p "$dir/r1/pairs/data-00000.jsonl" | cut -c 8-27)
"$imf" trace "$dir/r.yaml" --set "run_dir=$dir/r1" "$pair" >"$dir/out" 2>&1 || fail "trace of a pair: $(cat "$dir/out")"
for word in 'question' 'source: s' 'margin: 0.0' 'chosen answer of pair' 'rejected answer of pair' 'score: 0.1' 'verdict: wrong\|kind: if'; do
    grep -q "$word" "$dir/out" || fail "trace does not say $word: $(cat "$dir/out")"
done
grep -q 'imf dpo has not run' "$dir/out" || fail "trace does not say that nothing was trained"
full=$(sed -n 2p "$dir/r1/pairs/data-00000.jsonl" | cut -c 8-39)
mkdir "$dir/r1/dpo"
echo "{\"id\":\"$full\",\"reason\":\"too long\",\"tokens\":9}" >"$dir/r1/dpo/dropped.jsonl"
"$imf" trace "$dir/r.yaml" --set "run_dir=$dir/r1" "$full" | grep -q 'imf dpo: too long' || fail "trace of a pair that dpo dropped"
dropped=$(sed -n 's/.*"id":"\([0-9a-f]*\)","kind":"math","reason":"undecided".*/\1/p' "$dir/r1/dropped/data-00000.jsonl" | head -n 1)
"$imf" trace "$dir/r.yaml" --set "run_dir=$dir/r1" "$dropped" | grep -q 'sample left out: undecided' || fail "trace of a dropped sample"
[ "$(code "$imf" trace "$dir/r.yaml" --set "run_dir=$dir/r1" "")" = 64 ] || fail "trace of nothing"
[ "$(code "$imf" trace "$dir/r.yaml" --set "run_dir=$dir/r1" 0)" = 64 ] || fail "trace of many: $(cat "$dir/out")"
[ "$(code "$imf" trace "$dir/r.yaml" --set "run_dir=$dir/r1" ffffffffffffffff)" = 66 ] || fail "trace of an unknown id"

# A row twice (prompt, source, k, answer) is one answer, counted and listed; two rows that contradict each other are refused.
head -n 20 "$dir/a/own.jsonl" | awk '{ sub(/"answer":"/, "\"k\":7,\"answer\":\"" NR " ") } 1' >"$dir/twice.jsonl"
head -n 2 "$dir/twice.jsonl" | sed p >"$dir/again" && cat "$dir/again" >>"$dir/twice.jsonl"
"$imf" pair "$dir/r.yaml" --set "run_dir=$dir/r5" --set "samples.path=$dir/twice.jsonl" >"$dir/out" 2>&1 || fail "rows twice: $(cat "$dir/out")"
grep -q '20 answers, with scores.*; 4 duplicate rows' "$dir/out" || fail "duplicates are not counted: $(cat "$dir/out")"
[ "$(grep -c '"reason":"duplicate"' "$dir"/r5/dropped_samples/data-*.jsonl)" = 4 ] || fail "duplicates are not listed"
dropped=$(sed -n 's/.*"id":"\([0-9a-f]*\)","reason":"duplicate".*/\1/p' "$dir"/r5/dropped_samples/data-*.jsonl | head -n 1)
"$imf" trace "$dir/r.yaml" --set "run_dir=$dir/r5" "$dropped" | grep -q 'row of s[0-9] left out: duplicate' || fail "trace of a duplicate"
head -n 1 "$dir/twice.jsonl" | sed 's/"score":[0-9.]*/"score":0.5/' >>"$dir/twice.jsonl"
[ "$(code "$imf" pair "$dir/r.yaml" --set "run_dir=$dir/r6" --set "samples.path=$dir/twice.jsonl")" = 65 ] &&
    grep -q 'twice.jsonl: rows [0-9]* and 25 are the same answer' "$dir/out" || fail "two scores of one answer: $(cat "$dir/out")"
exit 0
