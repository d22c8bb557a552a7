#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf audit: an undamaged run is good (on one rank, on two, without write permission, while a stage has not ended), and each of
# the faults planted below is named by file, line or id with exit 65. CKP-6, CKP-7, CKP-13: a damaged NetCDF file is found
# without opening it.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$*"; exit 1; }

whole=$dir/whole run=$dir/run
mpirun -n 2 "$imf" run tests/data/law1.yaml --quiet --set run_dir="$whole" --set 'prompts[0].limit=24' \
    --set 'eval.sets[0].path=input/demo/heldout_math.jsonl' --set 'eval.sets[0].name=held' --set 'eval.sets[0].limit=6' \
    --set pair.margin_max=0.05 >"$dir/log" 2>&1 || fail "the run failed: $(tail -n 20 "$dir/log")"

good() {  # WORDS COMMAND...: exit 0, and the words
    words=$1
    shift
    "$@" >"$dir/out" 2>&1 || fail "$*: exit $?: $(cat "$dir/out")"
    grep -q -- "$words" "$dir/out" || fail "$*: no '$words': $(cat "$dir/out")"
    ! grep -q '^fault' "$dir/out" || fail "$*: a fault: $(cat "$dir/out")"
}
find "$whole" -type f -exec cksum {} + | sort >"$dir/before"
good '^samples: [0-9]* records, 1 file, digest [0-9a-f]*.. good' "$imf" audit "$whole"
! grep -q 'unknown file\|unfinished' "$dir/out" || fail "a file of the run is not known: $(cat "$dir/out")"
good '^dpo/model: [0-9]* files, [0-9]* parameters in BF16, good' mpirun -n 2 "$imf" audit "$whole/"
chmod -R a-w "$whole"
good '^eval/dpo.scores: [0-9]* records' "$imf" audit "$whole"
chmod -R u+w "$whole"
find "$whole" -type f -exec cksum {} + | sort | cmp -s - "$dir/before" || fail "imf audit changed the run directory"

