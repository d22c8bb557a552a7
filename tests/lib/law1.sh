#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# law1.sh BUILD LAYOUT...: runs the small pipeline of tests/data/law1.yaml once a layout, in float32 and in bfloat16, and
# demands one digest each of every record set, of SFT and DPO weights, reference log-probs, loss curve and evaluation. LAYOUT =
# ranks:micro_rows:order, order 0 = input files as they are, else the seed of a shuffle of their lines. A layout with nodes =
# ranks:micro_rows:order:nodes pretends nodes. LAW1_KEEP=FILE: keeps the first layout's digests there (for chaos.sh).
set -u
build=$1; shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. tests/lib/law1_parts.sh

run_all() {  # DTYPE: the pipeline in the layout of the loop below
    (pipeline "$1" "$ranks" 1 "$micro" "${nodes:-0}" "$run/$1" "$run/prompts.jsonl") >"$run/log" 2>&1 ||
        { echo "layout $layout, $1: failed"; tail -n 20 "$run/log"; exit 1; }
    digests "$run/$1" "$1" >>"$run/digests"
    rm -rf "${run:?}/$1"
}

first=
for layout in "$@"; do
    ranks=$(echo "$layout" | cut -d: -f1) micro=$(echo "$layout" | cut -d: -f2) order=$(echo "$layout" | cut -d: -f3)
    nodes=$(echo "$layout" | cut -d: -f4)
    run=$work/$layout
    mkdir -p "$run"
    shuffle input/demo/prompts.jsonl "$order" >"$run/prompts.jsonl"
    run_all float32
    run_all bfloat16
    grep -q ' $' "$run/digests" && { echo "layout $layout: a digest is missing"; cat "$run/digests"; exit 1; }
    [ -n "$first" ] || first=$layout
    cmp -s "$work/$first/digests" "$run/digests" || {
        echo "layout $layout differs from $first:"
        diff "$work/$first/digests" "$run/digests"
        exit 1
    }
done
[ -z "${LAW1_KEEP:-}" ] || cp "$work/$first/digests" "$LAW1_KEEP"
