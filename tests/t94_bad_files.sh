#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every input file of every command, damaged in every way of a table: the documented exit code, exactly one message, and the message
# names the file, says what is wrong and what to do. SHOW=1 prints the messages instead of judging them. HPC-18, PRS-1, PRS-6, PRS-10.
set -u
imf=$(realpath "$1")/imf
data=$(realpath tests/data)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMP_NUM_THREADS=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl_vader_single_copy_mechanism=none
cd "$dir" || exit 1
cases=0 bad=0
wrong() { echo "$1: $(cat out)"; bad=$((bad + 1)); }
advice='must|wants?\b|did you mean|is it |was it |is the |put |give |use |run |remove |correct |save |name a |keep |check |choose|one of|at most|at least'
advice="$advice|make |write |convert|copy |say |set |expected|needs|known are|choices|again|instead"

# judge WHAT CODE NAMES WORDS GOT: the rules for one run, whose stderr is in `out`.
judge() {
    cases=$((cases + 1))
    if [ -n "${SHOW:-}" ]; then
        printf '%-34s %3s %s\n' "$1" "$5" "$(grep '^imf: error ' out)"
    elif [ "$5" != "$2" ]; then
        wrong "$1: exit code $5, $2 expected"
    elif [ "$2" != 0 ]; then
        [ "$(grep -c '^imf: error ' out)" = 1 ] || wrong "$1: not exactly one message"
        grep -qF -- "$3" out || wrong "$1: '$3' is not named"
        grep -qE -- "$4" out || wrong "$1: no '$4'"
        grep -qE -- "$advice" out || wrong "$1: it does not say what to do"
    fi
}

# ---- rows: what a line can be --------------------------------------------------------------------------------------------
# damage KIND GOOD: file `rows` from one good row, GOOD. The kinds, with the exit code for a file (for standard input where it differs).
kinds='missing:66 directory:66 pipe:66 binary:65 torn:65 utf16:65 latin1:65 nul:65 deep:65 twice:65 number:65 text:65 list:65 fields:65
    types:65 huge:65 crlf:0 bom:0 array:0'
damage() {
    rm -rf rows
    case $1 in
    missing) ;;
    directory) mkdir rows ;;
    pipe) mkfifo rows ;;
    binary) head -c 4096 "$data/decode/tiny/model.safetensors" >rows ;;
    torn) { echo "$2"; echo "$2" | cut -c 1-12; } >rows ;;
    utf16) printf '%s\n' "$2" | iconv -f UTF-8 -t UTF-16 >rows ;;
    latin1) printf '%s\n{"prompt": "caf\351"}\n' "$2" >rows ;;
    nul) printf '%s\n{"prompt": "a\\u0000b"}\n' "$2" >rows ;;
    deep) { echo "$2"; printf '{"prompt": '; head -c 100000 /dev/zero | tr '\0' '['; echo; } >rows ;;
    twice) { echo "$2"; echo '{"prompt": "a", "prompt": "b"}'; } >rows ;;
    number) { echo "$2"; echo 3; } >rows ;;
    text) { echo "$2"; echo '"say 1"'; } >rows ;;
    list) { echo "$2"; echo '[1, 2]'; } >rows ;;
    fields) { echo "$2"; echo '{"promt": "say 1", "anser": "1"}'; } >rows ;;
    types) { echo "$2"; echo "$2" | sed 's/"[^"]*"\( *[,}]\)/17\1/g'; } >rows ;;
    huge) truncate -s 1000000000 rows ;;
    crlf) printf '%s\r\n' "$2" >rows ;;
    bom) printf '\357\273\277%s\n' "$2" >rows ;;
    array) printf '[%s]\n' "$2" >rows ;;
    esac
}
place() {  # the line that a kind of damage has to be reported at
    case $1 in
    torn | latin1 | nul | deep | twice | number | text | list | fields | types) echo "$2:2" ;;
    *) echo "$2" ;;
    esac
}
some='missing:66 directory:66 torn:65 number:65 fields:65 types:65 crlf:0'  # the reader is the same: its other kinds are tried once
file_of() {  # KINDS NAME GOOD COMMAND...: a file called rows
    list=$1 name=$2 good=$3
    shift 3
    for kind in $list; do
        damage "${kind%:*}" "$good"
        rm -rf run
        timeout 60 "$imf" "$@" --quiet >/dev/null 2>out </dev/null
        judge "$name ${kind%:*}" "${kind#*:}" "$(place "${kind%:*}" rows)" . $?
    done
}
input_of() {  # KINDS NAME GOOD COMMAND...: the same as standard input
    list=$1 name=$2 good=$3
    shift 3
    for kind in $list; do
        case ${kind%:*} in missing | directory | pipe) continue ;; esac
        damage "${kind%:*}" "$good"
        timeout 60 "$imf" "$@" >/dev/null 2>out <rows
        judge "$name ${kind%:*}" "${kind#*:}" "$(place "${kind%:*}" 'standard input')" . $?
    done
}

