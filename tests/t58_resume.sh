#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# R-CKPT1 for what a person sees: a resumed run writes the same metrics.jsonl, gives the same warnings and leaves the same weights
# as an undisturbed one, from every checkpoint, on other ranks, and after kill -9 between two checkpoints.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$*"; exit 1; }

# Pairs that lose half of their likelihood, and pairs that contradict each other; rows to fine-tune on.
seq 48 | awk '{ printf "{\"prompt\":\"question %d\",\"chosen\":\"the same long answer %d\",\"rejected\":\"the same long answer %d.\"}\n",
    $1, $1, $1 }' >"$dir/fall.jsonl"
seq 24 | awk '{ printf "{\"prompt\":\"question %d\",\"chosen\":\"yes it is\",\"rejected\":\"no it is not\"}\n", $1
    printf "{\"prompt\":\"question %d\",\"chosen\":\"no it is not\",\"rejected\":\"yes it is\"}\n", $1 }' >"$dir/even.jsonl"
cat >"$dir/r.yaml" <<END
target: {path: tests/data/decode/tiny}
sft: {data: $dir/fall.jsonl, global_batch: 8, num_train_epochs: 4, learning_rate: 0.002, max_length: 96, val_size: 8,
      eval_steps: 5, logging_steps: 4, save_steps: 6, save_total_limit: 9}
dpo: {data: "", global_batch: 8, num_train_epochs: 4, learning_rate: 0.02, max_length: 96, val_size: 8,
      eval_steps: 5, logging_steps: 4, save_steps: 6, save_total_limit: 9}
END
train() {  # RANKS STAGE DATA RUN
    launch=
    [ "$1" = 1 ] || launch="mpirun -n $1"
    $launch "$imf" "$2" "$dir/r.yaml" --quiet --set run_dir="$dir/$4" --set "$2.data=$dir/$3.jsonl" >"$dir/$4.log" 2>&1 ||
        fail "$2 on $3: $(cat "$dir/$4.log")"
}
warned() { sed -n 's/^warning: //p' "$1"; }

# The run directory as a job leaves it that died at its very end, with no checkpoint but those up to step $2: 0 none.
torn_run() {  # STAGE STEP WHOLE RUN
    cp -r "$dir/$3" "$dir/$4"
    rm -r "$dir/$4/$1/done.json" "$dir/$4/$1/model"
    for step in "$dir/$4/$1"/step_*; do [ "${step##*step_000000}" -le "$(printf %03d "$2")" ] || rm -r "$step"; done
    printf '{"stage":"%s","step":2' "$1" >>"$dir/$4/metrics.jsonl"
}
same() {  # STAGE STEP WHOLE RUN
    cmp -s "$dir/$3/metrics.jsonl" "$dir/$4/metrics.jsonl" ||
        fail "$3 resumed from step $2: metrics.jsonl differs: $(diff "$dir/$3/metrics.jsonl" "$dir/$4/metrics.jsonl")"
    cmp -s "$dir/$3/$1/model/model.safetensors" "$dir/$4/$1/model/model.safetensors" || fail "$3 resumed from step $2: the weights differ"
    warned "$dir/$3.log" | awk -v from="$2" '{ step = $0; sub(/.*step /, "", step) } step + 0 > from' >"$dir/want"
    warned "$dir/$4.log" | cmp -s - "$dir/want" || fail "$3 resumed from step $2 warns '$(warned "$dir/$4.log")', wanted '$(cat "$dir/want")'"
}

for case in "sft fall none" "dpo fall less.likely" "dpo even wins.only"; do
    set -- $case
    train 1 "$1" "$2" "$1-$2"
    [ "$3" = none ] || warned "$dir/$1-$2.log" | grep -q "step .*$3" || fail "$1 on $2: no warning '$3' to be repeated: $(cat "$dir/$1-$2.log")"
    for at in 0:1 6:2 18:1; do
        torn_run "$1" "${at%:*}" "$1-$2" resumed
        train "${at#*:}" "$1" "$2" resumed
        same "$1" "${at%:*}" "$1-$2" resumed
        rm -r "$dir/resumed"
    done
done

# kill -9, twice, wherever it hits.
long() { exec "$imf" sft "$dir/r.yaml" --quiet --set run_dir="$dir/$1" --set sft.num_train_epochs=80 --set sft.save_steps=50 >"$dir/long.log" 2>&1; }
(long whole) || fail "the long run failed: $(cat "$dir/long.log")"
for wanted in 60 210; do  # lines behind a checkpoint, none of the next one
    long killed &
    job=$!
    for wait in $(seq 1000); do
        [ "$(sed -n '$ s/.*"step":\([0-9]*\),.*/\1/p' "$dir/killed/metrics.jsonl" 2>/dev/null)" -ge $wanted ] 2>/dev/null && break
        sleep 0.02
    done
    kill -9 $job
    wait $job 2>/dev/null
    [ -e "$dir/killed/sft/model" ] && fail "the run ended before kill -9: nothing was tested"
done
(long killed) || fail "the killed run does not go on: $(cat "$dir/long.log")"
: >"$dir/whole.log" >"$dir/killed.log"
same sft 0 whole killed
exit 0
