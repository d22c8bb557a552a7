#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# jobs/ without a Slurm (FT-6 HPC-14 HPC-16): srun, sbatch, squeue and scontrol are small scripts that write down what they
# were asked. The real one is make check-slurm. Also: every value of the paper's recipes against a table, and imf reads them.
set -u
build=$(cd "$1" && pwd) root=$(pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
command -v bash >/dev/null || { echo "bash is not here, and job scripts are bash"; exit 77; }
fail() { echo "$*"; cat "$dir/out" 2>/dev/null; exit 1; }
stub() { printf '#!/bin/sh\n%s\n' "$2" >"$dir/bin/$1"; chmod +x "$dir/bin/$1"; }

mkdir -p "$dir/bin" "$dir/runs"
stub srun 'case $1 in --mpi=list) echo "specific pmix plugin versions available: pmix_v4"; exit 0 ;; esac
echo "srun $*" >>"$TRACE"; exec sh "$PROGRAM"'
stub scontrol 'echo "scontrol $*" >>"$TRACE"'
stub scancel 'echo "scancel $*" >>"$TRACE"'
stub sbatch 'n=$(cat "$TRACE.n" 2>/dev/null || echo 100); n=$((n + 1))
echo $n >"$TRACE.n"; echo "sbatch $*" >>"$TRACE"; echo $n'
stub squeue 'for id; do case " $LIVE " in *" $id "*) echo "$id" ;; esac; done'
stub imf 'case $1 in
--version) echo "imf 0" ;;
--help) echo "$COMMANDS" ;;
plan | doctor) echo "imf $*" >>"$TRACE"; exit "$PLAN" ;;
esac'
cat >"$dir/site.sh" <<END
. "$root/jobs/site.sh"
IMF=$dir/bin/imf RUNS=$dir/runs MAX_RESTARTS=3 ACCOUNT=phys NODES=2 THREADS=4 MEMORY=8G
END
echo 'sft: {global_batch: 2}' >"$dir/r.yaml"
run=$dir/runs/r
export PATH="$dir/bin:$PATH" IMF_HOME="$root" IMF_SITE="$dir/site.sh" TRACE="$dir/trace" LIVE='' COMMANDS='' PLAN=0
export SLURM_JOB_ID=7 SLURM_NTASKS=8 SLURM_JOB_NUM_NODES=2 SLURM_CPUS_PER_TASK=4 SLURM_MEM_PER_NODE=8192
export PROGRAM="$dir/program"

# --- one job -----------------------------------------------------------------------------------------------------
job() {  # CODE SCRIPT [RESTARTS]: runs a job script whose ranks do what $PROGRAM says
    : >"$TRACE"
    SLURM_RESTART_COUNT=${3:-} bash "jobs/$2.slurm" "$dir/r.yaml" --set sft.max_steps=9 >"$dir/out" 2>&1
    got=$?
    [ "$got" = "$1" ] || fail "jobs/$2.slurm, ranks: $(cat "$PROGRAM"): code $got, wanted $1"
}
traced() { grep -qF -- "$1" "$TRACE" || fail "nobody asked for '$1': $(cat "$TRACE")"; }
untraced() { ! grep -qF -- "$1" "$TRACE" || fail "somebody asked for '$1': $(cat "$TRACE")"; }

for code in 65 70 137; do
    echo "exit $code" >"$PROGRAM"
    job $code sft
    untraced scontrol
done
echo 'exit 75' >"$PROGRAM"
job 75 sft
traced 'scontrol requeue 7'
traced "srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task=4 $dir/bin/imf sft $dir/r.yaml --set run_dir=$run"
traced '--set threads=4 --set sft.max_steps=9'
untraced device=cuda
echo 'GPUS_PER_NODE=4' >>"$dir/site.sh"  # what computes on them is told so, and asks Slurm for them; the rest does not
job 75 sft
traced '--set device=cuda --set run_dir='
job 75 verify
untraced device=cuda
for script in sft:1 dpo:1 score:1 reward:1 verify:0 pair:0; do
    IMF_DRY=1 sh jobs/submit.sh "${script%:*}" "$dir/r.yaml" >"$dir/out" 2>&1 || fail "submit.sh ${script%:*}"
    [ "$(grep -c -- '--gpus-per-node=4' "$dir/out")" = "${script#*:}" ] || fail "GPUs of ${script%:*}: $(cat "$dir/out")"
done
sed -i '$d' "$dir/site.sh"
job 75 sft 2
traced 'scontrol requeue 7'
job 75 sft 3  # MAX_RESTARTS
untraced scontrol
grep -q 'restarted 3 times' "$dir/out" || fail "the last restart is not explained"

