#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A full disk in the middle of a stage on two ranks: exit 74 with one message that names the file, nothing committed, and the
# same command succeeds once there is room (CKP-5). Needs to mount a small file system.
set -u
imf=$1/imf
dir=$(mktemp -d)
mkdir "$dir/disk"
mount -t tmpfs -o size=300k tmpfs "$dir/disk" 2>/dev/null || { rm -rf "$dir"; echo "cannot mount a tmpfs here"; exit 77; }
trap 'umount "$dir/disk"; rm -rf "$dir"' EXIT
fail() { echo "$*"; cat "$dir/out"; exit 1; }
awk 'BEGIN { for (p = 0; p < 150; p++) for (k = 0; k < 4; k++)
    printf "{\"prompt\":\"question %d\",\"source\":\"s\",\"answer\":\"answer %d\",\"score\":%.2f}\n", p, k, 0.1 + k / 50 }' >"$dir/own.jsonl"
printf 'run_dir: %s/disk/run\nsamples: {path: %s/own.jsonl}\n' "$dir" "$dir" >"$dir/r.yaml"
pair() { mpirun --allow-run-as-root --oversubscribe -n 2 "$imf" pair "$dir/r.yaml" >"$dir/out" 2>&1; }
pair
[ $? = 74 ] || fail "wanted exit 74"
grep -q "$dir/disk/run/.*No space left" "$dir/out" || fail "the message does not name the file"
[ ! -e "$dir/disk/run/pairs/done" ] || fail "something was committed"
mount -o remount,size=8m "$dir/disk" || fail "remount"
pair || fail "the second attempt"
[ -e "$dir/disk/run/pairs/done" ] || fail "not committed"

# CKP-5: room for a checkpoint is asked for before the first step, in bytes.
for i in $(seq 8); do echo "{\"instruction\": \"say $i\", \"output\": \"$i\"}"; done >"$dir/rows.jsonl"
printf 'run_dir: %s/disk/train\ntarget: {path: tests/data/decode/tiny}\nsft: {data: %s/rows.jsonl, global_batch: 2, max_length: 96}\n' "$dir" \
    "$dir" >"$dir/t.yaml"
sft() { mpirun --allow-run-as-root --oversubscribe -n 2 "$imf" sft "$dir/t.yaml" --quiet >"$dir/out" 2>&1; }
dd if=/dev/zero of="$dir/disk/hog" bs=1k count=7400 2>/dev/null
sft
[ $? = 74 ] && grep -q "a checkpoint needs [0-9]* bytes and [0-9]* are free" "$dir/out" || fail "no room: wanted exit 74 before the first step"
! grep -q loss "$dir/disk/train/metrics.jsonl" 2>/dev/null || fail "a step was computed without room for a checkpoint"
rm "$dir/disk/hog"
mount -o remount,size=64m "$dir/disk" && sft || fail "the third attempt"
