#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf score, both ways: ranks, nodes and the order of rows change no bit (law 1); the stage's scores are those of
# imf score --model; an over-long conversation is marked, not cut; what is wrong is named, with the exit code of the manual.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none
fail() { echo "$*"; exit 1; }
run() { mpirun -n "$1" "$imf" score "$dir/r.yaml" --quiet --set "run_dir=$2" --set "samples.path=$3"; }
digest() { sed -n 's/.*"digest": *"\([0-9a-f]*\)".*/\1/p' "$1/scores/done"; }
expect() {  # CODE TEXT COMMAND...: its exit code and a piece of its message
    want=$1 text=$2
    shift 2
    "$@" >"$dir/out" 2>&1 </dev/null
    got=$?
    [ "$got" = "$want" ] || fail "exit $got, wanted $want: $*: $(cat "$dir/out")"
    grep -q "$text" "$dir/out" || fail "the message does not say '$text': $(cat "$dir/out")"
}

# The fixture with the demo template's gating pattern (the assistant's token).
cp -r tests/data/reward "$dir/rm" || exit 1
sed 's/"imf_gating_pattern"/"unused"/; s/^{/{"imf_gating_pattern": [2],/' tests/data/reward/config.json >"$dir/rm/config.json"
printf 'reward: {path: %s}\n' "$dir/rm" >"$dir/r.yaml"
mkdir "$dir/a" "$dir/b"
awk 'BEGIN { srand(5); for (p = 0; p < 12; p++) for (k = 0; k < 5; k++)
    printf "{\"prompt\":\"question %d\",\"source\":\"s%d\",\"answer\":\"%s\"}\n", p, k % 2,
        substr("so the answer is this and that and whatever else there is", 1, 1 + int(rand() * 57)) }' >"$dir/a/own.jsonl"
awk '{ row[NR] = $0 } END { for (i = NR; i > 0; i--) print row[i] }' "$dir/a/own.jsonl" >"$dir/b/own.jsonl"
run 1 "$dir/r1" "$dir/a/own.jsonl" || fail "one rank failed"
IMF_NODES=2 run 3 "$dir/r3" "$dir/b/own.jsonl" || fail "three ranks failed"
[ -n "$(digest "$dir/r1")" ] && [ "$(digest "$dir/r1")" = "$(digest "$dir/r3")" ] || fail "digests differ between 1 and 3 ranks"
run 2 "$dir/r1" "$dir/a/own.jsonl" || fail "an ended stage cannot be run again"

# A reward model that was trained anew in the same place does not pass for the one whose scores are there.
cp -r "$dir/r1" "$dir/r2" && cp "$dir/rm/model.safetensors" "$dir/weights"
size=$(wc -c <"$dir/weights")
printf '\001' | dd of="$dir/rm/model.safetensors" bs=1 seek=$((size - 4)) conv=notrunc 2>/dev/null
run 2 "$dir/r2" "$dir/a/own.jsonl" >"$dir/out" 2>&1
[ $? = 78 ] && grep -q 'scores was made with other inputs' "$dir/out" || fail "another reward model in the same place: $(cat "$dir/out")"
cp "$dir/weights" "$dir/rm/model.safetensors"

# The small command gives the numbers of the stage.
"$imf" score --model "$dir/rm" <"$dir/a/own.jsonl" >"$dir/direct" || fail "imf score --model failed"
sed -n 's/.*"score":\([^,}]*\).*/\1/p' "$dir/direct" | sort >"$dir/one"
cat "$dir/r1"/scores/*.jsonl | sed -n 's/.*"score":\([^,}]*\).*/\1/p' | sort >"$dir/two"
[ -s "$dir/one" ] && cmp "$dir/one" "$dir/two" || fail "stage and command differ"
[ "$(grep -c '"unscored"' "$dir/direct")" -gt 0 ] || fail "no conversation was too long: the test is too weak"
[ "$(($(grep -c '"unscored"' "$dir/direct") + $(wc -l <"$dir/one")))" = 60 ] || fail "rows were lost"

expect 64 'usage' "$imf" score --model
expect 64 "does not know '--modle'" "$imf" score --modle x
expect 66 nowhere "$imf" score --model "$dir/nowhere"
cp -r "$dir/rm" "$dir/plain" && sed 's/"num_objectives"/"n"/' "$dir/rm/config.json" >"$dir/plain/config.json"
expect 65 'lm_head\|num_objectives\|no place' "$imf" score --model "$dir/plain"
cp tests/data/reward/config.json "$dir/rm/config.json"
printf '{"prompt":"a","answer":"b"}\n' >"$dir/row"
"$imf" score --model "$dir/rm" <"$dir/row" >"$dir/out" 2>&1
[ $? = 65 ] && grep -q 'gating pattern' "$dir/out" || fail "a pattern that does not occur: $(cat "$dir/out")"
printf '{"prompt":"a"}\n' >"$dir/row"
"$imf" score --model "$dir/rm" <"$dir/row" >"$dir/out" 2>&1
[ $? = 65 ] && grep -q ':1.*answer' "$dir/out" || fail "a row without answer: $(cat "$dir/out")"

# NaN in the weights: one message naming file and tensor, the same exit code from every rank, nothing committed.
size=$(wc -c <"$dir/rm/model.safetensors")
printf '\377\377\377\177' | dd of="$dir/rm/model.safetensors" bs=1 seek=$((size - 4)) conv=notrunc 2>/dev/null
run 2 "$dir/r9" "$dir/a/own.jsonl" >"$dir/out" 2>&1
[ $? = 65 ] && grep -q 'model.safetensors.*NaN' "$dir/out" || fail "NaN: $(cat "$dir/out")"
[ ! -e "$dir/r9/scores/done" ] || fail "scores of a broken model were committed"
exit 0
