#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tensorboard: true: the event files of sft and dpo, read by a decoder of this test's own, hold what metrics.jsonl holds, value for
# value; after a resume and after kill -9 the START record makes of them what metrics.jsonl is. Off, no file is there; on, no
# bit of metrics or weights differs. imf audit and compare know the files. A disk that is full ends the run as it does for
# speed.jsonl, with 74, and the same command goes on.
set -u
imf=$1/imf shim=$1/tests/lib/fault_io.so
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$*"; exit 1; }
[ -e "$shim" ] || { echo "no $shim: make programs"; exit 77; }

seq 24 | awk '{
    printf "{\"prompt\":\"question %d\",\"chosen\":\"the answer is %d\",\"rejected\":\"no %d\"}\n", $1, $1, $1 }' >"$dir/pairs.jsonl"
cat >"$dir/r.yaml" <<END
target: {path: tests/data/decode/tiny}
sft: {data: $dir/pairs.jsonl, global_batch: 4, max_steps: 8, learning_rate: 0.002, max_length: 96, val_size: 4, eval_steps: 3,
      save_steps: 3}
dpo: {data: $dir/pairs.jsonl, global_batch: 4, max_steps: 5, learning_rate: 0.002, max_length: 96, val_size: 4, eval_steps: 2,
      save_steps: 2}
END
train() {  # RUN STAGE [--set ...]; its exit code
    run=$1 stage=$2
    shift 2
    $launch "$imf" "$stage" "$dir/r.yaml" --quiet --set run_dir="$dir/$run" "$@" >"$dir/log" 2>&1
}
on="--set tensorboard=true" launch=

cat >"$dir/read.py" <<'PY'
# read.py RUN STAGE START...: the stage's event files in order of names against metrics.jsonl; START: the step of each file's START record.
import glob, json, math, struct, sys, time

def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff
assert crc32c(b"123456789") == 0xe3069283  # the check value of the catalogues

def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff

def records(data, path):
    at = 0
    while at < len(data):
        if len(data) - at < 12: return
        (n,), (sum_n,) = struct.unpack_from("<Q", data, at), struct.unpack_from("<I", data, at + 8)
        assert sum_n == masked(data[at:at + 8]), f"{path}:{at}: checksum of the length"
        if len(data) - at < 16 + n: return  # torn by a process that ended
        event = data[at + 12:at + 12 + n]
        assert struct.unpack_from("<I", data, at + 12 + n)[0] == masked(event), f"{path}:{at}: checksum of the event"
        yield event
        at += 16 + n

def fields(message):
    at = 0
    def varint():
        nonlocal at
        v = shift = 0
        while True:
            byte = message[at]
            at += 1
            v |= (byte & 127) << shift
            shift += 7
            if byte < 128: return v
    while at < len(message):
        key = varint()
        kind = key & 7
        if kind == 0: value = varint()
        else:
            n = {1: 8, 5: 4}.get(kind) or varint()
            assert at + n <= len(message)
            value = message[at:at + n]
            at += n
        yield key >> 3, kind, value

def read(path):
    """[(step, "version ..." | "start" | {tag: float})]"""
    out = []
    for event in records(open(path, "rb").read(), path):
        step, what, wall = 0, None, None
        for number, kind, value in fields(event):
            if (number, kind) == (1, 1): wall = struct.unpack("<d", value)[0]
            elif (number, kind) == (2, 0): step = value
            elif (number, kind) == (3, 2): what = "version " + value.decode()
            elif (number, kind) == (7, 2):
                assert list(fields(value)) == [(1, 0, 1)], value
                what = "start"
            else:
                assert (number, kind) == (5, 2), (number, kind)
                what = {}
                for n1, k1, scalar in fields(value):
                    (n2, k2, tag), (n3, k3, number3) = fields(scalar)
                    assert (n1, k1, n2, k2, n3, k3) == (1, 2, 1, 2, 2, 5)
                    assert tag.decode() not in what, tag
                    what[tag.decode()] = struct.unpack("<f", number3)[0]
        assert abs(time.time() - wall) < 3600, wall
        out.append((step, what))
    return out

