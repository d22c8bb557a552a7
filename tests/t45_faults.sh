#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# t45_faults.sh BUILD: CKP-3. The Nth open, write, pwrite, fsync, rename, close or ftruncate of a save fails, once or from then on:
# exit 74 with a message that names file and error, or (a close or open on which nothing hangs) a whole checkpoint; the one before
# loads bit by bit, and nothing half-written is left after the next start. FAULTS=n: every call, EIO and ENOSPC,
# once and for good, and on two ranks; else a few of them.
set -u
program=$1/tests/t45_checkpoint shim=$1/tests/lib/fault_io.so
[ -e "$shim" ] || { echo "no $shim: make programs"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export IMF_IO_TIMEOUT=20 OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_ess_singleton_isolated=1
failed=0 survived=0
launch="LD_PRELOAD=\$FAULT_SHIM exec $program \"\$0\" \"\$@\""
mkdir "$work/tmp"
export OMPI_MCA_orte_tmpdir_base="$work/tmp"  # singletons of two runs would share one
fail() { echo "$call $n, errno $errno$persist: $*"; cat "$work/err"; exit 1; }
"$program" save "$work/good" 1 2>"$work/err" || { cat "$work/err"; exit 1; }

try() {  # one save with a fault; false when no call failed
    rm -rf "$work/ckpt" "$work/mark"
    cp -r "$work/good" "$work/ckpt"
    env ${persist:+FAULT_PERSIST=1} FAULT_CALL="$call" FAULT_NTH=$n FAULT_ERRNO=$errno FAULT_PATH="$work/ckpt" FAULT_MARK="$work/mark" \
        FAULT_SHIM="$shim" sh -c "$launch" save "$work/ckpt" 2 2>"$work/err"
    code=$?
    [ -e "$work/mark" ] || { [ $code = 0 ] || fail "no fault, but exit $code"; return 1; }
    found=$("$program" check "$work/ckpt" 2>>"$work/err") || fail "exit $code, then nothing loads"
    if [ $code = 0 ]; then
        case $call in close | open) ;; *) fail "exit 0" ;; esac  # of a file that was synced or only read; HDF5 tries an open first
        [ "$found" = 2 ] || fail "exit 0, but step $found is found"
        survived=$((survived + 1))
    else
        [ $code = 74 ] || fail "exit $code, 74 expected"
        grep -q "$work/ckpt" "$work/err" && grep -q "$text" "$work/err" || fail "the message does not name the file and '$text'"
        "$program" load "$work/ckpt" 1 2>>"$work/err" || fail "the checkpoint before does not load"
        failed=$((failed + 1))
    fi
    ! ls -d "$work"/ckpt/*.tmp.* >/dev/null 2>&1 || fail "left over: $(ls "$work/ckpt")"
}
sweep() {  # CALL ERRNO TEXT PERSIST
    call=$1 errno=$2 text=$3 persist=$4 n=1
    while try && [ -z "${only:-}" ]; do n=$((n + stride)); [ $n -lt 5000 ] || fail "no end"; done
}
stride=1
for call in fsync rename ftruncate; do sweep $call 5 "Input/output error" ""; done
only=first
sweep close 5 "Input/output error" x  # nc_close crashes
only=
[ -n "${FAULTS:-}" ] || stride=12
for call in open write pwrite close; do sweep $call 5 "Input/output error" ""; done
if [ -n "${FAULTS:-}" ]; then
    for call in open write pwrite fsync rename close ftruncate; do
        sweep $call 28 "No space left on device" ""
        sweep $call 5 "Input/output error" x
        sweep $call 28 "No space left on device" x
    done
fi
# Two ranks, through MPI-IO. A rank whose partner fails may wait for ever: then IMF_IO_TIMEOUT ends it, and names no error.
if [ -n "${FAULTS:-}" ]; then
    unset OMPI_MCA_ess_singleton_isolated
    export IMF_IO_TIMEOUT=8 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
    launch="exec mpirun -n 2 -x LD_PRELOAD=\$FAULT_SHIM $program \"\$0\" \"\$@\"" stride=3
    for call in open pwrite fsync rename close; do sweep $call 5 "Input/output error\|made no progress" ""; done
fi
[ $failed -ge 7 ] || { echo "only $failed faults hit"; exit 1; }
[ -z "${FAULTS:-}" ] || echo "$failed failing calls end in 74, $survived change nothing"
exit 0
