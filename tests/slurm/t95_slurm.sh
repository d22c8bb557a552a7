#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make check-slurm: a small run as a chain of jobs in a Slurm of its own, hit by everything that happens to jobs, leaves
# the digests of an undisturbed mpirun. HPC-10 HPC-13 HPC-14 HPC-16 FT-6.
#   sample: kill -9 of a rank; the chain ends, and pipeline.sh submits what is missing
#   sft:    reaches its time limit, is stopped by SIGUSR1, saves, is queued again and goes on
#   dpo:    scancel (is not queued again), then SIGUSR1, then scontrol requeue in the middle
#   eval:   by mpirun instead of srun
# Every script passes sbatch --test-only and shellcheck. Exit 77, with the reason, where there is no Slurm.
set -u
build=$(cd "$1" && pwd)
for program in sbatch slurmctld slurmd munged shellcheck; do
    PATH=$PATH:/usr/sbin command -v $program >/dev/null || {
        echo "$program is not installed (packages slurm-wlm, munge, shellcheck)"
        exit 77
    }
done
work=$(mktemp -d)
. tests/slurm/private.sh
trap 'slurm_stop; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
. tests/lib/mpi.sh
runs=$work/runs run=$work/runs/law1
fail() {
    echo "$*"
    tail -n 25 "$run.jobs"/*.out "$work"/slurm/slurm*.log 2>/dev/null
    exit 1
}
say() { [ -z "${VERBOSE:-}" ] || echo "$(date +%T) $*"; }

recipe=tests/data/law1.yaml
options="--set sft.num_train_epochs=40 --set dpo.num_train_epochs=30 --set sources[0].n=24
    --set eval.sets[0].path=input/demo/heldout_math.jsonl --set eval.sets[0].limit=12 --set eval.max_new_tokens=40"
stages="select sample score verify pair sft dpo eval"
cat >"$work/site.sh" <<END
. "\$IMF_HOME/jobs/site.sh"
IMF=$build/imf RUNS=$runs MEMORY=1500M TIME=10 MODULES= LAUNCHER=srun LAUNCH_OPTIONS= PARTITION= ACCOUNT= SBATCH_OPTIONS=
NODES=1 RANKS_PER_NODE=2 THREADS=1
site_stage() {
    case \$1 in
    select | pair) RANKS_PER_NODE=1 ;;
    sft) TIME=2 SBATCH_OPTIONS=--signal=B:USR1@60 ;;
    eval) LAUNCHER=mpirun ;;
    esac
}
END
export IMF_SITE="$work/site.sh"

# --- scripts ------------------------------------------------------------------------------------------------------------------
check_scripts() {
    shellcheck -x jobs/*.slurm jobs/*.sh jobs/lib/*.sh && shellcheck -x -S warning tests/slurm/*.sh || fail "shellcheck"
    for script in jobs/*.slurm; do
        sbatch --test-only "$script" "$recipe" >"$work/out" 2>&1 || fail "sbatch --test-only $script: $(cat "$work/out")"
        for word in 'open-mode=append' requeue 'signal=B:USR1@300' 'output=%x-%j.out'; do
            grep -q "^#SBATCH --$word\$" "$script" || fail "$script does not say --$word"
        done
    done
}

# --- waiting ------------------------------------------------------------------------------------------------------------------
pipeline() {  # [WORDS...]: its lines in $work/chain
    # shellcheck disable=SC2086
    sh jobs/pipeline.sh "$@" --stages "$stages" "$recipe" $options >"$work/chain" 2>"$work/chain.err" ||
        fail "pipeline.sh: $(cat "$work/chain.err")"
}
job_of() { awk -v stage="$1" '$1 == stage { print $2 }' "$work/chain"; }
submitted() { awk '/^[a-z]* [0-9]+$/ { printf "%s%s", space, $1; space = " " }' "$work/chain"; }
state_of() { scontrol -o show job "$1" 2>/dev/null | sed -n 's/.* JobState=\([A-Z_]*\) .*/\1/p'; }
log_of() { cat "$run.jobs/imf-$1-law1-$(job_of "$1").out" 2>/dev/null; }

# A job that was queued again would wait for two minutes. It is let go four seconds from now, once, when its old step has taken
# its PMIx socket away: with the socket there srun cannot start the ranks, says so, and returns 0; within the same second slurmd
# takes the new start for the one that it has killed.
let_go() {
    for id in $(squeue -h -t pending -o '%i %r' | awk '$2 == "BeginTime" { print $1 }'); do
        start=$work/$id.$(scontrol -o show job "$id" | sed -n 's/.* Restarts=\([0-9]*\) .*/\1/p')
        [ ! -e "$start" ] && [ ! -e "$work/slurm/spool/stepd.slurm.pmix.$id.0" ] || continue
        scontrol update JobId="$id" StartTime=now+4seconds && : >"$start"
    done
}

# Waits until COMMAND says yes; in vain when no job is left that could change its mind.
until_yes() {  # SECONDS WHAT COMMAND...
    tries=$(($1 * 15)) what=$2  # three times what an idle machine may take
    shift 2
    until "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] && { ! queue_empty || "$@"; } || fail "waited in vain until $what; $(squeue 2>&1)"
        let_go
        sleep 0.2
    done
}
is() { [ "$(state_of "$1")" = "$2" ]; }
has_steps() { [ "$(grep -c "\"stage\":\"$1\".*\"loss\"" "$run/metrics.jsonl" 2>/dev/null || true)" -ge "$2" ] 2>/dev/null; }
logged() { log_of "$1" | grep -q "$2"; }
queue_empty() { [ -z "$(squeue -h -o %i)" ]; }
ranks_of() { scontrol listpids "$1.0" 2>/dev/null | awk 'NR > 1 && $4 ~ /^[0-9]+$/ { print $1 }'; }

# --- what happens to jobs -----------------------------------------------------------------------------------------------------
sample_is_killed() {
    pipeline
    [ "$(submitted)" = "$stages" ] || fail "pipeline.sh submitted '$(submitted)'"
    until_yes 90 "samples are written" sh -c "[ \"\$(cat '$run'/samples/part-*.jsonl 2>/dev/null | wc -l)\" -gt 8 ]"
    kill -9 "$(ranks_of "$(job_of sample)" | tail -n 1)" || fail "no rank of sample to be killed"
    until_yes 60 "the chain is gone" queue_empty
    is "$(job_of sample)" FAILED || fail "sample, one rank killed: $(state_of "$(job_of sample)")"
    is "$(job_of score)" CANCELLED || fail "score, its samples missing: $(state_of "$(job_of score)")"
    [ ! -e "$run/samples/done" ] || fail "the samples ended before kill -9: nothing was tested"
    pipeline --dry-run
    [ "$(grep -c '^sbatch' "$work/chain")" = 7 ] || fail "not 7 stages are missing: $(cat "$work/chain")"
}

# The ranks are held, so that the limit comes in the middle of training however fast the machine is.
sft_reaches_its_limit() {
    pipeline
    [ "$(submitted)" = "sample score verify pair sft dpo eval" ] || fail "submitted the second time: '$(submitted)'"
    until_yes 180 "sft trains" has_steps sft 4
    held=$(ranks_of "$(job_of sft)")
    # shellcheck disable=SC2086
    kill -STOP $held || fail "no ranks of sft to be held"
    until_yes 120 "the time limit of sft comes" logged sft 'SIGUSR1 at'
    # shellcheck disable=SC2086
    kill -CONT $held
    until_yes 60 "sft is queued again" logged sft 'queued again (1 of at most 20'
    logged sft 'sft ended with code 75' || fail "sft did not end with 75"
}

dpo_is_cancelled_stopped_and_requeued() {
    until_yes 120 "dpo trains" has_steps dpo 3
    scancel "$(job_of dpo)"
    until_yes 60 "the chain is gone" queue_empty
    is "$(job_of dpo)" CANCELLED || fail "dpo after scancel: $(state_of "$(job_of dpo)")"
    [ ! -e "$run/dpo/done.json" ] || fail "dpo ended before scancel: nothing was tested"
    logged sft 'start 2 at' && logged sft 'sft ended with code 0' || fail "sft did not go on and end in its second start"
    pipeline
    [ "$(submitted)" = "dpo eval" ] || fail "submitted the third time: '$(submitted)'"
    until_yes 60 "dpo trains again" logged dpo 'step 8/'
    scancel --batch --signal=USR1 "$(job_of dpo)"
    until_yes 60 "dpo is queued again" logged dpo 'queued again (1 of at most 20'
    until_yes 60 "dpo goes on" logged dpo 'start 2 at'
    until_yes 60 "dpo computes" sh -c "[ \"\$(grep -c 'dpo: step' '$run.jobs/imf-dpo-law1-$(job_of dpo).out')\" -gt 12 ]"
    scontrol requeue "$(job_of dpo)" || fail "scontrol requeue"
}

# --- digests ------------------------------------------------------------------------------------------------------------------
digests() {  # RUN_DIR
    for set in prompts samples scores verdicts sft_rows pairs eval/target eval/sft eval/dpo eval/dpo.scores; do
        echo "$set $(sed -n 's/.*"digest": *"\([0-9a-f]*\)".*/\1/p' "$1/$set/done")"
    done
    for stage in sft dpo; do echo "$stage $(cat "$1/$stage/model/"*.safetensors | sha256sum | cut -c1-32)"; done
}

undisturbed() {  # RUN_DIR: by mpirun, on three ranks
    for stage in $stages; do
        # shellcheck disable=SC2086
        mpirun -n 3 "$build/imf" "$stage" "$recipe" --quiet $options --set run_dir="$1" >"$work/out" 2>&1 ||
            fail "mpirun $stage: $(tail -n 20 "$work/out")"
    done
}

# A launcher that starts ranks which know nothing of each other is found before work (only where the program can tell).
wrong_launcher() {
    "$build/imf" --help | grep -q '^  doctor ' || return 0
    srun -n 2 --mpi=none "$build/imf" select "$recipe" --set run_dir="$work/apart" >"$work/out" 2>&1
    code=$?
    [ "$code" != 0 ] && [ ! -e "$work/apart/prompts/done" ] || fail "srun --mpi=none: code $code, $(cat "$work/out")"
}

# A job that asks for too little memory ends with 69 and the reason, and nothing was started.
does_not_fit() {
    model=tests/data/plan/llama-3.1-8b
    { "$build/imf" --help | grep -q '^  plan ' && [ -d $model ]; } || return 0
    id=$(sh jobs/submit.sh dpo_llama8b input/paper_llama8b.yaml --set target.path=$model) || fail "submit.sh dpo_llama8b"
    until_yes 30 "dpo_llama8b has ended" is "$id" FAILED
    scontrol -o show job "$id" | grep -q 'ExitCode=69:0' || fail "dpo_llama8b: $(scontrol -o show job "$id")"
    grep -q 'error 69: dpo .* wants [0-9]* bytes' "$runs/paper_llama8b.jobs"/*.out || fail "$(cat "$runs/paper_llama8b.jobs"/*.out)"
    [ ! -e "$runs/paper_llama8b" ] || fail "dpo_llama8b began"
}

say "Slurm starts"
slurm_start "$work/slurm" || fail "the private Slurm does not start"
check_scripts
does_not_fit
say "chain 1"; sample_is_killed
say "chain 2"; sft_reaches_its_limit
say "dpo"; dpo_is_cancelled_stopped_and_requeued
until_yes 240 "dpo has gone on" is "$(job_of dpo)" COMPLETED
until_yes 120 "eval has ended" is "$(job_of eval)" COMPLETED
logged dpo 'start 3 at' || fail "dpo was not started three times"
pipeline
grep -q "^every stage of $run has ended" "$work/chain" || fail "something is left to be done: $(cat "$work/chain")"
say "mpirun"
undisturbed "$work/whole"
digests "$work/whole" >"$work/want"
digests "$run" >"$work/got"
grep -q ' $' "$work/want" && fail "a digest is missing: $(cat "$work/want")"
cmp -s "$work/want" "$work/got" || fail "the digests differ: $(diff "$work/want" "$work/got")"
wrong_launcher
say "end"
exit 0