model() { rm -rf model && cp -r "$data/decode/tiny" model; }
model
cp -r "$data/../../input/demo/reward" heads && rm -f heads/README.md
echo '{"prompt": "say 1"}' >prompts.jsonl
echo '{"question": "say 2", "answer": "#### 1"}' >held.jsonl
echo '{"instruction": "say 1", "input": "", "output": "1"}' >sft.jsonl
echo '{"prompt": "say 1", "chosen": "1", "rejected": "2"}' >pairs.jsonl
cat >recipe.yaml <<'END'
run_dir: run
prompts: [{path: prompts.jsonl, dataset: few}]
sources: [{name: tiny, path: model, n: 1, max_new_tokens: 4}]
target: {path: model}
reward: {path: heads}
sft: {data: sft.jsonl, global_batch: 2, max_length: 64, max_steps: 1}
dpo: {data: pairs.jsonl, global_batch: 2, max_length: 64, max_steps: 1}
eval: {models: target, max_new_tokens: 4, sets: [{path: held.jsonl}]}
reward_train: {base: model, data: [{path: pairs.jsonl}], gate_steps: 2, val_size: 0}
END

file_of "$kinds" prompts "$(cat prompts.jsonl)" select recipe.yaml --set 'prompts[0].path=rows'
file_of "$some" held-out '{"prompt": "say 3"}' select recipe.yaml --set 'eval.sets[0].path=rows'
file_of "$some" samples '{"prompt": "say 1", "answer": "1", "source": "me"}' verify recipe.yaml --set samples.path=rows
file_of "$some" sft.data "$(cat sft.jsonl)" sft recipe.yaml --set sft.data=rows
file_of "$some" dpo.data "$(cat pairs.jsonl)" dpo recipe.yaml --set dpo.data=rows
file_of "$some" reward_train.data "$(cat pairs.jsonl)" reward recipe.yaml --set 'reward_train.data[0].path=rows'
file_of "$some" eval.sets "$(cat held.jsonl)" eval recipe.yaml --set 'eval.sets[0].path=rows'
input_of "$kinds" tokens '{"text": "say 1"}' tokens model
input_of "$some" generate '{"prompt": "say 1"}' generate model --max-new-tokens 2
input_of "$some" logprobs '{"text": "say 1"}' logprobs model
input_of "$some" score '{"prompt": "say 1", "answer": "1"}' score --model heads
input_of "$some" judge-math '{"gold": "1", "answer": "1"}' judge math
input_of "$some" judge-checks '{"checks": [{"kind": "word_count", "min": 1}], "answer": "1"}' judge checks

# ---- a model's directory ---------------------------------------------------------------------------------------------------
# part OF FILE KIND CODE NAMES WORDS EDIT: EDIT (shell, in the copied directory) is what happens to a file; then the model is used.
part() {
    rm -rf m && cp -r "$1" m
    (cd m && eval "$6") || wrong "cannot do '$6'"
    case $1 in
    heads) echo '{"prompt": "say 1", "answer": "1"}' | timeout 60 "$imf" score --model m >/dev/null 2>out ;;
    *) echo '{"prompt": "say 1"}' | timeout 60 "$imf" generate m --max-new-tokens 2 >/dev/null 2>out ;;
    esac
    judge "$1: $2 ($6)" "$3" "$4" "$5" $?
}
half() { size=$(stat -c %s "$1"); truncate -s $((size / 2)) "$1"; }
utf16() { iconv -f UTF-8 -t UTF-16 "$1" >x && mv x "$1"; }
deep() { head -c 100000 /dev/zero | tr '\0' '[' >"$1"; }
big() { truncate -s 1000000000 "$1"; }
twice() { sed -i '0,/{/s/{/{"model_type": "llama", /' "$1"; }
header() { python3 -c 'import sys; b = open(sys.argv[1], "rb").read(); open(sys.argv[1], "wb").write(eval(sys.argv[2]))' model.safetensors "$1"; }
for of in model heads; do
    for file in config.json tokenizer.json model.safetensors; do
        part $of "$file" 66 "$file" . "rm $file"
        part $of "$file" 65 "$file" . "half $file"
        [ $of = heads ] && continue  # the readers are the same
        part $of "$file" 66 "$file" 'directory' "rm $file; mkdir $file"
        part $of "$file" 66 "$file" 'regular' "rm $file; mkfifo $file"
        part $of "$file" 65 "$file" . ": >$file"
        part $of "$file" 65 "$file" . "deep $file"
        part $of "$file" 65 "$file" . "big $file"
        [ $file = model.safetensors ] && continue
        part $of "$file" 65 "$file" . "utf16 $file"
        part $of "$file" 65 "$file" . "echo '[]' >$file"
        part $of "$file" 65 "$file" . "echo 3 >$file"
    done
