#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# t45_checkpoint.sh BUILD: checkpoints on several ranks. CKP-9: saved on W ranks, loaded on W'. CKP-1: kill -9 during a save leaves
# the older checkpoint. CKP-4: a full disk is exit 74, never 0 and never a crash, and commits nothing.
set -u
program=$1/tests/t45_checkpoint
work=$(mktemp -d)
mounted=
cleanup() { [ -z "$mounted" ] || umount "$mounted"; rm -rf "$work"; }
trap cleanup EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export IMF_IO_TIMEOUT=60
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl_vader_single_copy_mechanism=none
ranks() { n=$1; shift; mpirun -n "$n" "$program" "$@" 2>"$work/err"; }
fail() { echo "$1"; cat "$work/err"; exit 1; }

for w in 1 2 3; do
    ranks $w save "$work/ckpt" $w || fail "save on $w ranks failed"
done
cmp -s "$work/ckpt/step_000000001/MANIFEST.json" "$work/ckpt/step_000000002/MANIFEST.json" && fail "two steps are equal"
for pair in 1:2 2:3 3:1; do
    ranks "${pair#*:}" load "$work/ckpt" "${pair%:*}" || fail "saved on ${pair%:*} ranks, cannot be loaded on ${pair#*:}"
done

# A node's ranks a file (two pretended nodes), a file a rank (nine ranks: the embedding's two tiles part), two ranks a file.
IMF_NODES=2 ranks 4 save "$work/nodes" 1 || fail "save on two nodes failed"
ranks 9 save "$work/files" 1 1 && ranks 4 save "$work/files" 2 2 && ranks 3 save "$work/files" 3 2 || fail "save in several files failed"
count() { ls "$work/$1" | grep -c '^shard-'; }
[ "$(count nodes/step_000000001) $(count files/step_000000001) $(count files/step_000000002) $(count files/step_000000003)" = "2 9 2 2" ] ||
    fail "other numbers of files than 2 9 2 2"
for n in 1 2 3; do
    ranks $n load "$work/nodes" 1 || fail "two nodes' files cannot be loaded on $n ranks"
    for step in 1 2 3; do ranks $n load "$work/files" $step || fail "step $step in several files cannot be loaded on $n ranks"; done
done
printf x | dd of="$work/files/step_000000002/shard-001.nc" bs=1 seek=1000 conv=notrunc status=none
rm "$work/files/step_000000003/shard-001.nc"
[ "$(ranks 2 find "$work/files")" = 1 ] || fail "a damaged and a missing file were not noticed"

# A rank is killed a little later each time; whatever is then found must load.
for delay in 0.2 0.3 0.4 0.6; do
    # Open MPI 4.1's mpirun was seen to hang for ever in PMIx_server_finalize, its ranks gone.
    timeout -s KILL 60 mpirun -n 2 "$program" save "$work/ckpt" 9 >/dev/null 2>&1 &
    job=$!
    sleep $delay
    kill -9 $(pgrep -P "$(pgrep -P $job || echo 0)" | head -n 1) 2>/dev/null
    wait $job 2>/dev/null
    found=$(ranks 1 find "$work/ckpt") || fail "find failed after a kill at $delay s"
    case $found in 3 | 9) ;; *) fail "found step $found after a kill at $delay s" ;; esac
    ranks 1 load "$work/ckpt" "$found" || fail "step $found does not load after a kill at $delay s"
    rm -rf "$work/ckpt/step_000000009"
done
ls -d "$work"/ckpt/*.tmp.* >/dev/null 2>&1 && { echo "a temporary directory was left"; exit 1; }

# A file size limit, as a quota would be.
mpirun -n 2 --mca btl self,tcp sh -c "trap '' XFSZ; ulimit -f 16000; exec $program save $work/limited 1" 2>"$work/err"
[ $? = 74 ] || fail "a file size limit must be exit 74"

mkdir "$work/small"
if mount -t tmpfs -o size=12m imf "$work/small" 2>/dev/null; then
    mounted=$work/small
    ranks 2 save "$mounted/ckpt" 1
    [ $? = 74 ] || fail "a disk that is too small must be exit 74"
    umount "$mounted" && mount -t tmpfs -o size=24m imf "$mounted"
    export IMF_IO_TIMEOUT=4  # 3 ranks were seen to hang inside HDF5
    for n in 1 3; do  # room enough when it starts, then something else fills the disk
        (i=0
         while [ $i -lt 3000 ] && ! ls "$mounted"/ckpt/*/shard-000.nc >/dev/null 2>&1; do i=$((i + 1)); done
         dd if=/dev/zero of="$mounted/hog" bs=1M 2>/dev/null) &
        filler=$!
        ranks $n save "$mounted/ckpt" 1
        code=$?
        wait $filler
        rm -f "$mounted/hog"
        case $code in
        0) ranks 1 load "$mounted/ckpt" 1 || fail "committed on a full disk but does not load" ;;
        74) [ ! -e "$mounted/ckpt/step_000000001" ] || fail "exit 74 but committed" ;;
        *) fail "a full disk must be exit 74, not $code" ;;
        esac
        rm -rf "$mounted/ckpt"
    done
fi
exit 0
