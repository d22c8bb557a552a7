#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf doctor says what is there and what a lack means; and the launch is looked at before any work (HPC-xx): a rank that Slurm's
# launcher left alone among several tasks ends with 69 and the words srun --mpi=pmix; more threads than cores, and two ranks on one
# core, are warned of once.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
unset OMP_NUM_THREADS OMP_THREAD_LIMIT  # nproc follows them
unset SLURM_JOB_ID SLURM_NTASKS SLURM_STEP_ID SLURM_STEP_NUM_TASKS SLURM_PROCID
fail() { echo "$*"; exit 1; }
says() { grep -q "$1" "$dir/out" || fail "no '$1' in: $(cat "$dir/out")"; }

"$imf" doctor >"$dir/out" 2>&1 || fail "imf doctor: $(cat "$dir/out")"
for what in imf cores cpu memory shm tmp mpi netcdf sandbox gpu slurm; do
    [ "$(grep -c "^\(ok\|note\|lack\) *$what " "$dir/out")" = 1 ] || fail "not one line about $what: $(cat "$dir/out")"
done
[ "$(wc -l <"$dir/out")" = 11 ] || fail "lines: $(cat "$dir/out")"
says "cores *$(getconf _NPROCESSORS_ONLN)"
says "memory *$(awk '/^MemTotal/ { printf "%.1f GiB", $2 / 1048576 }' /proc/meminfo)"
"$imf" doctor now >/dev/null 2>&1
[ $? = 64 ] || fail "imf doctor now is no error of usage"

# What it says follows what is there.
IMF_SANDBOX=none "$imf" doctor >"$dir/out" 2>&1 || fail "imf doctor without a sandbox: $(cat "$dir/out")"
says '^lack *sandbox *this machine has neither Landlock nor user namespaces'
IMF_ISA=base "$imf" doctor >"$dir/out" 2>&1
says '^note *cpu *base: neither AVX2 nor AVX-512'
TMPDIR=/nowhere "$imf" doctor >"$dir/out" 2>&1
says '^lack *tmp *.nowhere cannot be written'
SLURM_JOB_ID=17 "$imf" doctor >"$dir/out" 2>&1
says '^ok *slurm *inside job 17'
PATH=/nowhere "$imf" doctor >"$dir/out" 2>&1
says '^note *mpi .*no mpirun'
if command -v taskset >/dev/null && [ "$(nproc)" -gt 1 ]; then
    first=$(taskset -cp $$ | sed 's/.*: \([0-9]*\).*/\1/')
    taskset -c "$first" "$imf" doctor >"$dir/out" 2>&1
    says '^note *cores .*this process may use 1'
fi

# The launch.
printf 'run_dir: %s/run\nprompts: [{path: input/demo/prompts.jsonl, limit: 4}]\n' "$dir" >"$dir/r.yaml"
for set in SLURM_STEP_NUM_TASKS=2 'SLURM_STEP_ID=0 SLURM_NTASKS=4'; do
    env $set "$imf" select "$dir/r.yaml" >"$dir/out" 2>&1
    [ $? = 69 ] && [ ! -e "$dir/run" ] || fail "$set, one rank alone: $(cat "$dir/out")"
    says 'srun --mpi=pmix'
    [ "$(wc -l <"$dir/out")" = 1 ] || fail "more than one error: $(cat "$dir/out")"
done
env SLURM_STEP_NUM_TASKS=1 "$imf" select "$dir/r.yaml" >"$dir/out" 2>&1 || fail "a step of one task: $(cat "$dir/out")"
grep -q warning "$dir/out" && fail "a warning without a reason: $(cat "$dir/out")"
env SLURM_NTASKS=4 "$imf" select "$dir/r.yaml" >"$dir/out" 2>&1 || fail "a batch script: $(cat "$dir/out")"
says '^warning: start: Slurm has 4 tasks for this job, and imf runs as one rank alone'
"$imf" select "$dir/r.yaml" --set threads=$((1 + $(nproc))) >"$dir/out" 2>&1 || fail "more threads than cores: $(cat "$dir/out")"
[ "$(grep -c '^warning: start: 1 rank of' "$dir/out")" = 1 ] || fail "more threads than cores, no warning: $(cat "$dir/out")"
mpirun -n $((1 + $(nproc))) "$imf" select "$dir/r.yaml" >"$dir/out" 2>&1 || fail "more ranks than cores: $(cat "$dir/out")"
[ "$(grep -c '^warning: start: .* ranks of 1 thread on a node' "$dir/out")" = 1 ] || fail "more ranks than cores, no warning: $(cat "$dir/out")"
if command -v taskset >/dev/null && [ "$(nproc)" -gt 1 ]; then  # both ranks on the first core: ranks x threads > cores
    taskset -c "$first" mpirun -n 2 "$imf" select "$dir/r.yaml" >"$dir/out" 2>&1 || fail "two ranks on a core: $(cat "$dir/out")"
    [ "$(grep -c '^warning: start: ' "$dir/out")" = 1 ] || fail "two ranks on a core, not one warning: $(cat "$dir/out")"
    # A third core user that is free makes it two ranks that share one although there is room.
    mpirun -n 1 taskset -c "$first" "$imf" select "$dir/r.yaml" : -n 1 taskset -c "$first" "$imf" select "$dir/r.yaml" \
        >"$dir/out" 2>&1 || fail "two bound ranks: $(cat "$dir/out")"
    says '^warning: start: '
fi
exit 0
