#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Help (item 11): imf --help names every command, imf help COMMAND and imf COMMAND --help say the same, from the table that runs the
# commands and the one that checks the recipe; lines fit a terminal; small commands explain their flags and rows. What a command
# does not understand is refused, and an output that cannot be written is an error.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }
says() { grep -qF -- "$2" "$dir/$1" || fail "imf help $1 does not say '$2'"; }

"$imf" --help >"$dir/all" || fail "imf --help"
commands=$(sed -n 's/^  \([a-z]*\)  .*/\1/p' "$dir/all" | grep -vx 'imf\|mpirun')
[ "$(echo "$commands" | wc -l)" = 23 ] || fail "imf --help lists: $commands"
for command in $commands recipe; do
    "$imf" help "$command" >"$dir/$command" || fail "imf help $command"
    [ "$command" = recipe ] || "$imf" "$command" --help >"$dir/other" 2>&1 || fail "imf $command --help"
    [ "$command" = recipe ] || cmp -s "$dir/$command" "$dir/other" || fail "imf help $command and imf $command --help differ"
done
cat "$dir"/* | awk 'length > 120 { print; bad = 1 } END { exit bad }' >"$dir/wide" || fail "lines are too wide: $(cat "$dir/wide")"
awk 'length > 100 { print; bad = 1 } END { exit bad }' "$dir/recipe" >"$dir/wide" || fail "lines are too wide: $(cat "$dir/wide")"

says tokens --skip-special && says tokens '{"ids": [...]}'
says logprobs --top && says logprobs --template && says logprobs '"logprobs": [null'
says generate --greedy && says generate --repetition-penalty && says generate '"finish"'
says score '--model DIR' && says score --max-length && says score '"unscored"' && says score reward.max_length
says sft 'also: --set a.b=c, --quiet, --profile' && says run 'also: --set a.b=c, --quiet, --profile'
says tokens 'also: --dtype float32|bfloat16, --quiet' && says score 'also: --set a.b=c, --dtype float32|bfloat16, --quiet'
! grep -q '^also:' "$dir/status" || fail "imf status takes no common options, and its help names some"
says judge '{gold, answer}' && says judge '{program, tests: [...]}' && says judge extracted
for key in sft.learning_rate sft.max_length sft.eval_steps target.path; do says sft "$key" && says recipe "$key"; done
says dpo dpo.loss_type && says dpo 'sigmoid|sigmoid_norm'
[ "$(grep -c '^  [a-z]' "$dir/recipe")" -gt 120 ] || fail "imf help recipe lists too few keys"

refused() {  # CODE WORDS COMMAND...
    code=$1 words=$2
    shift 2
    "$imf" "$@" >"$dir/out" 2>&1 </dev/null
    got=$?
    [ "$got" = "$code" ] && grep -qF -- "$words" "$dir/out" || fail "imf $*: $got, wanted $code with '$words': $(cat "$dir/out")"
}
printf 'run_dir: %s/made\n' "$dir" >"$dir/r.yaml"
refused 64 "no command is called 'smaple'" help smaple
refused 64 "does not understand '--max-steps'" sft "$dir/r.yaml" --max-steps 3
refused 64 "does not understand 'again'" select "$dir/r.yaml" again
refused 64 "'--bottom'" logprobs "$dir" --bottom
refused 64 "no judge 'maths'" judge maths
[ ! -e "$dir/made" ] || fail "a refused command made a run directory"
echo '{"gold":"1","answer":"1"}' | "$imf" judge fuseeval >/dev/full 2>"$dir/out"
[ $? = 74 ] || fail "a full standard output is no error: $(cat "$dir/out")"
exit 0
