#!/bin/sh
# law1.sh BUILD LAYOUT...: runs the small pipeline of tests/data/law1.yaml once a layout, in float32 and in bfloat16, and demands
# one digest each of samples, scores, verdicts, SFT rows, pairs, SFT weights and DPO weights. LAYOUT = ranks:micro_rows:order,
# order 0 = input files as they are, else the seed of a shuffle of their lines. A layout with nodes = ranks:micro_rows:order:nodes
# pretends nodes.
set -u
build=$1; shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl_vader_single_copy_mechanism=none

shuffle() {  # lines of $1 in an order that depends on $2
    if [ "$2" = 0 ]; then cat "$1"; else awk -v s="$2" 'BEGIN { srand(s) } { print rand() "\t" $0 }' "$1" | sort -n | cut -f2-; fi
}

digests() {  # one line a result of run directory $1
    for set in prompts samples scores verdicts sft_rows pairs; do
        echo "$set $(sed -n 's/.*"digest": *"\([0-9a-f]*\)".*/\1/p' "$1/$set/done")"
    done
    for stage in sft dpo; do
        echo "$stage $(cat "$1/$stage/model/"*.safetensors | sha256sum | cut -c1-32)"
    done
}

stage() {  # COMMAND RUN_DIR OPTIONS...: in the layout of the loop below
    command=$1 out=$2
    shift 2
    IMF_NODES=${nodes:-0} mpirun -n "$ranks" "$build/imf" "$command" tests/data/law1.yaml --quiet --set run_dir="$out" \
        --set "prompts[0].path=$run/prompts.jsonl" --set sft.micro_rows="$micro" --set dpo.micro_rows="$micro" "$@" \
        >"$run/log" 2>&1 || { echo "layout $layout: $command $* failed"; tail -n 20 "$run/log"; exit 1; }
}

first=
for layout in "$@"; do
    ranks=$(echo "$layout" | cut -d: -f1) micro=$(echo "$layout" | cut -d: -f2) order=$(echo "$layout" | cut -d: -f3)
    nodes=$(echo "$layout" | cut -d: -f4)
    run=$work/$layout
    mkdir -p "$run"
    shuffle input/demo/prompts.jsonl "$order" >"$run/prompts.jsonl"
    for command in select sample score verify pair sft dpo; do
        stage $command "$run/out"
        stage $command "$run/out-bf16" --set dtype=bfloat16
    done
    { digests "$run/out"; digests "$run/out-bf16"; } >"$run/digests"
    grep -q ' $' "$run/digests" && { echo "layout $layout: a digest is missing"; cat "$run/digests"; exit 1; }
    [ -n "$first" ] || first=$layout
    cmp -s "$work/$first/digests" "$run/digests" || {
        echo "layout $layout differs from $first:"
        diff "$work/$first/digests" "$run/digests"
        exit 1
    }
    rm -rf "$run/out" "$run/out-bf16"
done
