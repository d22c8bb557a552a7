#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check.sh BUILD [RANKS]: RANKS (64) real ranks of a tiny model, however few cores there are. What travels, what is opened and what
# a rank holds is counted and compared with the formulas of docs/scaling.md (formulas.awk). Prints one line a comparison; silent
# numbers are failures. strace counts opens where it is installed and may trace; else that part is skipped, and says so.
set -u
build=$1 ranks=${2:-64} few=8
here=$(dirname "$0")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
export OMPI_MCA_mpi_yield_when_idle=1
export OMP_NUM_THREADS=1
failed=0
formula() { awk -f "$here/formulas.awk" "$@"; }
tell() {  # WHAT HAVE RELATION WANT
    verdict=good
    [ -n "$2" ] && [ -n "$4" ] && [ "$2" "$3" "$4" ] || { verdict=WRONG failed=1; }
    printf '%-62s %14s %s %-14s %s\n' "$1" "$2" "$3" "$4" "$verdict"
}

awk 'BEGIN { for (i = 0; i < 512; i++)
    printf "{\"prompt\":\"say %d\",\"chosen\":\"%d and more of it\",\"rejected\":\"no\"}\n", i, i }' >"$dir/rows.jsonl"
cat >"$dir/r.yaml" <<END
seed: 7
prompts: [{path: input/demo/prompts.jsonl, limit: 200}]
sources: [{name: abacus, path: input/demo/abacus, n: 4, max_new_tokens: 24}]
reward: {path: input/demo/reward, max_length: 128}
pair: {margin_min: 0.0001, margin_max: 10, window_code: true}
target: {path: input/demo/novice}
sft: {data: $dir/rows.jsonl, max_steps: 2, global_batch: $ranks, max_length: 32, row_tokens: 32, grad_chains: $ranks}
dpo: {data: $dir/rows.jsonl, max_steps: 2, global_batch: $ranks, max_length: 32, row_tokens: 32, grad_chains: $ranks}
END
run() {  # RANKS COMMAND RUN OPTIONS...
    n=$1 command=$2 out=$3
    shift 3
    timeout 600 mpirun ${mca:-} -n "$n" "$build/imf" "$command" "$dir/r.yaml" --quiet --set run_dir="$dir/$out" "$@" >"$dir/log" 2>&1 ||
        { echo "imf $command on $n ranks: $(tail -n 20 "$dir/log")"; exit 1; }
}
counted() {  # RUN STAGE NAME sum|max: of the newest line of that stage
    sed -n "s/.*\"stage\":\"$2\".*\"$3\":{\"sum\":\([0-9]*\),\"max\":\([0-9]*\)}.*/\1 \2/p" "$dir/$1/profile.jsonl" | tail -n 1 |
        awk -v which="$4" '{ print which == "sum" ? $1 : $2 }'
}
number() { sed -n "s/.*\"$2\": *\"*\([0-9a-f]*\).*/\1/p" "$dir/$1"; }

# --- stages on few and on many ranks --------------------------------------------------------------------------------
# Files and memory are watched while the many ranks work.
watch() {
    while [ ! -e "$dir/stop" ]; do
        for set in samples scores verdicts; do
            [ -d "$dir/many/$set" ] && [ ! -e "$dir/many/$set/done" ] && ls "$dir/many/$set" 2>/dev/null | wc -l >>"$dir/files.$set"
        done
        sleep 0.2
    done
}
watch &
watcher=$!
for command in select sample score verify pair; do
    run $few $command few
    run "$ranks" $command many
done
touch "$dir/stop"
wait $watcher
for command in select sample score verify pair; do
    tell "$command: collective calls of a rank, as on $few ranks" "$(counted many $command collectives max)" = "$(counted few $command collectives max)"
    tell "$command: bytes of a rank's memory, at most" "$(counted many $command memory max)" -le \
        "$(formula rank_memory few="$(counted few $command memory max)" ranks="$ranks")"
