#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf sample with device: cuda on hostcuda: greedy answers are the CPU's in bf16, but for near-ties (there are none here), on both architectures; ranks and
# slots change no bit.
set -u
. tests/hostcuda/lib.sh
. tests/lib/mpi.sh
recipe 6 16 >"$dir/r.yaml"
sed 's/temperature: 0, n: 1/temperature: 0.9, n: 3/' "$dir/r.yaml" >"$dir/hot.yaml"
# sample PROGRAM RANKS RECIPE RUN OPTIONS...
sample() {
    program=$1/imf ranks=$2 recipe=$3 run=$4
    shift 4
    for stage in select sample; do
        mpirun -n "$ranks" "$program" $stage "$dir/$recipe" --set run_dir="$dir/$run" "$@" >"$dir/log" 2>&1 || fail "$stage, $run: $(cat "$dir/log")"
    done
}
# compare A B SLACK: the same records, token for token; their log-probabilities within SLACK.
compare() {
    python3 - "$dir/$1" "$dir/$2" "$3" <<'END' || fail "samples of $1 and $2 differ"
import glob, json, sys
def read(run):
    rows = [json.loads(line) for path in glob.glob(run + "/samples/*.jsonl") for line in open(path)]
    return sorted((r["data"]["prompt"], r["data"]["k"], r["data"]["ids"], r["data"]["logp"]) for r in rows if "data" in r)
a, b = map(read, sys.argv[1:3])
assert len(a) == len(b) >= 6 and [r[:3] for r in a] == [r[:3] for r in b], [(x, y) for x, y in zip(a, b) if x[:3] != y[:3]]
off = max(abs(x[3] - y[3]) for x, y in zip(a, b))
print("samples", len(a), "tokens", sum(len(r[2]) for r in a), "log-probabilities off by at most", off)
assert off <= float(sys.argv[3])
END
}

sample "$1" 1 r.yaml cpu
for sm in 90 80; do
    export HOSTCUDA_SM=$sm
    sample "$1/hostcuda" 1 r.yaml gpu$sm --set device=cuda
    compare cpu gpu$sm 0.05
done
unset HOSTCUDA_SM
sample "$1/hostcuda" 1 hot.yaml one --set device=cuda --set sample.slots=2
sample "$1/hostcuda" 2 hot.yaml two --set device=cuda --set sample.slots=8
compare one two 0
