#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf status: what another shell sees of a run that runs, was killed half-way (a stale lease, the last progress), goes on, ends; 66 where
# no run is. progress.json is kept whatever --quiet says, replaced whole, and gone when a stage has ended; nothing is written by looking.
set -u
imf=$1/imf
dir=$(mktemp -d)
job=
trap '[ -z "$job" ] || kill -9 "$job" 2>/dev/null; rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }
status() {  # WANTED-CODE
    "$imf" status "$dir/run" >"$dir/out" 2>"$dir/err"
    code=$?
    [ $code = "$1" ] || fail "imf status: $code, wanted $1: $(cat "$dir/out" "$dir/err")"
}
says() { grep -q "$1" "$dir/out" || fail "imf status does not say '$1': $(cat "$dir/out")"; }

status 66
grep -q 'holds no run' "$dir/err" || fail "$(cat "$dir/err")"
mkdir "$dir/run"
status 66
"$imf" status >/dev/null 2>&1
[ $? = 64 ] || fail "imf status without a directory is no error of usage"

# A run that is at work for as long as the test wants: it is stopped with SIGSTOP behind its first checkpoint.
awk 'BEGIN { for (i = 0; i < 64; i++) printf "{\"instruction\":\"say %d\",\"output\":\"%d and more of the same\"}\n", i, i }' >"$dir/rows.jsonl"
cat >"$dir/r.yaml" <<END
run_dir: $dir/run
target: {path: input/demo/novice}
sft: {data: $dir/rows.jsonl, global_batch: 8, max_length: 64, max_steps: 4000, save_steps: 5, grad_chains: 1, val_size: 4}
END
"$imf" sft "$dir/r.yaml" --quiet >"$dir/log" 2>&1 &
job=$!
for i in $(seq 600); do
    ls "$dir"/run/sft/step_*/MANIFEST.json >"$dir/saved" 2>/dev/null && grep -q '"done":[1-9]' "$dir/run/progress.json" 2>/dev/null && break
    kill -0 $job 2>/dev/null || fail "imf sft ended: $(cat "$dir/log")"
    sleep 0.1
done
kill -STOP $job
status 0
says "running, stage sft"
says 'sft: [1-9][0-9]* of 4000 steps ([0-9]* %)'
says "tokens/s, .* spent, about .* left"
says "owner: job [^ ]*, host $(hostname), process $job, alive"
says 'checkpoint of sft: step [0-9]*, .* old'
says 'disk: [0-9.]* MiB'
says 'warnings: [1-9]'  # rows are held out that nobody measures
says '    sft: rows are held out'
find "$dir/run" -type f | sort | xargs ls -l --time-style=full-iso >"$dir/before"
status 0
find "$dir/run" -type f | sort | xargs ls -l --time-style=full-iso >"$dir/after"
cmp -s "$dir/before" "$dir/after" || fail "imf status changed the run directory"

kill -9 $job
wait $job 2>/dev/null
job=
status 1
says 'stopped half-way in stage sft'
says 'process [0-9]*, gone'
says 'ended: no stage'

# Going on and ending removes it.
"$imf" sft "$dir/r.yaml" --quiet --set sft.max_steps=4000 >"$dir/log" 2>&1 &
job=$!
for i in $(seq 600); do
    "$imf" status "$dir/run" >"$dir/out" && grep -q 'sft: [0-9]* of 4000 steps' "$dir/out" && break
    sleep 0.1
done
kill -USR1 $job
wait $job
[ $? = 75 ] || fail "SIGUSR1: $(cat "$dir/log")"
job=
status 1
says 'stopped half-way in stage sft'
grep -q 'owner' "$dir/out" && fail "a lease is left: $(cat "$dir/out")"
rm -r "$dir/run"
"$imf" sft "$dir/r.yaml" --quiet --set sft.max_steps=2 >"$dir/log" 2>&1 || fail "imf sft: $(cat "$dir/log")"
[ ! -e "$dir/run/progress.json" ] || fail "progress.json is left behind"
status 0
says 'not running; what was begun has ended'
says 'ended: sft'
says 'checkpoint of sft: step 2,'
# A torn file of progress is none.
printf '{"stage":"sf' >"$dir/run/progress.json"
status 0

# A stage with records: begun and not ended without any progress.
cat >"$dir/s.yaml" <<END
run_dir: $dir/run2
prompts: [{path: input/demo/prompts.jsonl, limit: 4}]
END
"$imf" select "$dir/s.yaml" --quiet >"$dir/log" 2>&1 || fail "imf select: $(cat "$dir/log")"
"$imf" status "$dir/run2" >"$dir/out" || fail "$(cat "$dir/out")"
says 'ended: select'
mv "$dir/run2/prompts/done" "$dir/run2/prompts/was"
"$imf" status "$dir/run2" >"$dir/out"
[ $? = 1 ] || fail "a stage without its end: $(cat "$dir/out")"
says 'stopped half-way in stage select'
exit 0
