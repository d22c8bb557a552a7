#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tools/imf.bash: what bash would offer on a line, against what the program says of itself: commands, options of each command, keys of
# the recipe and their values behind "=", files. For an unknown command or a program that is not there it offers nothing.
set -u
build=$(cd "$1" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
command -v bash >/dev/null || { echo "bash is not here, and the completion is for bash"; exit 77; }
fail() { echo "$*"; exit 1; }
mkdir "$dir/run a" "$dir/model" && : >"$dir/one.yaml" && : >"$dir/two.yml" && : >"$dir/rows.jsonl"
cat >"$dir/offers" <<'END'
. "$1"
COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2))
_imf "$2"
[ ${#COMPREPLY[@]} = 0 ] || printf '%s\n' "${COMPREPLY[@]}"
END
completion=$(pwd)/tools/imf.bash
cd "$dir" || exit 1

offers() {  # EXPECTED WORDS...: the last word is the one that the cursor stands behind
    expected=$1
    shift
    got=$(bash "$dir/offers" "$completion" "$build/imf" "$@" 2>&1 | sort | tr '\n' ' ')
    [ "$got" = "$expected${expected:+ }" ] || fail "imf $*: offers '$got', wanted '$expected'"
}
options() { "$build/imf" help "$1" | grep -oE -- '--[a-z]+[a-z-]*' | cat - "$dir/help" | sort -u | tr '\n' ' ' | sed 's/ $//'; }
echo --help >"$dir/help"

offers 'sample score select selftest sft show status' s
offers 'doctor dpo' d
offers "$({ "$build/imf" --help | sed -n 's/^  \([a-z]*\)  .*/\1/p'; printf '%s\n' help --help --version; } | sort | tr '\n' ' ' |
    sed 's/ $//')" ''
offers 'recipe report reward' help re
for command in $("$build/imf" --help | sed -n 's/^  \([a-z]*\)  .*/\1/p'); do offers "$(options "$command")" "$command" --; done
offers --junit selftest --j
offers '--help --profile --quiet --set' sft --
offers --help status --
offers 'sft.learning_rate= sft.logging_steps= sft.lr_scheduler_type=' sft one.yaml --set sft.l
offers 'prompts[3].kind=' select one.yaml --set 'prompts[3].k'
offers 'sources[0].n= sources[0].name=' sample one.yaml --quiet --set 'sources[0].n'
[ "$(bash "$dir/offers" "$completion" "$build/imf" run one.yaml --set '' | wc -l)" = "$("$build/imf" help recipe | grep -c '^  [a-z]')" ] ||
    fail "behind --set not every key of the recipe is offered"
offers 'load random' sft one.yaml --set target.init =
offers random sft one.yaml --set target.init = r
offers 'false true' sft one.yaml --set exact = ''
offers 'code' select one.yaml --set 'prompts[1].kind' = c
offers model sft one.yaml --set target.path = mo
offers --quiet sft one.yaml --set exact = true --q
offers 'bfloat16 float32' tokens model --dtype ''
offers 'model one.yaml run a two.yml' run ''
offers one.yaml sft o
offers 'model run a' status ''
offers model selftest --dir mo
offers rows.jsonl selftest --junit ro
offers '' plan one.yaml --ranks ''
offers 'checks code fuseeval math' judge ''
offers '' smaple ''
offers '' smaple --
build=$dir/nowhere
offers '' s

bash -c '. "$1"; complete -p imf' sh "$completion" >"$dir/out" 2>&1 && grep -q -- '-F _imf imf' "$dir/out" || fail "$(cat "$dir/out")"
if command -v shellcheck >/dev/null; then shellcheck "$completion" >"$dir/out" || fail "$(cat "$dir/out")"; fi
exit 0