# A launcher that says 0 without having started anything; then a real end.
echo 'exit 0' >"$PROGRAM"
job 70 sft
grep -q 'no result of sft' "$dir/out" || fail "an end without results is not explained"
echo "mkdir -p $run/sft/model; : >$run/sft/done.json" >"$PROGRAM"
job 0 sft
rm -r "$run"

# Signals. The ranks say which one reached them.
cat >"$PROGRAM" <<'END'
trap 'echo "got USR1" >>"$TRACE"; exit 75' USR1
trap 'echo "got TERM" >>"$TRACE"; exit 75' TERM
echo ready >>"$TRACE"
i=0
while [ $i -lt 300 ]; do sleep 0.1; i=$((i + 1)); done
END
signalled() {  # SIGNAL
    : >"$TRACE"
    bash jobs/sft.slurm "$dir/r.yaml" >"$dir/out" 2>&1 &
    job=$!
    for _ in $(seq 200); do grep -q ready "$TRACE" && break; sleep 0.05; done
    kill -s "$1" $job
    wait $job
    got=$?
    [ "$got" = 75 ] || fail "SIG$1 to the job script: code $got, wanted 75"
    traced "got $1"
}
signalled USR1
traced 'scontrol requeue 7'
signalled TERM  # scancel: not wanted back
untraced scontrol

# A lost node's lease is waited for (here the first wait ends it); anybody else's is the stage's to refuse.
echo 'exit 65' >"$PROGRAM"
mkdir -p "$run" && stub sleep 'echo "sleep $*" >>"$TRACE"; rm -f "$LEASE"'
export LEASE="$run/lease"
echo '7 elsewhere 1 1' >"$LEASE"
job 65 sft 1
traced 'sleep 20'
traced 'srun --mpi=pmix'
for lease in '8 elsewhere 1 1' "7 $(hostname) 1 1"; do
    echo "$lease" >"$LEASE"
    job 65 sft 1
    untraced 'sleep 20'
done
rm "$dir/bin/sleep" "$LEASE"

# Before the start: what is missing has a sentence.
echo 'exit 0' >"$PROGRAM"
mv "$dir/bin/imf" "$dir/bin/imf.away"
job 69 sft
grep -q 'set IMF in' "$dir/out" || fail "a missing program is not explained"
mv "$dir/bin/imf.away" "$dir/bin/imf"
mv "$dir/bin/srun" "$dir/bin/srun.away"
stub srun 'echo none'
job 69 sft
grep -q 'no PMIx' "$dir/out" || fail "a Slurm without PMIx is not explained"
mv "$dir/bin/srun.away" "$dir/bin/srun"

# Paper models: doctor and plan first; where the job does not fit, 69 and nothing is started.
COMMANDS='  plan    x
  doctor  x' PLAN=69
job 69 dpo_llama8b
PLAN=0
job 70 dpo_llama8b
traced "imf doctor"
traced "imf plan $dir/r.yaml --stage dpo --ranks 8 --ranks-per-node 4 --memory 8"
traced "imf dpo $dir/r.yaml"
grep -q 'imf doctor' "$TRACE" && [ "$(head -n 1 "$TRACE")" = 'imf doctor' ] || fail "doctor is not first: $(cat "$TRACE")"
COMMANDS=''

# --- the chain ---------------------------------------------------------------------------------------------------
chain() {  # WORDS...
    : >"$TRACE"
    sh jobs/pipeline.sh "$@" --set seed=3 >"$dir/out" 2>&1 || fail "pipeline.sh $*: exit $?"
}
for key in prompts sources reward target sft dpo; do echo "$key:"; done >"$dir/r.yaml"
chain --dry-run "$dir/r.yaml"
[ "$(grep -c '^sbatch' "$dir/out")" = 7 ] && [ ! -s "$TRACE" ] && [ ! -e "$run.jobs" ] || fail "--dry-run"
chain "$dir/r.yaml"
[ "$(cut -d' ' -f1 "$dir/out" | tr '\n' ' ')" = 'select sample score verify pair sft dpo ' ] || fail "the chain"
[ "$(tail -n 1 "$dir/out")" = 'dpo 107' ] || fail "the last job"
[ "$(grep -c 'dependency=afterok:10[1-6] --kill-on-invalid-dep=yes' "$TRACE")" = 6 ] || fail "dependencies: $(cat "$TRACE")"
[ "$(grep -c -- '--account=phys' "$TRACE")" = 7 ] || fail "accounts: $(cat "$TRACE")"
grep -q -- '--nodes=2 .*--cpus-per-task=4 .*--mem=8G .*sft.slurm .*--set seed=3' "$TRACE" || fail "options: $(cat "$TRACE")"