done
samples=$(number many/samples/done count)
tell "sample: messages, at most" "$(counted many sample messages sum)" -le "$(formula sample_messages ranks="$ranks" samples="$samples")"
for set in samples scores verdicts; do
    tell "$set: digest as on $few ranks" "$(number many/$set/done digest)" = "$(number few/$set/done digest)"
    tell "$set: files while the stage runs, at most" "$(sort -n "$dir/files.$set" 2>/dev/null | tail -n 1)" -le "$(formula stage_files ranks="$ranks")"
    tell "$set: files after it, at most" "$(ls "$dir/many/$set" | wc -l)" -le "$(formula ended_files)"
done

# --- a step -----------------------------------------------------------------------------------------------------------
per_step() { echo $((($(counted "$1-4" "$2" "$3" "$4") - $(counted "$1-2" "$2" "$3" "$4")) / 2)); }
steps() {  # COMMAND RUN NODES: two runs whose difference is two steps
    for n in 2 4; do IMF_NODES=$3 run "$ranks" "$1" "$2-$n" --set "$1.max_steps=$n"; done
}
weights() { cat "$dir/$1/$2/model/"*.safetensors | sha256sum | cut -c1-16; }
steps dpo one 0
steps dpo two 2
steps sft one 0  # whose examples share rows, so that not every rank has a chain
elements=$("$build/imf" show "$dir/one-2/dpo/model" | sed -n 's/.*weights: \([0-9]*\) parameters.*/\1/p')
tensors=$("$build/imf" show "$dir/one-2/dpo/step_000000002" | sed -n 's/^\([0-9]*\) tensors.*/\1/p')
shares=$ranks
[ "$tensors" -ge "$ranks" ] || shares=$tensors  # a small tensor is one tile
for case in "one dpo 1" "two dpo 2"; do
    set -- $case
    tell "$2, $3 node(s): bytes of a step" "$(per_step "$1" "$2" bytes sum)" = "$(formula step_bytes ranks="$ranks" nodes="$3" elements="$elements")"
    tell "$2, $3 node(s): messages of a step" "$(per_step "$1" "$2" messages sum)" = \
        "$(formula step_messages ranks="$ranks" nodes="$3" shares="$shares")"
    tell "$2, $3 node(s): collective calls of a step" "$(per_step "$1" "$2" collectives max)" = "$(formula step_collectives)"
done
tell "sft: collective calls of a step" "$(per_step one sft collectives max)" = "$(formula step_collectives)"
tell "dpo: weights as with two nodes" "$(weights one-4 dpo)" = "$(weights two-4 dpo)"

# --- another transport ----------------------------------------------------------------------------------------------------
mca="--mca btl self,tcp --mca osc ^sm"
run "$ranks" dpo tcp --set dpo.max_steps=4
run "$ranks" select tcp
run "$ranks" sample tcp
mca=
tell "dpo over tcp: weights as over shared memory" "$(weights tcp dpo)" = "$(weights one-4 dpo)"
tell "samples over tcp: digest as over shared memory" "$(number tcp/samples/done digest)" = "$(number many/samples/done digest)"

# --- what a rank opens --------------------------------------------------------------------------------------------------------
if strace -o "$dir/try" true 2>/dev/null; then
    rm -rf "$dir/many/samples" "$dir/many/dropped_samples"
    timeout 600 mpirun -n $((ranks - 1)) "$build/imf" sample "$dir/r.yaml" --quiet --set run_dir="$dir/many" : \
        -n 1 strace -f -e trace=%file -o "$dir/last" "$build/imf" sample "$dir/r.yaml" --quiet --set run_dir="$dir/many" >"$dir/log" 2>&1 ||
        { echo "imf sample under strace: $(tail -n 20 "$dir/log")"; exit 1; }
    own=$(grep -o "samples/part-[^\"]*" "$dir/last" | sort -u | sed 's/\.[a-z]*$//' | sort -u | wc -l)
    tell "sample: other ranks' parts that the last rank touches while it samples" "$(sed '/data-[0-9]*\.jsonl/,$d' "$dir/last" |
        grep -o 'samples/part-[^"]*' | sed 's/\.[a-z]*$//' | sort -u | wc -l)" -le 1
    tell "sample: file calls of the last rank in the run directory, at most" "$(grep -c "$dir/many" "$dir/last")" -le $((40 + 2 * own))
else
    echo "opens: skipped, strace is not installed or may not trace"
fi
[ "$failed" = 0 ]
