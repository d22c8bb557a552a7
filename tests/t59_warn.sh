#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Warnings in plain words, each planted once, with its numbers: chosen answers lose likelihood, accuracy stays low, chosen answers
# of the data are longer, a later model answers longer. A run where all is well warns of nothing.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$*"; exit 1; }

# --- training: a tiny random model -----------------------------------------------------------------------------------------
pairs() {  # NAME CHOSEN REJECTED: 48 pairs; % stands for their number
    seq 48 | awk -v c="$2" -v r="$3" '{ s = sprintf("{\"prompt\":\"question %d\",\"chosen\":\"%s\",\"rejected\":\"%s\"}", $1, c, r)
        gsub(/%/, $1, s); print s }' >"$dir/$1.jsonl"
}
pairs good 'yes %' 'no. %'
pairs near 'the same long answer %' 'the same long answer %.'
pairs long 'a much longer answer %' 'no %'
pairs both 'yes it is' 'no it is not'
sed 's/chosen/x/; s/rejected/chosen/; s/"x"/"rejected"/' "$dir/both.jsonl" | cat - "$dir/both.jsonl" >"$dir/even.jsonl"  # contradictions
cat >"$dir/r.yaml" <<END
target: {path: tests/data/decode/tiny}
dpo: {data: "", global_batch: 8, num_train_epochs: 4, learning_rate: 0.001, max_length: 96}
sft: {data: "", global_batch: 8, num_train_epochs: 12, learning_rate: 0.01, max_length: 96}
END
train() {  # STAGE DATA LEARNING_RATE: what it warns of, into $dir/warned
    "$imf" "$1" "$dir/r.yaml" --quiet --set run_dir="$dir/$1-$2" --set "$1.data=$dir/$2.jsonl" --set "$1.learning_rate=$3" >"$dir/out" 2>&1 ||
        fail "$1 on $2: $(cat "$dir/out")"
    grep '^warning: ' "$dir/out" >"$dir/warned"
    cat "$dir/out" | grep -v '^warning: ' | grep . && fail "$1 on $2 is not quiet"
}
only() {  # WHAT PATTERN: one warning, that one
    [ "$(wc -l <"$dir/warned")" = 1 ] && grep -q "$2" "$dir/warned" || fail "$1: wanted one warning '$2', got: $(cat "$dir/warned")"
}
none() { [ ! -s "$dir/warned" ] || fail "$1: nothing to warn of, but: $(cat "$dir/warned")"; }

train dpo good 0.001
none "pairs that are learnt"
train dpo near 0.02
only "chosen answers lose likelihood" 'dpo: step [0-9]*: chosen answers have become more than 20 % less likely (mean log-prob -[0-9.]*, reference -[0-9.]*).*lower learning_rate'
awk '{ gsub(/[,)]/, " "); for (i = 1; i < NF; i++) if ($i == "log-prob") now = $(i + 1); else if ($i == "reference") ref = $(i + 1)
       exit !(now < 1.2 * ref && ref < 0) }' "$dir/warned" || fail "the numbers of the warning are not 20 % apart: $(cat "$dir/warned")"
train dpo even 0.001
only "accuracy stays low" 'dpo: step [0-9]*: the preferred answer wins only [1-5][0-9]*\.[0-9] %.*less than 55 %.*look at the pairs'
train dpo long 0.001
only "chosen answers of the data are longer" 'in these pairs chosen answers are 3[0-9]* % longer than rejected ones (mean 2[0-9.]* against 5\.[0-9] tokens)'

# --- evaluation: a model that was taught to say one letter, and one that was taught to say twelve ---------------------------
pairs short a b
pairs wordy 'a a a a a a' b
train sft short 0.01
none "sft"
train sft wordy 0.01
none "sft"
for i in 1 2 3 4 5 6 7 8; do echo "{\"question\": \"question $i\", \"answer\": \"#### $i\"}"; done >"$dir/held.jsonl"
cat >"$dir/e.yaml" <<END
target: {path: tests/data/decode/tiny}
eval: {models: "", max_new_tokens: 32, sets: [{path: $dir/held.jsonl, name: held, kind: math, protocol: gsm8k}]}
END
evaluate() {  # RUN MODELS
    "$imf" eval "$dir/e.yaml" --quiet --set run_dir="$dir/$1" --set eval.models="$2" >"$dir/table" 2>"$dir/out" || fail "eval: $(cat "$dir/out")"
    grep '^warning: ' "$dir/out" >"$dir/warned"
}
short=short=$dir/sft-short/sft/model wordy=wordy=$dir/sft-wordy/sft/model
evaluate up "$short,again=$dir/sft-short/sft/model,$wordy"
[ "$(wc -l <"$dir/warned")" = 2 ] || fail "wordy after short and again: two warnings expected, got: $(cat "$dir/warned")"
grep -q 'eval: set held: answers of wordy take [0-9.]* tokens in the mean of 8 prompts, those of short took [0-9.]*: more than 30 % longer' "$dir/warned" ||
    fail "a later model answers longer: $(cat "$dir/warned")"
for model in short wordy; do  # the numbers are those of the records
    mean=$(cat "$dir/up/eval/$model/"data-*.jsonl | sed -n 's/.*"tokens":\([0-9]*\).*/\1/p' | awk '{ s += $1 } END { printf "%.1f", s / NR }')
    grep -q "of $model to*a*ke* $mean[ :]" "$dir/warned" || fail "the mean of $model is $mean, not as in: $(cat "$dir/warned")"
    awk -v m="$model" -v t="$mean" '$1 == m && $2 == "held" { for (i = 8; i <= NF; i++) if ($i == t) ok = 1 } END { exit !ok }' "$dir/table" ||
        fail "the table does not show $mean tokens of $model: $(cat "$dir/table")"
done
evaluate down "$wordy,$short"
none "a later model answers shorter"
exit 0