fresh() { rm -rf "$run"; cp -r "$whole" "$run"; }
named() {  # WORDS...: exit 65 and a fault with each of these words
    "$imf" audit "$run" >"$dir/out" 2>&1
    code=$?
    [ $code = 65 ] || fail "$plant: exit $code, wanted 65: $(cat "$dir/out")"
    for words; do grep -q "^fault: .*$words" "$dir/out" || fail "$plant: no fault '$words': $(grep -v good "$dir/out")"; done
    planted=$((planted + 1))
}
planted=0
flip() {  # FILE [FROM-THE-END]: one bit of one byte, in the middle unless told
    python3 - "$run/$1" "${2:-}" <<'PY'
import sys
path, back = sys.argv[1:]
data = bytearray(open(path, "rb").read())
data[-int(back) if back else len(data) // 2] ^= 1
open(path, "wb").write(data)
PY
}
edit() { sed -i "$2" "$run/$1"; }  # FILE SCRIPT
first_id() { sed -n '2s/^{"id":"\([0-9a-f]*\)".*/\1/p' "$whole/$1/data-00000.jsonl"; }

# ---- a flipped bit in every kind of file that something vouches for
for set in prompts dropped_prompts samples scores verdicts sft_rows pairs eval/sft eval/sft.scores; do
    plant="bit of $set" && fresh && flip $set/data-00000.jsonl 9 && named "$set/data-00000.jsonl:[0-9]*: .*checksum"
done
plant="bit of an index" && fresh && flip scores/data-00000.idx 1 &&
    named "scores/data-00000.jsonl:[0-9]*: the line does not match"
plant="bit of an id in an index" && fresh && flip scores/data-00000.idx 40 &&
    named "scores/data-00000.jsonl:[0-9]*: the index names another id"
plant="bit of a checkpoint" && fresh && flip "sft/$(ls "$whole/sft" | grep step_ | tail -n 1)/shard-000.nc" &&
    named 'sft/step_[0-9]*/shard-000.nc: bytes .* checksum'
plant="bit of a manifest" && fresh && flip "dpo/$(ls "$whole/dpo" | grep step_ | tail -n 1)/MANIFEST.json" &&
    named 'dpo/step_[0-9]*/MANIFEST.json does not match'
for file in model.safetensors config.json tokenizer.json tokenizer_config.json README.md; do
    plant="bit of $file" && fresh && flip sft/model/$file && named "sft/model/$file: it does not match its checksum"
done
plant="bit of checksums.json" && fresh && flip dpo/model/checksums.json &&
    named 'dpo/model/checksums.json: it does not match its own'
plant="bit of ref_logps.bin" && fresh && flip dpo/ref_logps.bin && named 'dpo/ref_logps.bin does not match its own sum'
plant="bit of the digest in done" && fresh && flip samples/done 60 && named 'samples/done: '

# ---- files that are not there, or are those of something else
plant="no record file" && fresh && rm "$run/scores/data-00000.jsonl" && named 'scores/done: 0 files are there, 1 were written'
plant="no index" && fresh && rm "$run/pairs/data-00000.idx" && named 'pairs/data-00000.idx: the index is missing'
plant="no done" && fresh && rm "$run/samples/done" && named 'samples/done: the file is missing'
plant="no samples" && fresh && rm -r "$run/samples" && named 'verdicts: it was made from samples, which are not there'
plant="no shard" && fresh && rm "$run"/sft/step_*/shard-000.nc && named 'sft/step_[0-9]*/shard-000.nc is missing'
plant="no tokenizer" && fresh && rm "$run/dpo/model/tokenizer.json" && named 'dpo/model/tokenizer.json: the file is missing'
plant="no export" && fresh && rm "$run/export/dpo.jsonl" && named 'export/dpo.jsonl: the file is missing'
plant="sets swapped" && fresh && mv "$run/scores/data-00000.jsonl" "$run/x" &&
    mv "$run/verdicts/data-00000.jsonl" "$run/scores" &&
    mv "$run/x" "$run/verdicts/data-00000.jsonl" &&
    named "scores/data-00000.jsonl:1: .*imf-verdicts" 'verdicts/data-00000.jsonl:1: '
plant="models swapped" && fresh && mv "$run/sft/model" "$run/x" && mv "$run/dpo/model" "$run/sft/model" &&
    mv "$run/x" "$run/dpo/model" &&
    named 'sft/done.json: "model" is not' 'dpo/done.json: "base" is not that of sft/model' \
        'eval/sft: it holds the answers of another model'
plant="data hash" && fresh && edit dpo/done.json "s/\"data\":\"[0-9a-f]*/\"data\":\"$(printf %032d 7)/" &&
    named 'dpo/done.json: "data" is not that of its last checkpoint' \
        'dpo/ref_logps.bin: it belongs to another model or to other pairs'

# ---- lines
plant="a cut line at the end" && fresh && truncate -s -20 "$run/samples/data-00000.jsonl" &&
    named 'samples/data-00000.jsonl:[0-9]*: the last line is cut off'
plant="a line removed" && fresh && edit scores/data-00000.jsonl 5d &&
    named 'scores/data-00000.jsonl:5: the index says' 'scores/done: [0-9]* records are there'
plant="a line twice" && fresh && edit scores/data-00000.jsonl 5p && named "scores/data-00000.jsonl:6: id [0-9a-f]* occurs twice"
plant="two lines swapped" && fresh && edit scores/data-00000.jsonl '5{h;d};6G' &&
    named 'scores/data-00000.jsonl:6: id [0-9a-f]* is out of order'
plant="a record file's header" && fresh && edit pairs/data-00000.jsonl '1s/"recipe":"./"recipe":"x/' &&
    named 'pairs/done: it does not repeat the fields'
plant="digest" && fresh && edit prompts/done "s/\"digest\":\"[0-9a-f]*/\"digest\":\"$(printf %032d 7)/" &&
    named 'prompts/done: the records have the digest' "samples: it was made from other prompts"
plant="count" && fresh && edit verdicts/done 's/"count":/"count":1/' && named 'verdicts/done: [0-9]* records are there, 1'

# ---- ids and parents: sets that have not ended, without an index, so that every line itself is in order
open_set() { mv "$run/$1/data-00000.jsonl" "$run/$1/part-00000000000000-local-000000.jsonl" &&
    rm "$run/$1/done" "$run/$1/data-00000.idx"; }
part=part-00000000000000-local-000000.jsonl
zero=$(printf %032d 0)
plant="a sample without prompt" && fresh && open_set samples &&
    edit samples/$part "3s/\"prompt\":\"[0-9a-f]*/\"prompt\":\"$zero/" &&
    named "samples/$part:3: its prompt $zero is not among the prompts"
plant="an orphan score" && fresh && open_set scores && edit scores/$part "4s/\"sample\":\"[0-9a-f]*/\"sample\":\"$zero/" &&
    named "scores/$part:4: its sample $zero is not among the samples" \
        "scores/$part:4: the record's id is not that of its sample"
other=$(sed -n '3s/^{"id":"\([0-9a-f]*\)".*/\1/p' "$whole/prompts/data-00000.jsonl")
plant="a verdict on another prompt" && fresh && open_set verdicts &&
    edit verdicts/$part "2,3s/\"prompt\":\"[0-9a-f]*/\"prompt\":\"$other/" &&
    named "verdicts/$part:[23]: its sample answers another prompt"
plant="an orphan pair" && fresh && open_set pairs && edit pairs/$part "2s/\"sample\":\"[0-9a-f]*/\"sample\":\"$zero/" &&
    named "pairs/$part:2: its sample $zero"
plant="an orphan row" && fresh && open_set sft_rows &&
    edit sft_rows/$part "2s/\"prompt\":\"[0-9a-f]*/\"prompt\":\"$zero/" && named "sft_rows/$part:2: its prompt $zero"
plant="an edited prompt" && fresh && open_set prompts && edit prompts/$part '2s/"content":"/"content":"Please /' &&
    named "prompts/$part:2: the id is not that of these messages"
plant="a score of no answer" && fresh && open_set eval/dpo.scores &&
    edit eval/dpo.scores/$part "2s/\"id\":\"[0-9a-f]*/\"id\":\"$zero/" &&
    named "eval/dpo.scores/$part:2: it scores no answer of eval/dpo"

# ---- what is made from the sets, and the run's own files
plant="an export's line" && fresh && edit export/sft.jsonl '2s/gpt/human/' &&
    named 'export/sft.jsonl:2: the line is not that of the record at sft_rows/data-00000.jsonl:3'
plant="an export's end" && fresh && edit export/dpo.jsonl '$d' && named 'export/dpo.jsonl:[0-9]*: the line is not'
plant="a mean" && fresh && edit eval/summary.json 's/"mean":0\.[0-9]*\|"mean":[01]\.0/"mean":0.123/' &&
    named 'eval/summary.json: [a-z]* on held (math) has n [0-9]*, mean 0.123'
plant="counts of pairs" && fresh && edit pair.json 's/"pairs":/"pairs":1/' && named 'pair.json: its kinds have'
plant="a recipe's key" && fresh && edit recipe.yaml 's/learning_rate: 0.0005/learning_rate: 0.0006/' &&
    named 'sft/done.json: "recipe" is not that of recipe.yaml'
plant="the pair section" && fresh && edit recipe.yaml 's/margin_max: .*/margin_max: 7/' &&
    named 'pairs: it was made with another recipe'
plant="a key of no recipe" && fresh && edit recipe.yaml '1s/^/sede: 7\n/' && named "recipe.yaml:1:1.*sede"
plant="metrics not JSON" && fresh && edit metrics.jsonl '3s/"step"/step/' && named 'metrics.jsonl:3.*not JSON'
plant="steps fall" && fresh && edit metrics.jsonl '$s/"step":[0-9]*/"step":1/' &&
    named 'metrics.jsonl:[0-9]*: step 1 of dpo comes behind step'
plant="profile" && fresh && edit profile.jsonl '1s/"wall_ms"/"wall"/' &&
    named 'profile.jsonl:1: the line has no number "wall_ms"'
plant="log" && fresh && truncate -s -9 "$run/log.jsonl" && named 'log.jsonl:[0-9]*.*not JSON'
plant="list of what was dropped" && fresh && echo '{"id":"'$zero'","reason":"too long"}' >>"$run/sft/dropped.jsonl" &&
    named 'sft/dropped.jsonl:1: the row that was dropped is not among' 'sft/done.json: "dropped" is not'
plant="a NaN" && fresh
python3 - "$run/dpo/model/model.safetensors" <<'PY'
import struct, sys
data = bytearray(open(sys.argv[1], "rb").read())
at = 8 + struct.unpack("<Q", data[:8])[0] + 10  # bf16: element 5 of the first tensor
data[at:at + 2] = b"\xc0\x7f"
open(sys.argv[1], "wb").write(data)
PY
named "dpo/model/model.safetensors: tensor '.*', element 5 is NaN"
plant="many faults" && fresh && open_set scores && edit scores/$part "s/\"sample\":\"[0-9a-f]*/\"sample\":\"$zero/" &&
    named 'scores: [0-9]* faults more of this part'
[ "$(grep -c "^fault: scores/" "$dir/out")" = 20 ] || fail "more than 20 faults of one part are printed"
[ "$planted" = 59 ] || fail "only $planted faults were planted"

# ---- no faults: what has not ended, what was left, what nobody knows
fresh
rm -r "$run/eval" "$run/dpo" "$run/pairs/done" "$run/report.html"
mv "$run/pairs/data-00000.jsonl" "$run/pairs/$part"
printf '{"id":"12' >>"$run/pairs/$part"
rm "$run/pairs/data-00000.idx" "$run/sft/done.json"
mkdir "$run/sft/step_000000099.tmp.local-1" && echo notes >"$run/notes.txt"
good 'pairs: not ended, [0-9]* records so far, 1 file (a torn last line' "$imf" audit "$run"
for words in '^sft: not ended' '^unknown file: notes.txt$' '^unfinished: sft/step_000000099.tmp.local-1'; do
    grep -q "$words" "$dir/out" || fail "a stopped run: no '$words': $(cat "$dir/out")"
done
"$imf" audit "$dir/nothing" >"$dir/out" 2>&1; [ $? = 66 ] || fail "audit of nothing: $(cat "$dir/out")"
"$imf" audit >"$dir/out" 2>&1; [ $? = 64 ] || fail "audit without a directory: $(cat "$dir/out")"
exit 0
