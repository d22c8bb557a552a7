#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# submit.sh SCRIPT RECIPE [--set key=value ...]: submits jobs/SCRIPT.slurm with the settings of jobs/site.sh, prints the job id.
# SCRIPT: a stage (select ... eval, reward) or a paper model (dpo_llama8b). Run it where the recipe's paths begin.
# IMF_AFTER=JOBID: not before that job has ended well. IMF_DRY=1: print the sbatch command instead.
set -eu
IMF_HOME=${IMF_HOME:-$(cd "$(dirname "$0")/.." && pwd)}
export IMF_HOME
. "$IMF_HOME/jobs/lib/common.sh"

[ $# -ge 2 ] || imf_die 64 "submit.sh wants a script and a recipe: sh jobs/submit.sh dpo RECIPE.yaml [--set key=value ...]"
script=$1 recipe=$2
shift 2
[ -r "$IMF_HOME/jobs/$script.slurm" ] || imf_die 64 "there is no $IMF_HOME/jobs/$script.slurm"
[ -r "$recipe" ] || imf_die 66 "cannot read the recipe $recipe"
imf_site "$script"
run=$(imf_run_dir "$recipe" "$@")
set -- "$IMF_HOME/jobs/$script.slurm" "$recipe" "$@"
[ -z "${IMF_AFTER:-}" ] || set -- "--dependency=afterok:$IMF_AFTER" --kill-on-invalid-dep=yes "$@"
[ -z "$PARTITION" ] || set -- "--partition=$PARTITION" "$@"
[ -z "$ACCOUNT" ] || set -- "--account=$ACCOUNT" "$@"
[ -z "$GPUS_PER_NODE" ] || set -- "--gpus-per-node=$GPUS_PER_NODE" "$@"
[ -z "$MEMORY" ] || set -- "--mem=$MEMORY" "$@"
[ -z "$TIME" ] || set -- "--time=$TIME" "$@"
# shellcheck disable=SC2086
set -- sbatch --parsable "--job-name=imf-$script-$(basename "$run")" "--output=$run.jobs/%x-%j.out" "--nodes=$NODES" \
    "--ntasks-per-node=$RANKS_PER_NODE" "--cpus-per-task=$THREADS" "--export=ALL,IMF_HOME=$IMF_HOME,IMF_SITE=$IMF_SITE" \
    $SBATCH_OPTIONS "$@"
if [ -n "${IMF_DRY:-}" ]; then echo "$@"; exit 0; fi
mkdir -p "$run.jobs"
exec "$@"
