# SPDX-License-Identifier: Apache-2.0
# common.sh: what pipeline.sh, submit.sh and the jobs share. Sourced; IMF_HOME is set.
# shellcheck shell=sh

imf_die() {  # CODE WORDS...
    code=$1
    shift
    echo "imf: error $code: $*" >&2
    exit "$code"
}

# Reads the site's settings as they are for script $1.
imf_site() {  # SCRIPT
    IMF_SITE=${IMF_SITE:-$IMF_HOME/jobs/site.sh}
    [ -r "$IMF_SITE" ] || imf_die 66 "cannot read $IMF_SITE; copy jobs/site.sh there and edit it"
    GPUS_PER_NODE='' GPU_MEMORY=''  # of a site.sh that is older than these settings
    # shellcheck source=jobs/site.sh
    . "$IMF_SITE"
    site_stage "$1"
}

# The run directory of a recipe: what the last --set run_dir= says, else RUNS/NAME.
imf_run_dir() {  # RECIPE [OPTIONS...]
    dir=$RUNS/$(basename "$1" .yaml)
    shift
    for option in "$@"; do
        case $option in run_dir=*) dir=${option#run_dir=} ;; esac
    done
    echo "$dir"
}

# True when a stage has left everything that it makes in run directory $2.
imf_ended() {  # STAGE RUN_DIR
    case $1 in
    select) [ -e "$2/prompts/done" ] ;;
    sample) [ -e "$2/samples/done" ] ;;
    score) [ -e "$2/scores/done" ] ;;
    verify) [ -e "$2/verdicts/done" ] ;;
    pair) [ -e "$2/sft_rows/done" ] && [ -e "$2/pairs/done" ] ;;
    sft | dpo) [ -e "$2/$1/done.json" ] && [ -d "$2/$1/model" ] ;;
    eval) [ -e "$2/eval/summary.json" ] ;;
    reward) [ -d "$2/reward/model" ] ;;
    *) false ;;
    esac
}
