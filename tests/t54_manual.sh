#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# HPC-6: the manual page names every command of imf --help, every key of the recipe's schema, every variable that the source
# asks for and every exit code of base/err.h, and mandoc's lint has nothing to say; docs/recipe.md is what the program prints.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }
has() { grep -qxF -- "$1" "$dir/imf.1" || fail "the manual page lacks '$1'"; }

"$imf" help --man >"$dir/imf.1" || fail "imf help --man"
"$imf" --help >"$dir/help" || fail "imf --help"
commands=$(sed -n 's/^  \([a-z]*\)  .*/\1/p' "$dir/help" | grep -vx 'imf\|mpirun')
[ "$(echo "$commands" | wc -l)" -ge 17 ] || fail "imf --help lists: $commands"
for c in $commands; do has ".Ss $c"; done
# Keys from the table's source; those that sft and dpo share stand there once, as s ".name".
sed -n 's/.*\(STR\|I64\|F64\|BOOL\|ONE_OF\|LAYOUT\)("\([a-z_.[]*[]a-z_.0-9]*\)".*/\2/p' src/base/deck_schema.c |
    grep -v '^sft$\|^dpo$' >"$dir/keys"
sed -n 's/.*(s "\(\.[a-z_0-9]*\)".*/\1/p' src/base/deck_schema.c | sed 'h; s/^/sft/p; g; s/^/dpo/' >>"$dir/keys"
[ "$(sort -u "$dir/keys" | wc -l)" = "$("$imf" help recipe | grep -c "^  [a-z]")" ] ||
    fail "the schema's source and imf help recipe have different numbers of keys: $(sort -u "$dir/keys" | wc -l)"
while read -r key; do
    has ".It Cm $key"
    grep -qF "| \`$key\` |" docs/recipe.md || fail "docs/recipe.md lacks $key; make docs writes it anew"
done <"$dir/keys"
for v in $(grep -rhoE 'getenv\("(IMF|SLURM)_[A-Z_]+"' src kernels | cut -d'"' -f2 | sort -u); do has ".It Ev $v"; done
for code in $(sed -n 's/^ *ERR_[A-Z]* = \([0-9]*\).*/\1/p' src/base/err.h); do has ".It $code"; done

"$imf" help --markdown >"$dir/recipe.md" || fail "imf help --markdown"
cmp -s "$dir/recipe.md" docs/recipe.md || fail "docs/recipe.md is not what imf prints; make docs writes it anew"
# README.md's table names tests that are there.
sed -n '/^## What works/,/^## Reading/p' README.md |
    grep -oE '`(tests/(real|hostcuda)/)?t[0-9][a-z0-9_]*(\.sh)?`' | tr -d '`' >"$dir/tests"
[ "$(wc -l <"$dir/tests")" -ge 20 ] || fail "README.md has no table of tests"
while read -r t; do
    [ -e "$t" ] || [ -e "tests/$t" ] || [ -e "tests/$t.c" ] || [ -e "tests/real/$t" ] || fail "README.md names $t: not there"
done <"$dir/tests"

command -v mandoc >/dev/null 2>&1 || { echo "mandoc is missing (Debian: mandoc): the page was not linted"; exit 77; }
mandoc -T lint "$dir/imf.1" >"$dir/lint" 2>&1
[ ! -s "$dir/lint" ] || fail "mandoc -T lint: $(cat "$dir/lint")"
exit 0
