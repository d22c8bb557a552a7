#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# real_run.sh IMF RANKS DATA [imf options...]: input/smollm2.yaml from prompts to evaluation, with a log of every stage.
# DATA: a folder with gsm8k/{train,test}.jsonl and chat/dpo_en_demo.json (preference rows). Models: tools/fetch_models.sh
# build/models. Everything lands in runs/smollm2, the log in runs/smollm2.log; stages that are done are skipped.
set -eu
[ $# -ge 3 ] || { echo "usage: real_run.sh IMF RANKS DATA" >&2; exit 64; }
imf=$1 ranks=$2 data=$3
shift 3
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl_vader_single_copy_mechanism=none OMP_NUM_THREADS=1
mkdir -p runs
for stage in select sample reward score verify pair sft dpo eval report; do
    began=$(date +%s)
    mpirun -n "$ranks" "$imf" $stage input/smollm2.yaml --set "prompts[0].path=$data/gsm8k/train.jsonl" \
        --set "eval.sets[0].path=$data/gsm8k/test.jsonl" --set "reward_train.data[0].path=$data/chat/dpo_en_demo.json" "$@" 2>&1
    echo "$stage: $(($(date +%s) - began)) s on $ranks ranks"
done | tee -a runs/smollm2.log
