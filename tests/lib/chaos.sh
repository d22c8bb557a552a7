#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# chaos.sh [-s] BUILD SEED...: law 1 and the journals under fire (CKP-1, CKP-2, FT-1). For each seed runs the pipeline of
# tests/data/law1.yaml again and again, each time on another number of ranks and killed at another point (chaos.awk), until it
# ends, and demands the digests of an undisturbed run of one rank. After each kill and at the end: a record is there once, one
# that was whole before the kill is still the same to the last byte (its `run` says who computed it, and when), no process of
# the killed job lives on, a dead job's lease is taken with a message; at the end nothing temporary is left. Silent unless
# wrong; a failure names the seed, which repeats it. -s: at the end the kills by stage and window; CHAOS_LEAST=n: fewer of a
# stage or window is a failure. CHAOS_REFERENCE=FILE: digests that law1.sh kept.
set -u
summary=
[ "$1" != -s ] || { summary=1; shift; }
build=$1; shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. tests/lib/law1_parts.sh
export LC_ALL=C
stages="select sample score verify pair sft dpo eval"
: >"$work/kills"

[ -n "${CHAOS_REFERENCE:-}" ] || {
    CHAOS_REFERENCE=$work/reference
    LAW1_KEEP=$CHAOS_REFERENCE sh tests/lib/law1.sh "$build" 1:1:0 || exit 1
}

fail() {
    echo "seed $seed: $*"
    echo "repeat it with: sh tests/lib/chaos.sh $build $seed; its combination:"
    cat "$run/plan"
    tail -n 15 "$run/log"
    exit 1
}

# Whole records as "SET line": of an ended set those of its merged files, else those of its parts.
records() {
    for dir in "$out"/* "$out"/eval/*; do
        kind=part
        [ ! -e "$dir/done" ] || kind=data
        for file in "$dir/$kind"-*.jsonl; do
            [ -s "$file" ] || continue
            cut=cat
            [ -z "$(tail -c 1 "$file")" ] || cut="sed \$d"  # a torn last line
            $cut "$file" | sed -n "s|^{\"id\"|${dir#"$out"/} &|p"
        done
    done
}

ids_once() {  # WHEN
    records | cut -d'"' -f1-4 | sort | uniq -d >"$run/twice"
    [ ! -s "$run/twice" ] || fail "$1 a record is there twice: $(head -n 1 "$run/twice")"
    grep -q 'are there twice' "$run/log" && fail "$1 a record was written twice"
}

stage_now() {  # the stage that runs since $before lines of profile.jsonl
    at=$(($(cat "$out/profile.jsonl" 2>/dev/null | wc -l) - before + 1))
    echo "$stages report" | cut -d' ' -f"$at"
}

# kill -9 of one of mpirun's ranks, $2 ms after stage $1 has begun; prints the stage that it hit.
kill_a_rank() {  # STAGE MS PICK
    while [ "$(stage_now)" != "$1" ] || [ ! -e "$out/lease" ]; do
        kill -0 $job 2>/dev/null || return
        sleep 0.01
    done
    sleep "$(awk "BEGIN { print $2 / 1000 }")"
    hit=$(stage_now)
    set -- $(cat /proc/$job/task/$job/children 2>/dev/null) "$3"
    [ $# -gt 1 ] || return
    eval "pick=\${$#}"
    shift $((pick % ($# - 1)))
    kill -9 "$1" 2>/dev/null && echo "$hit kill"
}

# No process works in this run directory any more.
wait_for_all() {
    for turn in $(seq 100); do
        grep -lsF "run_dir=$out" /proc/[0-9]*/cmdline >"$run/left" || return 0
        sleep 0.1
    done
    fail "a process of the killed job lives on: $(cat "$run/left")"
}

