#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# demo_models.sh IMF RANKS: makes the models of input/demo from nothing with imf's own trainer (make demo-models).
#   1 data      the generator writes rows, prompts and an empty model directory (tools/demo_world)
#   2 base      imf sft from random weights, three rounds (ROUNDS in make_data.py)
#   3 habits    imf sft from the base: three sources and the target, each with faults of its own
#   4 reward    the sources answer the reward split's prompts; the generator's checker labels; imf reward
# Results replace input/demo/{abacus,byte,clerk,novice,reward}. Steps that are done are skipped; remove build/demo_models to
# start anew. The tokenizer is committed; tools/demo_world/make_tokenizer.py made it.
set -eu
imf=$1 ranks=${2:-2}
work=build/demo_models world=tools/demo_world recipes=input/demo/train
export PYTHONDONTWRITEBYTECODE=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl_vader_single_copy_mechanism=none OMP_NUM_THREADS=1
run() { mpirun -n "$ranks" "$imf" "$@"; }
sources='abacus byte clerk'

[ -f $work/data/base.jsonl ] || { python3 $world/make_data.py train $work/data.new && mv $work/data.new $work/data; }
python3 $world/make_data.py prompts input/demo
python3 $world/make_data.py models $work/empty
cp input/demo/tokenizer.json $work/empty/

run sft $recipes/base.yaml --set run_dir=$work/base --set sft.data=$work/data/base.jsonl
run sft $recipes/base.yaml --set run_dir=$work/more --set sft.data=$work/data/more.jsonl --set seed=5 \
    --set target.path=$work/base/sft/model --set target.init=load --set sft.learning_rate=2e-3
run sft $recipes/base.yaml --set run_dir=$work/last --set sft.data=$work/data/last.jsonl \
    --set target.path=$work/more/sft/model --set target.init=load --set sft.learning_rate=1.5e-3
for name in $sources novice; do
    run sft $recipes/habits.yaml --set run_dir=$work/$name --set sft.data=$work/data/$name.jsonl
done

run select $recipes/reward_samples.yaml
run sample $recipes/reward_samples.yaml
python3 $world/label.py $work/reward_samples $work/reward.jsonl
run reward $recipes/reward.yaml

for name in $sources novice; do rm -rf input/demo/$name && cp -r $work/$name/sft/model input/demo/$name; done
rm -rf input/demo/reward && cp -r $work/reward/reward/model input/demo/reward
du -sh input/demo
