#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# R-GEO1, law 1 for training: ranks {1,2,3,4} and rows per micro-batch give one digest of weights and curve; so does a run that is
# resumed from a checkpoint on another number of ranks. In float32 and in bfloat16.
set -u
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. tests/lib/mpi.sh

dtype=float32
train() {  # RANKS FIXTURE MODEL DIR MICRO SAVE [NODES]: prints the digest
    IMF_NODES=${7:-0} mpirun -n "$1" "$build/tests/t45_train" run "train/$2.txt" "$3" "$4" "$5" "$6" $dtype || echo "failed: ranks $1"
}

for case in "tiny-sft llama-tied float32" "tiny-dpo qwen2 float32" "tiny-sft qwen2 bfloat16" "tiny-dpo llama-tied bfloat16"; do
    set -- $case
    dtype=$3
    want=$(train 1 "$1" "$2" "$work/$1-$dtype-1" 2 0)
    for layout in 2:1 3:2 4:4 4:1:2; do
        ranks=${layout%%:*} rest=${layout#*:}
        micro=${rest%%:*} nodes=0
        [ "$rest" = "$micro" ] || nodes=${rest#*:}
        got=$(train "$ranks" "$1" "$2" "$work/$1-$dtype-$layout" "$micro" 0 "$nodes")
        [ "$got" = "$want" ] || { echo "$case: layout $layout gives $got, one rank $want"; exit 1; }
    done
done

# resume: only the checkpoint of step 3 is left, the curve goes on behind it
for case in "sft float32" "dpo float32" "dpo bfloat16"; do
    stage=${case% *} dtype=${case#* }
    rm -rf "$work"/*
    model=llama-tied
    want=$(train 2 "tiny-$stage" "$model" "$work/whole-$stage" 2 3)
    got=$(train 1 "tiny-$stage" "$model" "$work/other-$stage" 1 0)
    [ "$got" = "$want" ] || { echo "$stage: save_steps changes the result: $got, $want"; exit 1; }
    rm -rf "$work/whole-$stage/$stage"/step_000000006 "$work/whole-$stage/$stage"/step_000000008
    [ -d "$work/whole-$stage/$stage/step_000000003" ] || { echo "$stage: no checkpoint of step 3"; exit 1; }
    got=$(train 3 "tiny-$stage" "$model" "$work/whole-$stage" 4 0)
    [ "$got" = "$want" ] || { echo "$stage: resumed on 3 ranks gives $got, unbroken $want"; exit 1; }
done