# Half-finished: what has ended is left out, what waits or runs is kept, what is missing is submitted behind it.
for set in prompts samples scores; do mkdir -p "$run/$set"; : >"$run/$set/done"; done
LIVE='104 105'
chain "$dir/r.yaml"
[ "$(grep -c 'has ended' "$dir/out")" = 3 ] && grep -q '^verify 104 (waits' "$dir/out" && grep -q '^pair 105 (waits' "$dir/out" ||
    fail "ended and waiting stages"
[ "$(grep -c '^sbatch' "$TRACE")" = 2 ] && grep -q 'afterok:105 .*sft.slurm' "$TRACE" || fail "submitted: $(cat "$TRACE")"
# pair failed a moment ago; sft still waits for it, in vain.
LIVE='108 109'
mkdir -p "$run/verdicts" && : >"$run/verdicts/done"
chain "$dir/r.yaml"
grep -q 'scancel 108' "$TRACE" && grep -q 'scancel 109' "$TRACE" && [ "$(grep -c '^sbatch' "$TRACE")" = 3 ] ||
    fail "jobs that wait in vain: $(cat "$TRACE")"
LIVE=''
mkdir -p "$run/sft_rows" "$run/pairs" "$run/sft/model" "$run/dpo/model"
for mark in sft_rows/done pairs/done sft/done.json dpo/done.json; do : >"$run/$mark"; done
chain "$dir/r.yaml"
[ ! -s "$TRACE" ] && tail -n 1 "$dir/out" | grep -q "^every stage of $run has ended" || fail "nothing is missing"
sh jobs/pipeline.sh "$dir/none.yaml" >"$dir/out" 2>&1
[ $? = 66 ] || fail "a recipe that is not there"
sh jobs/submit.sh sample >"$dir/out" 2>&1
[ $? = 64 ] || fail "submit.sh without a recipe"

# Nothing of a site outside site.sh; every script has its header.
grep -lE 'partition|account|module load' jobs/*.slurm && fail "a job script knows a site"
for script in jobs/*.slurm; do
    for word in open-mode=append requeue signal=B:USR1@300 output=%x-%j.out; do
        grep -q "^#SBATCH --$word\$" "$script" || fail "$script does not say --$word"
    done
done
for stage in select sample score verify pair sft dpo eval reward; do
    [ -e "jobs/$stage.slurm" ] || fail "no jobs/$stage.slurm"
done
if command -v shellcheck >/dev/null; then
    shellcheck -x jobs/*.slurm jobs/*.sh jobs/lib/*.sh >"$dir/out" || fail "shellcheck"
fi

# --- the paper's recipes -----------------------------------------------------------------------------------------
# Target, SFT learning rate, DPO learning rate, beta, loss: README of FuseChat-3.0.
while read -r key sft_lr dpo_lr beta loss; do
    recipe=input/paper_$key.yaml
    "$build/imf" select "$recipe" --quiet --set run_dir="$dir/paper/$key" >"$dir/out" 2>&1  # no prompts: it is only read
    [ -e "$dir/paper/$key/recipe.yaml" ] || fail "imf does not read $recipe"
    for stage in sft dpo; do
        [ -e "jobs/${stage}_$key.slurm" ] || fail "no jobs/${stage}_$key.slurm"
        awk -v stage=$stage '/^[a-z]/ { on = $1 == stage ":" } on' "$dir/paper/$key/recipe.yaml" >"$dir/out"
        lr=$sft_lr epochs=3
        [ $stage = sft ] || lr=$dpo_lr epochs=1
        for line in "learning_rate: $lr" "num_train_epochs: $epochs" "global_batch: 128" "max_length: 2048" \
            "warmup_ratio: 0.1" "lr_scheduler_type: cosine" "weight_decay: 0" "adam_beta1: 0.9" "adam_beta2: 0.999" \
            "adam_epsilon: 1e-08" "max_grad_norm: 1"; do
            grep -qE "^ *$line( |\$)" "$dir/out" || fail "$recipe: $stage does not say '$line'"
        done
    done
    for line in "beta: $beta" "loss_type: $loss"; do
        grep -qE "^ *$line( |\$)" "$dir/out" || fail "$recipe: dpo does not say '$line'"
    done
    grep -q '^seed: 42' "$recipe" && grep -q '^dtype: bfloat16' "$recipe" || fail "$recipe: seed, dtype"
done <<END
llama8b 5e-06 8e-07 10 sigmoid_norm
llama3b 5e-06 1e-06 10 sigmoid_norm
llama1b 5e-06 1e-06 10 sigmoid_norm
qwen7b 2e-06 3e-07 0.01 sigmoid
gemma9b 2e-06 5e-07 0.01 sigmoid
END
exit 0
