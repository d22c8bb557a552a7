#!/bin/sh
# A full disk in the middle of a stage on two ranks: exit 74 with one message that names the file, nothing committed, and the
# same command succeeds once there is room. Needs to mount a small file system.
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
