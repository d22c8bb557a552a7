# SPDX-License-Identifier: Apache-2.0
# stage.sh: the body of every job. Sourced by bash from a .slurm file:
#   imf_job STAGE RECIPE [--set key=value ...]
# Starts one stage on all ranks of the job and waits for it. Slurm sends SIGUSR1 to this script some minutes before the time
# limit (--signal=B:USR1@300); it is passed on, the stage saves and ends with 75, and the job is queued again, at most
# MAX_RESTARTS times. Any other exit code is the job's, but a 0 only when the stage's results are there: srun was seen to
# return 0 when it could not start the ranks, and the next job would have begun with what it found. After SIGTERM (scancel, a
# node that is wanted by others) a stage may save and end with 75 too, but the job is not queued again: who cancels a job
# does not want it back, and who preempts it queues it himself.
# Outside a job (bash jobs/STAGE.slurm RECIPE, in the directory that holds jobs/) mpirun starts RANKS_PER_NODE ranks here.
# shellcheck shell=bash
set -euo pipefail
IMF_HOME=${IMF_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}
# shellcheck source=jobs/lib/common.sh
. "$IMF_HOME/jobs/lib/common.sh"

imf_nodes=${SLURM_JOB_NUM_NODES:-1}
imf_ranks=${SLURM_NTASKS:-$((imf_nodes * ${SLURM_NTASKS_PER_NODE:-1}))}  # SLURM_NTASKS is not set everywhere
imf_cores=${SLURM_CPUS_PER_TASK:-1}
imf_pid='' imf_stop='' imf_terminated='' imf_signalled=''
imf_say() { echo "imf job ${SLURM_JOB_ID:-none}: $*"; }

imf_pass_on() {  # SIGNAL
    imf_signalled=1
    imf_say "SIG$1 at $(date -u +%Y-%m-%dT%H:%M:%SZ): the stage is asked to save and end"
    [ -z "$imf_pid" ] || kill -s "$1" "$imf_pid" 2>/dev/null || true
}
trap 'imf_stop=1; imf_pass_on USR1' USR1
trap 'imf_stop=1; imf_pass_on USR2' USR2
trap 'imf_stop=1 imf_terminated=1; imf_pass_on TERM' TERM

# Outside a job: one node, with what site.sh says of it.
imf_layout() {
    [ -z "${SLURM_JOB_ID:-}" ] || return 0
    imf_nodes=1 imf_ranks=$RANKS_PER_NODE imf_cores=$THREADS LAUNCHER=mpirun
}

imf_load_modules() {
    [ -n "$MODULES" ] || return 0
    set +u  # the module function reads variables that may be unset
    module purge
    # shellcheck disable=SC2086
    module load $MODULES
    set -u
}

# True when the program has that command.
imf_knows() { "$IMF" --help 2>/dev/null | grep -q "^  $1 "; }

# A command of one process beside the ranks: it must not take itself for one of them.
imf_alone() { env -u SLURM_NTASKS -u SLURM_NPROCS -u SLURM_STEP_NUM_TASKS "$IMF" "$@"; }

# What can be known before the ranks start: each lack has one sentence.
imf_preflight() {  # RECIPE
    [ -x "$IMF" ] || imf_die 69 "$IMF is not there or cannot be run; build it, or set IMF in $IMF_SITE"
    [ -r "$1" ] || imf_die 66 "cannot read the recipe $1 from $PWD"
    case $LAUNCHER in
    srun)
        srun --mpi=list 2>&1 | grep -q pmix ||
            imf_die 69 "this Slurm has no PMIx (srun --mpi=list); set LAUNCHER=mpirun in $IMF_SITE" ;;
    mpirun)
        command -v mpirun >/dev/null || imf_die 69 "mpirun is not in PATH; set MODULES in $IMF_SITE" ;;
    *) imf_die 78 "LAUNCHER=$LAUNCHER in $IMF_SITE: srun and mpirun are known" ;;
    esac
}

imf_doctor() { ! imf_knows doctor || imf_alone doctor || imf_die $? "imf doctor says that this node cannot run imf"; }

# Whether this job can hold the stage: exit 69 with the reason where it cannot. Slurm gives the memory of a node in MiB.
imf_plan() {  # STAGE RECIPE [OPTIONS...]
    local stage=$1 recipe=$2 memory=()
    shift 2
    imf_knows plan || { imf_say "this imf has no plan command: whether the job fits is not known"; return 0; }
    [ "${SLURM_MEM_PER_NODE:-0}" = 0 ] || memory=(--memory $((SLURM_MEM_PER_NODE / 1024)))
    [ -z "$GPU_MEMORY" ] || memory+=(--gpu-memory "$GPU_MEMORY")
    imf_alone plan "$recipe" --stage "$stage" --ranks "$imf_ranks" \
        --ranks-per-node $((imf_ranks / imf_nodes)) ${memory[@]+"${memory[@]}"} "$@" ||
        imf_die $? "imf plan: this job cannot hold $stage (see above); nothing was started"
}

