#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# demo.sh IMF RANKS [SEED] [imf options...]: the embedded pipeline, from prompts to a fused model, and its table.
# Everything lands in runs/demo (RUN_DIR= chooses another place); an older demo there is replaced.
set -eu
imf=$1 ranks=${2:-2} seed=${3:-42}
shift "$(($# < 3 ? $# : 3))"
run=${RUN_DIR:-runs/demo} recipe=${RECIPE:-input/demo.yaml}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl_vader_single_copy_mechanism=none OMP_NUM_THREADS=1
began=$(date +%s)
if [ -e "$run" ]; then
    [ -f "$run/recipe.yaml" ] || { echo "demo: $run is no run directory; RUN_DIR=DIR make demo uses another one" >&2; exit 73; }
    rm -rf "$run"
fi

stage() {  # COMMAND [options...]
    command=$1
    shift
    mpirun -n "$ranks" "$imf" "$command" "$recipe" --set seed="$seed" --set eval.seed="$seed" --set run_dir="$run" "$@"
}
for command in select sample score verify pair sft dpo; do stage $command "$@"; done

# What the sources can do at their sampling temperature, on 150 held-out prompts a kind (the pipeline itself never grades).
echo "demo: the sources at temperature 0.9"
stage eval "$@" --set run_dir="$run/sources" --set eval.temperature=0.9 --set eval.top_p=0.95 --set reward.path= \
    --set "eval.sets[0].limit=150" --set "eval.sets[1].limit=150" --set "eval.sets[2].limit=150" \
    --set eval.models=abacus=input/demo/abacus,byte=input/demo/byte,clerk=input/demo/clerk | sed '/^$/,$d'

# The fourth row: would more SFT have done as well as DPO? SFT continued on the pairs' chosen answers, for as many steps.
steps=$(grep -c '"rewards/margins"' "$run/metrics.jsonl")
stage sft "$@" --set run_dir="$run/more" --set target.path="$run/sft/model" --set sft.data="$run/export/dpo.jsonl" \
    --set sft.num_train_epochs=100 --set sft.max_steps="$steps"
stage eval "$@" --set eval.models="target,sft,sft_more=$run/more/sft/model,dpo"
mpirun -n 1 "$imf" report "$run/recipe.yaml" --quiet >/dev/null || echo "demo: no report.html" >&2
echo "demo: $(($(date +%s) - began)) s on $ranks ranks; everything is in $run (open $run/report.html; imf trace $run/recipe.yaml ID)"
