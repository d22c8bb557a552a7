#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# t45_damage.sh BUILD: CKP-6 and CKP-7. A checkpoint in three files: a bit flip anywhere is found and its file and tensor are named,
# or it changes nothing of what is loaded; a file that is cut short (52 places), missing, swapped or of another step is refused,
# and the step before is found. FAULTS=n: that many flips.
set -u
program=$1/tests/t45_checkpoint
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. tests/lib/mpi.sh
fail() { echo "$1"; cat "$work/out"; exit 1; }
for step in 1 2; do
    mpirun -n 3 "$program" save "$work/ckpt" $step 1 >"$work/out" 2>&1 || fail "save failed"
done
"$program" damage "$work/ckpt" 2 1 "${FAULTS:-160}" >"$work/out" 2>&1 || fail "damage was not found, or not named"
[ -z "${FAULTS:-}" ] || tail -n 1 "$work/out"
exit 0