imf_launch() {  # COMMAND...: in the background
    # shellcheck disable=SC2086
    case $LAUNCHER in
    srun) srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task="$imf_cores" $LAUNCH_OPTIONS "$@" & ;;
    mpirun) mpirun -n "$imf_ranks" $LAUNCH_OPTIONS "$@" & ;;
    esac
    imf_pid=$!
}

# The launcher's own exit code: a signal that is passed on only interrupts the wait.
imf_wait() {
    local code=0
    while :; do
        imf_signalled=''
        wait "$imf_pid" && code=0 || code=$?
        [ -n "$imf_signalled" ] || return "$code"
    done
}

imf_requeue() {  # STAGE
    local restarts=${SLURM_RESTART_COUNT:-0}
    local then="its work is saved, sh jobs/pipeline.sh goes on"
    [ -z "$imf_terminated" ] || imf_die 75 "imf $1 was stopped from outside; $then"
    [ -n "${SLURM_JOB_ID:-}" ] || imf_die 75 "imf $1 was stopped; its work is saved, the same command goes on"
    [ "$restarts" -lt "$MAX_RESTARTS" ] ||
        imf_die 75 "imf $1 was restarted $restarts times (MAX_RESTARTS in $IMF_SITE); $then"
    imf_say "the work is saved; queued again ($((restarts + 1)) of at most $MAX_RESTARTS restarts)"
    scontrol requeue "$SLURM_JOB_ID" || imf_die 75 "scontrol requeue failed; $then"
    exit 75
}

# A node that died left a lease in the run directory that another node can only see grow old (10 minutes): a job that was
# queued again waits for that instead of failing.
imf_wait_lease() {  # RUN_DIR
    local job='' host=''
    [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || return 0
    for _ in $(seq 45); do
        [ -z "$imf_stop" ] && [ -e "$1/lease" ] && read -r job host _ <"$1/lease" || return 0
        [ "$job" = "${SLURM_JOB_ID:-}" ] && [ "$host" != "$(hostname)" ] || return 0
        [ -z "$(find "$1/lease" -mmin +10)" ] || return 0
        imf_say "the former start on $host left a lease; it ends ten minutes after that node's last sign of life"
        sleep 20 &
        wait $! || true
    done
}

imf_tell() {  # STAGE RECIPE RUN_DIR
    imf_say "$1 of $2 into $3, start $((${SLURM_RESTART_COUNT:-0} + 1)) at $(date -u +%Y-%m-%dT%H:%M:%SZ)"
    imf_say "nodes ${SLURM_JOB_NODELIST:-$(hostname)}, $imf_ranks ranks of $imf_cores cores by $LAUNCHER," \
        "$("$IMF" --version | head -n 1)"
}

# A script may set IMF_SCRIPT, its name in site_stage where that is not the stage's, and IMF_FIRST, what runs between
# preflight and start with the stage's own arguments: imf_plan.
imf_job() {  # STAGE RECIPE [OPTIONS...]
    [ $# -ge 2 ] || imf_die 64 "this job wants a recipe: sbatch jobs/$1.slurm RECIPE.yaml [--set key=value ...]"
    local stage=$1 recipe=$2 code=0 run
    shift 2
    imf_site "${IMF_SCRIPT:-$stage}"
    imf_layout
    imf_load_modules
    imf_preflight "$recipe"
    run=$(imf_run_dir "$recipe" "$@")
    set -- --set run_dir="$run" --set threads="$imf_cores" "$@"
    [ -z "$GPUS_PER_NODE" ] || set -- --set device=cuda "$@"
    imf_tell "$stage" "$recipe" "$run"
    imf_doctor
    [ -z "${IMF_FIRST:-}" ] || "$IMF_FIRST" "$stage" "$recipe" "$@"
    imf_wait_lease "$run"
    [ -z "$imf_stop" ] || imf_requeue "$stage"  # the signal came before the start
    imf_launch "$IMF" "$stage" "$recipe" "$@"
    imf_wait || code=$?
    imf_say "$stage ended with code $code"
    [ "$code" != 75 ] || imf_requeue "$stage"
    [ "$code" != 0 ] || imf_ended "$stage" "$run" ||
        imf_die 70 "the launcher says 0, but $run has no result of $stage: see its lines above; sh jobs/pipeline.sh goes on"
    exit "$code"
}