# One start of the program. Returns 0 when it went to the end, 1 when it was killed.
start() {  # RANKS THREADS MICRO NODES HOW [STAGE WHAT [PICK]]
    lease=
    [ ! -e "$out/lease" ] || lease=1
    before=$(cat "$out/profile.jsonl" 2>/dev/null | wc -l)
    IMF_FAULT=
    [ "$5" != fault ] || IMF_FAULT="$7@$6"
    export IMF_FAULT
    (pipeline "$dtype" "$1" "$2" "$3" "$4" "$out" "$run/prompts.jsonl") >"$run/log" 2>&1 </dev/null &
    job=$!
    : >"$run/hit"
    [ "$5" != kill ] || kill_a_rank "$6" "$7" "$8" >"$run/hit"
    wait $job
    code=$?
    [ "$5" != fault ] || sed -n 's/.*is killed at \([a-z-]*\) in \([a-z]*\)$/\2 \1/p' "$run/log" | head -n 1 >"$run/hit"
    [ -z "$lease" ] || grep -q 'was left by job .* which is gone' "$run/log" ||
        fail "the lease of a dead job was taken without a word"
    [ $code = 0 ] && return 0
    [ -s "$run/hit" ] || fail "ended with $code, and nobody killed it"
    cat "$run/hit" >>"$work/kills"
    return 1
}

one_seed() {
    run=$work/$seed out=$work/$seed/out
    mkdir -p "$run"
    awk -v seed="$seed" -f tests/lib/chaos.awk >"$run/plan"
    read -r order dtype <"$run/plan"
    shuffle input/demo/prompts.jsonl "$order" >"$run/prompts.jsonl"
    : >"$run/before"
    ended=
    sed 1d "$run/plan" >"$run/starts"
    while read -r line; do
        start $line && { ended=1; break; }
        wait_for_all
        ids_once "after '$line'"
        records >>"$run/before"
    done <"$run/starts"
    [ "$ended" ] || fail "the last start was killed, and nobody should have"
    ids_once "at the end"
    sort -u "$run/before" >"$run/before.sorted"
    records | sort | comm -23 "$run/before.sorted" - >"$run/lost"
    [ ! -s "$run/lost" ] || fail "a record that was whole before a kill is lost or computed again: $(head -n 1 "$run/lost")"
    find "$out" -name '*.tmp*' -o -name 'part-*' -o -name 'lease*' >"$run/rest"
    [ ! -s "$run/rest" ] || fail "left behind: $(cat "$run/rest")"
    grep "^$dtype " "$CHAOS_REFERENCE" >"$run/wanted"
    digests "$out" "$dtype" >"$run/digests"
    cmp -s "$run/wanted" "$run/digests" || fail "another result than that of an undisturbed run:
$(diff "$run/wanted" "$run/digests")"
    rm -rf "$run"
}

for seed in "$@"; do one_seed; done

# Stages down, windows across; the table of points is that of src/base/fault.h.
awk -v least="${CHAOS_LEAST:-0}" -v show="$summary" -v stages="$stages" -v seeds=$# '
    FNR == NR { if ($1 == "//" && $3 ~ /^(item|journal|compaction|checkpoint|rename)$/) window[$2] = $3; next }
    { hit = $2 == "kill" ? "anytime" : window[$2]; n[$1, hit]++; row[$1]++; column[hit]++; all++ }
    function few(what, count) { if (count + 0 < least) { print "only " count + 0 " kills in " what; bad = 1 } }
    END {
        windows = split("item journal compaction checkpoint rename anytime", w, " ")
        k = split(stages " report", s, " ")
        if (show) printf "%d seeds, %d kills\n%-10s", seeds, all, ""
        for (j = 1; show && j <= windows; j++) printf "%11s", w[j]
        if (show) printf "%11s\n", "all"
        for (i = 1; show && i <= k; i++) {
            if (i == k && !row[s[i]]) continue
            printf "%-10s", s[i]
            for (j = 1; j <= windows; j++) printf "%11d", n[s[i], w[j]]
            printf "%11d\n", row[s[i]]
        }
        for (i = 1; i < k; i++) few("stage " s[i], row[s[i]])
        for (j = 1; j <= windows; j++) few("window " w[j], column[w[j]])
        exit bad
    }' src/base/fault.h "$work/kills"
