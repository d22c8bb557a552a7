#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf compare: the same run twice is the same in every layout (law 1); one seed, one key of the recipe, one sample, one bit of
# one weight, one metric: the first difference is named exactly. Exit codes 0, 1, 64 and 66. Nothing is written.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$*"; exit 1; }

stages() {  # RUN COMMANDS OPTIONS...
    out=$dir/$1 commands=$2
    shift 2
    for command in $commands; do
        "$imf" "$command" tests/data/law1.yaml --quiet --set run_dir="$out" --set 'prompts[0].limit=24' \
            --set pair.margin_max=0.05 --set sft.export_dtype=float32 --set sft.num_train_epochs=1 \
            --set dpo.num_train_epochs=1 "$@" >"$dir/log" 2>&1 ||
            fail "$out: $command: $(tail -n 20 "$dir/log")"
    done
}
stages a "select sample score verify pair sft dpo"
stages twice "select sample score verify pair sft dpo" --set sft.micro_rows=3 --set sample.slots=5

compare() {  # CODE A B FIRST-LINE: a regular expression
    "$imf" compare "$2" "$3" >"$dir/out" 2>&1
    code=$?
    [ $code = "$1" ] &&
    head -n 1 "$dir/out" | grep -q "$4" || fail "compare $2 $3: exit $code, wanted $1 with '$4': $(cat "$dir/out")"
}
say() { grep -q "$1" "$dir/out" || fail "no line '$1': $(cat "$dir/out")"; }
part() {  # RUN SET: the set as one that has not ended, so that a line may be edited
    mv "$1/$2/data-00000.jsonl" "$1/$2/part-00000000000000-local-000000.jsonl" && rm "$1/$2/done" "$1/$2/data-00000.idx"
    edited=$1/$2/part-00000000000000-local-000000.jsonl
}
a=$dir/a
find "$a" -type f -exec cksum {} + | sort >"$dir/before"

compare 0 "$a" "$dir/twice/" '^same: [0-9]* parts compared$'
say '^recipe: sft.micro_rows: 1 | 3 (changes no result)' && say '^samples: same, [0-9]* records' &&
    say '^dpo/model: same, 988544 parameters'
mpirun -n 2 "$imf" compare "$a" "$dir/twice" >"$dir/out" 2>&1 || fail "compare on two ranks: $(cat "$dir/out")"

# One seed, given once the prompts are there (their limit draws by seed too): the samples are not the same.
mkdir "$dir/seed" && cp -r "$a/prompts" "$a/dropped_prompts" "$dir/seed"
stages seed sample --set seed=8
compare 1 "$a" "$dir/seed" '^first difference: samples: record [0-9a-f]\{32\} is only in [AB]; 0 of 0 common records differ'
say '^recipes differ: seed: 7 | 8' && say '^prompts: same'

# One key of the recipe, first where it decides something, then where it decides nothing.
for set in prompts dropped_prompts samples dropped_samples scores verdicts sft_rows pairs dropped; do
    mkdir -p "$dir/key" && cp -r "$a/$set" "$dir/key/$set"
done
stages key sft --set sft.learning_rate=6e-4
compare 1 "$a" "$dir/key" '^first difference: sft metrics: step [0-9]*, [a-z_]*: [0-9.e-]* | [0-9.e-]*; '
say '^recipes differ: sft.learning_rate: 0.0005 | 0.0006$' && say '^sft/model: different: tensor ' &&
    say '^dpo/model: different: only in .*/a'
cp -r "$a" "$dir/idle" && sed -i 's/^\( *\)label_smoothing: .*/\1label_smoothing: 0.25/' "$dir/idle/recipe.yaml"
compare 1 "$a" "$dir/idle" '^first difference: recipe: dpo.label_smoothing: 0 | 0.25; every result is the same$'

# One sample: the third record in the order of ids, one field of it; then one that is gone.
cp -r "$a" "$dir/edit" && part "$dir/edit" samples
id=$(sed -n '4s/^{"id":"\([0-9a-f]*\)".*/\1/p' "$edited")
sed -i '4s/"k":\([0-9]*\)/"k":9\1/' "$edited"
n=$(($(wc -l <"$edited") - 1))
counts="1 of $n common records differ, 0 are only in A, 0 only in B"
compare 1 "$a" "$dir/edit" "^first difference: samples: record $id, k: \([0-9]*\) | 9\1; $counts"
compare 1 "$a/samples" "$dir/edit/samples" "^first difference: samples: record $id, k: "
sed -i 4d "$edited"
counts="0 of $((n - 1)) common records differ, 1 are only in A, 0 only in B"
compare 1 "$a" "$dir/edit" "^first difference: samples: record $id is only in A; $counts"
cp -r "$a" "$dir/deep" && part "$dir/deep" pairs && sed -i '3s/"rejected":{"answer":"/&Hm, /' "$edited"
compare 1 "$a" "$dir/deep" '^first difference: pairs: record [0-9a-f]*, rejected.answer: "\(.*\) | "Hm, '

# One bit of one weight, found by a reader of its own.
cp -r "$a" "$dir/bit"
python3 - "$dir/bit/sft/model/model.safetensors" >"$dir/want" <<'PY'
import json, struct, sys
data = bytearray(open(sys.argv[1], "rb").read())
n = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8:8 + n])
name = "model.layers.1.mlp.down_proj.weight"
assert header[name]["dtype"] == "F32"
at = 8 + n + header[name]["data_offsets"][0] + 4 * 777
old = struct.unpack("<f", data[at:at + 4])[0]
data[at] ^= 1
new = struct.unpack("<f", data[at:at + 4])[0]
open(sys.argv[1], "wb").write(data)
print("tensor %s, element 777: %.9g | %.9g; 1 of 988544 elements differ, in 1 of %d common tensors, by %.9g at most" %
      (name, old, new, len(header) - 1, abs(old - new)))
PY
compare 1 "$a" "$dir/bit" "^first difference: sft/model: $(cat "$dir/want");"
say '^dpo/model: same' && say '^sft metrics: same'
compare 1 "$a/sft/model" "$dir/bit/sft/model" "^first difference: model: $(cat "$dir/want");"
compare 0 "$a/sft/model" "$dir/twice/sft/model" '^same: 1 part compared'
compare 1 input/demo/abacus input/demo/clerk '^first difference: model: tensor .*, element 0: '
sed -i 's/"rms_norm_eps": [^,]*/"rms_norm_eps": 0.5/' "$dir/twice/sft/model/config.json"
compare 1 "$a/sft/model" "$dir/twice/sft/model" '^first difference: model/config.json: rms_norm_eps: 1[0-9.]*e-[0-9]* | 0.5$'

# One number of the curve, one reference log-probability.
cp -r "$a" "$dir/curve" && sed -i '/"stage":"dpo","step":2/s/"loss":[0-9.]*/"loss":0.25/' "$dir/curve/metrics.jsonl"
compare 1 "$a" "$dir/curve" '^first difference: dpo metrics: step 2, loss: 0\.[0-9]* | 0.25; 1 of [0-9]* lines'
cp "$dir/key/recipe.yaml" "$dir/curve/x.yaml" && rm -r "$dir/curve/dpo"
compare 1 "$a" "$dir/curve" '^first difference: dpo/ref_logps.bin: only in .*/a$'

compare 66 "$a" "$dir/nothing" 'is no directory'
compare 64 "$a" "$a/samples" 'is a run directory, .* is a record set'
compare 64 "$a" "$1" 'is nothing that imf compares'
find "$a" -type f -exec cksum {} + | sort | cmp -s - "$dir/before" || fail "imf compare changed a run directory"
exit 0