done
part model twice 65 config.json duplicate 'twice config.json'
for key in hidden_size num_hidden_layers num_attention_heads vocab_size intermediate_size; do
    for value in '"64"' 1e300 null; do
        part model "$key" 65 "$key" . "sed -i 's/\"$key\": *[0-9]*/\"$key\": $value/' config.json"
    done
done
part model model_type 65 model_type 'llama or qwen2' 'sed -i "s/\"llama\"/\"mamba\"/" config.json'
for file in tokenizer_config.json generation_config.json; do
    part model "$file" 65 "$file" . "echo '{\"eos_token_id\": ' >$file"
    part model "$file" 65 "$file" . "printf '\\377\\376{' >$file"
    part model "$file" 65 "$file" . "echo '[1]' >$file"
    part model "$file" 66 "$file" . "rm -f $file; mkdir $file"
    part model "$file" 65 "$file" . "big $file"
done
for id in '"x"' 1.5 '[1, "x"]' true; do
    part model eos 65 generation_config.json eos_token_id "echo '{\"eos_token_id\": $id}' >generation_config.json"
done
part model header 65 model.safetensors . "header 'b\"\\xff\" * 8 + b[8:]'"
part model header 65 model.safetensors . "header 'b[:8] + b\"{}\" + b[10:]'"
part model header 65 model.safetensors 'hole|bytes|overlap' "header 'b + b\"x\" * 4'"
part model header 65 model.safetensors dtype "header 'b.replace(b\"F16\", b\"F1x\", 1)'"
part model header 65 model.safetensors . "header 'b.replace(b\"[0,\", b\"[9,\", 1)'"
index='model.safetensors.index.json'
part model index 65 $index weight_map "rm model.safetensors; echo '{}' >$index"
part model index 65 $index . "mv model.safetensors a.safetensors; echo '{\"weight_map\": {\"x\": \"a.safetensors\"}}' >$index"
part model index 65 $index . "mv model.safetensors a.safetensors; echo '{\"weight_map\": {\"x\": \"../a.safetensors\"}}' >$index"
part model index 66 a.safetensors . "rm model.safetensors; echo '{\"weight_map\": {\"x\": \"a.safetensors\"}}' >$index"
part model index 65 $index . "rm model.safetensors; echo '{\"weight_map\": 3' >$index"
for key in num_objectives gating_hidden_dim gating_n_hidden; do
    for value in 0 '"5"' 4096; do
        part heads "$key" 65 . . "sed -i 's/\"$key\": *[0-9]*/\"$key\": $value/' config.json"
    done
done

# ---- a run directory and its outputs ------------------------------------------------------------------------------------------
stage() {  # WHAT CODE NAMES WORDS RANKS COMMAND...
    what=$1 code=$2 names=$3 words=$4 ranks=$5
    shift 5
    if [ "$ranks" = 1 ]; then timeout 100 "$imf" "$@" --quiet >/dev/null 2>out </dev/null
    else timeout 100 mpirun -n "$ranks" "$imf" "$@" --quiet >/dev/null 2>out </dev/null
    fi
    judge "$what" "$code" "$names" "$words" $?
}
fresh() { rm -rf run && "$imf" select recipe.yaml --quiet >out 2>&1 || wrong 'select failed'; }
fresh
sed -i '1s/"version":1/"version":2/' run/prompts/data-*.jsonl
stage 'records of another version' 65 prompts 'version' 2 sample recipe.yaml
fresh
sed -i '1s/imf-prompts/imf-samples/' run/prompts/data-*.jsonl
stage 'records of another kind' 65 prompts 'format' 1 sample recipe.yaml
fresh
sed -i '2s/say/sax/' run/prompts/data-*.jsonl
stage 'a changed record' 65 prompts 'damaged|checksum' 2 sample recipe.yaml
fresh
rm run/prompts/data-*
stage 'lost records' 65 prompts 'damaged' 1 sample recipe.yaml
fresh
echo '{"count": "many"' >run/prompts/done
stage 'a torn done file' 66 prompts 'imf select' 1 sample recipe.yaml
fresh
stage 'another recipe' 78 prompts 'run_dir of its own' 2 select recipe.yaml --set seed=7
echo x >plain
stage 'run_dir is a file' 73 plain . 2 select recipe.yaml --set run_dir=plain
stage 'run_dir below a file' 73 plain . 1 select recipe.yaml --set run_dir=plain/x
stage 'run_dir in /proc' 73 /proc/x . 1 select recipe.yaml --set run_dir=/proc/x
echo '{"text": "say 1"}' | "$imf" tokens model >/dev/full 2>out
judge 'a full standard output' 74 'standard output' full $?

rm -rf run
"$imf" sft recipe.yaml --quiet >out 2>&1 || wrong 'sft failed'
stage 'an ended stage, another recipe' 78 run . 2 sft recipe.yaml --set sft.learning_rate=0.5

[ "$bad" = 0 ] || echo "$bad of $cases cases"
[ "$bad" = 0 ]
