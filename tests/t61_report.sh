#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The report's page: every section and figure; its numbers are those of the run's JSONL; hostile texts are harmless; a run that has
# nothing, was moved or was torn still has a page, which says what is missing; the page runs no script and refers to nothing.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }
. tests/lib/report_runs.sh

for run in all moved old; do
    python3 tools/report/numbers.py "$dir/$run" || fail "the page of $run"
done

page=$dir/all/report.html
for figure in results scores lengths wins time sft-loss sft-token-accuracy sft-lr sft-grad-norm sft-speed dpo-loss dpo-accuracy dpo-margin \
    dpo-rewards dpo-logps dpo-lr dpo-grad-norm dpo-speed; do
    grep -q "id=\"fig-$figure\"" "$page" || fail "the page has no figure $figure"
done
recipe=$("$imf" show "$dir/all/recipe.yaml" | sed -n 's/.*a recipe, hash //p')
for word in "<code>$recipe</code>" '2 ranks of 1 threads' '<dt>seed</dt><dd>42</dd>' 'prefers-color-scheme:dark' '@media print'; do
    grep -qF "$word" "$page" || fail "the page does not have '$word'"
done
[ "$(python3 -c 'import json, sys; print(len({json.loads(x)["step"] for x in open(sys.argv[1])}))' "$dir/all/speed.jsonl")" -ge 6 ] ||
    fail "speed.jsonl: $(cat "$dir/all/speed.jsonl")"
id=$(sed -n 's/.*<p class="about">score [^<]*<code>\([0-9a-f]*\)<.*/\1/p' "$page" | head -n 1)  # a life is what imf trace prints
"$imf" trace "$dir/all" "$id" | sed -n "/^sample $id/,\$p" >"$dir/life"
python3 - "$page" "$dir/life" <<'EOF' || fail "the life of $id is not that of imf trace"
import html, re, sys
lives = [html.unescape(x) for x in re.findall(r'<pre class="life" dir="auto">(.*?)</pre>', open(sys.argv[1], encoding="utf-8").read(), re.S)]
assert len(lives) == 10 and open(sys.argv[2], encoding="utf-8").read() in lives
EOF

page=$dir/moved/report.html  # answers of somebody's own
for word in '&lt;script&gt;alert(1)&lt;/script&gt;' '&quot;&#39;&amp;&lt;&gt;`' 'a[U+2028]b[U+2029]c' '[U+202E]tfel' '[U+2066]x[U+2069]' \
    '[U+0007][U+001B]' '[U+FEFF]mark [U+200B][U+200E]' '&lt;/pre&gt;&lt;/style&gt;' 'für 👩‍🔬 אב' 'more bytes: imf trace prints them' \
    '&lt;b&gt;careful' 'metrics.jsonl: 1 lines could not be read' 'log.jsonl: 1 lines could not be read' 'The eval stage has not run' \
    'this run has no speed.jsonl' 'There is no profile.jsonl' '(no name)' 'characters'; do
    grep -q -e "$(printf '%s' "$word" | sed 's/[][*.^$]/\\&/g')" "$page" || fail "the page of hostile answers has no '$word'"
done
python3 - "$page" <<'EOF' || fail "hidden characters are on the page"
import sys
bad = [hex(ord(c)) for c in open(sys.argv[1], encoding="utf-8").read()
       if c in "\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\u200e\u200f\u061c\ufeff" or (c < " " and c != "\n")]
assert not bad, bad[:5]
EOF

grep -q "<dt>program</dt><dd>imf 0\.[^<]*</dd>" "$page" || fail "the page of a run without a profile names no program"

page=$dir/old/report.html  # nothing is there
for word in 'The eval stage has not run' 'There are no samples' 'Nothing was trained' 'There is no prompt with two answers' \
    'There are no answers' 'There are no rows and no pairs' 'Nothing was left out' 'There is no profile.jsonl'; do
    grep -q "$word" "$page" || fail "the page of an empty run does not say '$word'"
done
[ ! -e somewhere ] || fail "the page was written where the recipe once was"

code() { "$@" >"$dir/out" 2>&1; echo $?; }
[ "$(code "$imf" report src)" = 66 ] && grep -q 'no run directory' "$dir/out" || fail "report of a foreign directory: $(cat "$dir/out")"
[ "$(code "$imf" sft "$dir/all")" = 64 ] && grep -q 'recipe.yaml' "$dir/out" || fail "sft with a directory: $(cat "$dir/out")"
cp "$dir/all/report.html" "$dir/one.html"  # the same run has the same page, whoever writes it
mpirun -n 2 "$imf" report "$dir/all/recipe.yaml" --quiet >"$dir/out" 2>&1 || fail "report on two ranks: $(cat "$dir/out")"
cmp -s "$dir/one.html" "$dir/all/report.html" || fail "another page by recipe and two ranks than by directory and one"
exit 0
