#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf select: every layout, duplicates, limits and held-out prompts; neither the order of rows nor the ranks change a bit.
set -eu
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$1"; exit 1; }

cat >"$dir/math.jsonl" <<'END'
{"question": "One and one?", "answer": "It is <<1+1=2>>2.\n#### 2"}
{"question": "Two and two?", "answer": "#### 4"}
{"problem": "What is $3^2$?", "answer": "9"}
{"problem": "No answer here"}
{"question": "One and one?", "answer": "Another way.\n#### 2"}
END
cat >"$dir/mixed.jsonl" <<'END'
{"text": "Write f that adds one.", "test_list": ["assert f(1) == 2", "assert f(2) == 3"]}
{"instruction": "Reverse this", "input": "abc", "output": "cba"}
{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]}
{"prompt": "Hello"}
{"prompt": "Sorted?", "kind": "if", "dataset": "own", "checks": [{"kind": "first_word"}]}
{"prompt": "Held out"}
END
echo '{"prompt": "Held out"}' >"$dir/heldout.jsonl"
recipe() {  # recipe MATH MIXED RUN: prints a recipe
    printf 'run_dir: %s\nprompts:\n  - path: %s\n    limit: 2\n  - path: %s\nselect:\n  exclude:\n    - path: %s\n' \
        "$3" "$1" "$2" "$dir/heldout.jsonl"
}
digest() { sed -n 's/.*"digest":"\([0-9a-f]*\)".*/\1/p' "$1/prompts/done" "$1/dropped_prompts/done" | tr '\n' ' '; }

recipe "$dir/math.jsonl" "$dir/mixed.jsonl" "$dir/a" >"$dir/a.yaml"
"$imf" select "$dir/a.yaml" --quiet
grep -q '"count":6' "$dir/a/prompts/done" || fail "6 prompts expected: $(cat "$dir/a/prompts/done")"
grep -q '"count":5' "$dir/a/dropped_prompts/done" || fail "5 dropped rows expected: $(cat "$dir/a/dropped_prompts/done")"
cat "$dir/a/prompts/"data-*.jsonl >"$dir/prompts"
cat "$dir/a/dropped_prompts/"data-*.jsonl >"$dir/dropped"
grep -q 'pass these tests.*"tests":\["assert f(1) == 2","assert f(2) == 3"\]' "$dir/prompts" || fail "MBPP row"
grep -q 'Reverse this\\nabc' "$dir/prompts" || fail "Alpaca row"
! grep -q 'Hi"\|Held out' "$dir/prompts" || fail "an answer or a held-out prompt came through"
grep -q '"dataset":"own"' "$dir/prompts" && grep -q '"dataset":"mixed"' "$dir/prompts" || fail "names of data sets"
for reason in "duplicate:2" "held out:1" "no gold answer:1" "over prompts\[\].limit:1"; do
    [ "$(grep -c "\"reason\":\"${reason%:*}\"" "$dir/dropped")" = "${reason#*:}" ] || fail "dropped: $reason expected"
done

# Law 1: rows in another order, two ranks.
awk '{line[NR] = $0} END {for (i = NR; i > 0; i--) print line[i]}' "$dir/math.jsonl" >"$dir/math2.jsonl"
sort "$dir/mixed.jsonl" >"$dir/mixed2.jsonl"
recipe "$dir/math2.jsonl" "$dir/mixed2.jsonl" "$dir/b" | sed 's/    limit/    dataset: math\n    limit/' >"$dir/b.yaml"
recipe "$dir/math.jsonl" "$dir/mixed.jsonl" "$dir/c" | sed 's/    limit/    dataset: math\n    limit/' >"$dir/c.yaml"
sed -i "s|path: $dir/mixed2.jsonl|path: $dir/mixed2.jsonl\n    dataset: mixed|" "$dir/b.yaml"
sed -i "s|path: $dir/mixed.jsonl|path: $dir/mixed.jsonl\n    dataset: mixed|" "$dir/c.yaml"
mpirun --allow-run-as-root --oversubscribe -n 2 "$imf" select "$dir/b.yaml" --quiet
"$imf" select "$dir/c.yaml" --quiet
[ "$(digest "$dir/b")" = "$(digest "$dir/c")" ] || fail "shuffled files changed the result"
# ... and the digest is able to differ: some other seed takes other prompts.
differs=
for seed in 1 2 3 4 5 6; do
    "$imf" select "$dir/c.yaml" --set run_dir="$dir/d$seed" --set seed=$seed --quiet
    [ "$(digest "$dir/c")" = "$(digest "$dir/d$seed")" ] || differs=yes
done
[ "$differs" ] || fail "the seed changed nothing"

# Bad input: a line that is no prompt is named with its file and line.
echo '{"nothing": 1}' >>"$dir/math.jsonl"
status=0
"$imf" select "$dir/a.yaml" --set run_dir="$dir/e" --quiet 2>"$dir/error" || status=$?
[ "$status" = 65 ] && grep -q 'math.jsonl.*6.*not a prompt' "$dir/error" || fail "exit $status: $(cat "$dir/error")"
