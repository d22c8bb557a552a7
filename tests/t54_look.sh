#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf show for every kind of file that the looking stages can meet, imf report with everything and with nothing there.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }
says() { # PATH WORDS: show PATH succeeds and prints the words
    "$imf" show "$1" >"$dir/out" 2>&1 || fail "show $1: $(cat "$dir/out")"
    grep -q "$2" "$dir/out" || fail "show $1 does not say '$2': $(cat "$dir/out")"
}
code() { "$@" >"$dir/out" 2>&1; echo $?; }

awk 'BEGIN { for (p = 0; p < 12; p++) for (k = 0; k < 3; k++)
    printf "{\"prompt\":\"q %d <script>\",\"source\":\"s\",\"answer\":\"a %d & <b>\",\"score\":%.2f}\n", p, k, 0.1 + k / 50 }' >"$dir/own.jsonl"
printf 'run_dir: %s/run\nsamples: {path: %s/own.jsonl}\n' "$dir" "$dir" >"$dir/r.yaml"
"$imf" report "$dir/r.yaml" >"$dir/out" 2>&1
[ $? = 66 ] || fail "report without a run directory: $(cat "$dir/out")"
"$imf" pair "$dir/r.yaml" --quiet || fail "imf pair"
"$imf" report "$dir/r.yaml" --quiet >"$dir/out" 2>&1 || fail "report before training: $(cat "$dir/out")"
grep -q 'eval has not run' "$dir/out" || fail "report does not say what is missing"

mkdir "$dir/run/eval"
cat >"$dir/run/eval/summary.json" <<'END'
{"rows":[{"model":"target","set":"held","kind":"if","n":500,"mean":0.412,"lo":0.39,"hi":0.44,"reward_mean":0.12,"truncated":0,"no_answer":0.01,"undecided":0},
{"model":"sft","set":"held","kind":"if","n":500,"mean":0.5,"lo":0.48,"hi":0.52,"reward_mean":null,"truncated":0.024,"no_answer":0,"undecided":0},
{"model":"more","set":"held","kind":"if","n":500,"mean":0.51,"lo":0.49,"hi":0.53,"reward_mean":null,"truncated":0,"no_answer":0,"undecided":0},
{"model":"dpo","set":"held","kind":"if","n":500,"mean":0.523,"lo":0.5,"hi":0.55,"reward_mean":null,"truncated":0,"no_answer":0,"undecided":0}],
"paired":[{"a":"target","b":"dpo","set":"held","kind":"if","n":500,"diff":0.111,"lo":0.08,"hi":0.14},
{"a":"target","b":"sft","set":"held","kind":"if","n":500,"diff":0.088,"lo":0.06,"hi":0.1},
{"a":"target","b":"more","set":"held","kind":"if","n":500,"diff":0.077,"lo":0.06,"hi":0.1},
{"a":"sft","b":"more","set":"held","kind":"if","n":500,"diff":0.01,"lo":-0.01,"hi":0.03},
{"a":"sft","b":"dpo","set":"held","kind":"if","n":500,"diff":0.023,"lo":0.01,"hi":0.04},
{"a":"more","b":"dpo","set":"held","kind":"if","n":500,"diff":0.013,"lo":0.001,"hi":0.03}]}
END
for i in 1 2 3 4 5; do
    printf '{"stage":"sft","step":%d,"epoch":0.1,"loss":%d.5,"grad_norm":1,"learning_rate":1e-5}\n' $i $((6 - i))
    printf '{"stage":"sft","step":%d,"epoch":0.1,"eval_loss":%d.25}\n' $i $((6 - i))
done >"$dir/run/metrics.jsonl"
mpirun --allow-run-as-root --oversubscribe -n 2 "$imf" report "$dir/r.yaml" >"$dir/out" 2>&1 || fail "report: $(cat "$dir/out")"
grep -q '41.2 \[39.0, 44.0\] *50.0 .* 52.3 \[50.0, 55.0\]' "$dir/out" || fail "table: $(cat "$dir/out")"
grep -q 'dpo - target, held: +11.1 \[+8.0, +14.0\]' "$dir/out" || fail "difference: $(cat "$dir/out")"
page=$dir/run/report.html
# Differences: each model with the one before it, the last one with all; rates in percent.
for number in +11.1 +8.8 +1.0 +2.3 +1.3; do grep -qF ">$number [" "$page" || fail "the page has no difference $number"; done
grep -qF '+7.7 [' "$page" "$dir/out" && fail "a difference that nobody asked for"
grep -qF '>2.4 %<' "$page" || fail "the page has no rate in percent"
for word in '41.2 \[39.0, 44.0\]' '<svg' 'polyline' 'eval_loss' 'q 0 &lt;script&gt;\|q [0-9]* &lt;script' 'a 2 &amp; &lt;b&gt;' 'class="good"' sft_rows; do
    grep -q "$word" "$page" || fail "the page has no '$word'"
done
grep -q '<script\|http:\|https:\|src=' "$page" && fail "the page runs scripts or needs a network"
python3 - "$page" <<'END' || fail "the page is not well formed"
import sys, html.parser
void, left = {"meta", "br", "line", "circle", "polyline", "tr", "th", "td"}, []
class P(html.parser.HTMLParser):
    def handle_starttag(self, tag, attrs):
        if tag not in void: left.append(tag)
    def handle_endtag(self, tag):
        if tag in void: return
        assert left and left.pop() == tag, (tag, self.getpos())
P().feed(open(sys.argv[1], encoding="utf-8").read())
assert not left, left
END

says "$dir/run" 'pairs  *[0-9]* records, digest'
says "$dir/run" 'sft: steps 1 to 5, loss 5.5000 to 1.5000'
says "$dir/run/pairs" "record set 'pairs'.*ended"
says "$dir/run/pairs/" 'every checksum matches'
says "$dir/run/pairs/data-00000.jsonl" 'format: imf-pairs'
says "$dir/run/pairs/data-00000.idx" 'index of a part'
says "$dir/run/pairs/done" 'digest'
says "$dir/run/recipe.yaml" 'a recipe, hash'
says "$dir/run/metrics.jsonl" 'held-out loss 1.2500 at the end'
says "$dir/run/log.jsonl" 'a log, '
says "$dir/run/pair.json" 'kinds'
says "$dir/run/eval/summary.json" 'dpo - target, if: +11.1'
says "$dir/run/export/dpo.jsonl" 'source_model: s'
says "$dir/run/export" 'export/dpo.jsonl'
says "$dir/run/eval/" 'summary.json'
says "$dir/run/report.html" 'Held-out results'
mkdir -p "$dir/run/sft/step_000000007.tmp.local-12"
says "$dir/run/sft" 'step_000000007.tmp.local-12 (not committed)'
says "$dir/run/export/sft.jsonl" 'conversations'
[ "$(code "$imf" show "$dir/nothing")" = 66 ] || fail "show of nothing"
[ "$(code "$imf" show /etc)" = 65 ] || fail "show of a foreign directory"
[ "$(code "$imf" show /bin/sh)" = 65 ] || fail "show of a foreign file"
[ "$(code "$imf" show)" = 64 ] || fail "show without a path"
printf 'x' | dd of="$dir/run/pairs/data-00000.jsonl" bs=1 seek=900 conv=notrunc 2>/dev/null
[ "$(code "$imf" show "$dir/run/pairs")" = 65 ] && grep -q checksum "$dir/out" || fail "damage is not seen: $(cat "$dir/out")"
exit 0