run, stage, starts = sys.argv[1], sys.argv[2], [int(x) for x in sys.argv[3:]]
paths = sorted(glob.glob(f"{run}/{stage}/events.out.tfevents.*"))
assert len(paths) == len(starts), paths
kept = []
for path, start in zip(paths, starts):
    events = read(path)
    assert events[0] == (0, "version brain.Event:2") and events[1] == (start, "start"), events[:2]
    kept = [(step, what) for step, what in kept if step < start] + events[2:]
want = [json.loads(line) for line in open(f"{run}/metrics.jsonl")]
want = [line for line in want if line.pop("stage") == stage]
assert len(kept) == len(want) > 3, (len(kept), len(want))
for (step, what), line in zip(kept, want):
    assert step == line.pop("step"), (step, line)
    assert set(what) == {f"{stage}/{name}" for name in line}, (what, line)
    for name, value in line.items():  # a float; epoch has six digits in metrics.jsonl
        assert math.isclose(what[f"{stage}/{name}"], value, rel_tol=1e-5 if name == "epoch" else 1.2e-7), (step, name, what, value)
PY
holds() { python3 "$dir/read.py" "$dir/$@" >"$dir/out" 2>&1 || fail "$*: $(cat "$dir/out")"; }
same() {  # RUN: the bits of the run without event files
    for file in metrics.jsonl sft/model/model.safetensors dpo/model/model.safetensors; do
        [ ! -e "$dir/$1/$file" ] || cmp "$dir/off/$file" "$dir/$1/$file" || fail "$1: $file differs"
    done
}

for stage in sft dpo; do
    train off $stage || fail "$stage: $(cat "$dir/log")"
    train on $stage $on || fail "$stage: $(cat "$dir/log")"
done
[ -z "$(find "$dir/off" -name '*tfevents*')" ] || fail "event files though nobody asked for them"
holds on sft 0
holds on dpo 0
same on
"$imf" audit "$dir/on" >"$dir/out" 2>&1 || fail "audit: $(cat "$dir/out")"
! grep -q 'unknown\|unfinished' "$dir/out" || fail "audit: $(cat "$dir/out")"
"$imf" compare "$dir/off" "$dir/on" >"$dir/out" 2>&1 || fail "compare: $(cat "$dir/out")"

# kill -9 in step 5, then on two ranks in step 8, behind the checkpoints of steps 3 and 6: the steps that are repeated are there
# once. Names rise, though starts may share a second, and here the clock of the first was ahead.
IMF_FAULT=step-finished:7@sft train killed sft $on
[ $? = 137 ] || fail "the run was not killed: $(cat "$dir/log")"
mv "$dir"/killed/sft/events.out.tfevents.* "$dir/killed/sft/events.out.tfevents.2000000000.elsewhere.1"
launch="mpirun -n 2"
IMF_FAULT=step-finished:6:0@sft train killed sft $on && fail "the second start was not killed"
train killed sft $on || fail "the killed run does not go on: $(cat "$dir/log")"
launch=
holds killed sft 0 4 7
[ -n "$(find "$dir/killed/sft" -name 'events.out.tfevents.2000000002.*')" ] || fail "names do not rise: $(ls "$dir/killed/sft")"
cmp "$dir/off/sft/model/model.safetensors" "$dir/killed/sft/model/model.safetensors" || fail "killed: the weights differ"

# A full disk: what ends the run when speed.jsonl cannot be written ends it here, and loses nothing either.
for fault in speed.jsonl:5 tfevents:9; do  # both in step 5
    path=${fault%:*}
    rm -rf "$dir/full"
    LD_PRELOAD=$shim FAULT_CALL=write FAULT_NTH=${fault#*:} FAULT_ERRNO=28 FAULT_PATH=$path FAULT_MARK=$dir/mark train full sft $on
    code=$?
    [ -e "$dir/mark" ] || fail "$path: no write failed"
    rm "$dir/mark"
    [ $code = 74 ] && grep -q "cannot write .*$path.*: No space left" "$dir/log" || fail "$path, disk full: exit $code: $(cat "$dir/log")"
    train full sft $on || fail "$path: the run does not go on: $(cat "$dir/log")"
    cmp "$dir/off/sft/model/model.safetensors" "$dir/full/sft/model/model.safetensors" || fail "$path: the weights differ"
done
holds full sft 0 4
exit 0
