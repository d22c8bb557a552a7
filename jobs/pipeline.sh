#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# pipeline.sh [--dry-run] [--stages "STAGE ..."] RECIPE [--set key=value ...]: submits the stages of a recipe as a chain of
# jobs, each after the one before has ended well, and prints "STAGE JOBID". A stage belongs to the chain when the recipe has
# its section (verify and pair: when it has prompts or samples); --stages says otherwise. Ended stages are left out and jobs
# that still wait or run are kept: after a failure, or a job that was cancelled, the same command submits what is missing.
# --dry-run prints the sbatch commands. The jobs' output and the list of job ids are in RUN_DIR.jobs. Settings: jobs/site.sh.
set -eu
IMF_HOME=${IMF_HOME:-$(cd "$(dirname "$0")/.." && pwd)}
export IMF_HOME
. "$IMF_HOME/jobs/lib/common.sh"

dry='' stages='' seen=''
while :; do
    case ${1:-} in
    --dry-run) dry=1; shift ;;
    --stages) stages=${2:-}; shift 2 || imf_die 64 "--stages wants a list: --stages 'sft dpo'" ;;
    *) break ;;
    esac
done
[ $# -ge 1 ] || imf_die 64 "pipeline.sh wants a recipe: sh jobs/pipeline.sh [--dry-run] RECIPE.yaml [--set key=value ...]"
recipe=$1
shift
[ -r "$recipe" ] || imf_die 66 "cannot read the recipe $recipe"

has() { grep -q "^$1 *:" "$recipe"; }
recipe_stages() {
    ! has prompts || echo select
    ! has sources || echo sample
    ! has reward_train || echo reward
    ! has reward || echo score
    if has prompts || has samples; then echo verify; echo pair; fi
    for stage in sft dpo eval; do ! has $stage || echo $stage; done
}
[ -n "$stages" ] || stages=$(recipe_stages)
[ -n "$stages" ] || imf_die 78 "$recipe has no section of any stage (prompts, sft, dpo, ...); name them with --stages"

imf_site pipeline
run=$(imf_run_dir "$recipe" "$@")
list=$run.jobs/list  # a line a job: stage, id

# The job of a stage that waits or runs; nothing when there is none.
live_job() {  # STAGE
    [ -e "$list" ] || return 0
    id=$(awk -v stage="$1" '$1 == stage { id = $2 } END { print id }' "$list")
    [ -n "$id" ] || return 0
    [ -z "$(squeue -h -j "$id" -o %i -t pending,running,suspended,configuring,completing 2>/dev/null)" ] || echo "$id"
}

after='' new=''
for stage in $stages; do
    [ -e "$IMF_HOME/jobs/$stage.slurm" ] || imf_die 64 "no stage is called '$stage'"
    if id=$(live_job "$stage") && [ -n "$id" ]; then
        seen=1
        if [ -z "$new" ]; then
            echo "$stage $id (waits or runs already)"
            after=$id
            continue
        fi
        [ -n "$dry" ] || scancel "$id"  # it waits for a job that failed
    fi
    if [ -z "$seen" ] && imf_ended "$stage" "$run"; then
        echo "$stage has ended"
        continue
    fi
    seen=1 new=1  # what comes after a stage that is missing is done anew, or is found ended by the stage itself
    if [ -n "$dry" ]; then
        IMF_DRY=1 IMF_AFTER=$after sh "$IMF_HOME/jobs/submit.sh" "$stage" "$recipe" "$@"
        after="<$stage>"
        continue
    fi
    id=$(IMF_AFTER=$after sh "$IMF_HOME/jobs/submit.sh" "$stage" "$recipe" "$@") ||
        imf_die 69 "sbatch refuses $stage; the jobs above stay"
    id=${id%%;*}  # with several clusters: id;cluster
    echo "$stage $id"
    echo "$stage $id" >>"$list"
    after=$id
done
[ -n "$seen" ] || echo "every stage of $run has ended"
