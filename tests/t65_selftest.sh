#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf selftest (R-GEO1, law 1 on the user's machine): on one rank and on two all digests agree, and are the same in both; it
# finds its data beside an installed program and by --data; nothing is left behind. Without data: 66.
set -u
imf=$(cd "$1" && pwd)/imf
here=$(pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/lib/mpi.sh
fail() { echo "$*"; exit 1; }
mkdir "$dir/tmp"
export TMPDIR="$dir/tmp"

passes() {  # NAME COMMAND...: the verdict, 16 lines with a digest, nothing left
    name=$1
    shift
    "$@" >"$dir/$name" 2>"$dir/err" || fail "$*: exit $?: $(cat "$dir/$name" "$dir/err")"
    [ "$(tail -n 1 "$dir/$name")" = "selftest: 8 stages, all digests agree" ] || fail "$*: no verdict: $(cat "$dir/$name")"
    [ "$(grep -c '^\(first\|second\) *[a-z]*  *[0-9a-f]\{32\} *[0-9.]* s$' "$dir/$name")" = 16 ] ||
        fail "$*: $(cat "$dir/$name")"
    [ -z "$(ls "$TMPDIR" | grep imf-selftest)" ] || fail "$*: left something in TMPDIR"
}
digests() { awk '/^first  / { print $2, $3 }' "$dir/$1"; }

# An installed program: bin/imf and share/imf/input, started from elsewhere.
mkdir -p "$dir/usr/bin" "$dir/usr/share/imf/input" "$dir/bare/bin"
cp "$imf" "$dir/usr/bin" && cp "$imf" "$dir/bare/bin" && cp -r "$here/input/demo" "$dir/usr/share/imf/input/demo"
cd "$dir" || exit 1
passes two mpirun -n 2 "$dir/usr/bin/imf" selftest
passes one "$dir/bare/bin/imf" selftest --data "$here/input" --dir "$dir/tmp"
digests one >"$dir/a" && digests two | cmp -s - "$dir/a" ||
    fail "one rank and two give other digests: $(diff "$dir/one" "$dir/two")"
[ "$(wc -l <"$dir/a")" = 8 ] && [ "$(cut -d' ' -f2 "$dir/a" | sort -u | wc -l)" = 8 ] ||
    fail "these are no eight digests: $(cat "$dir/a")"

refused() {  # CODE WORDS COMMAND...
    code=$1 words=$2
    shift 2
    "$@" >"$dir/out" 2>&1
    got=$?
    [ $got = "$code" ] && grep -q -- "$words" "$dir/out" || fail "$*: exit $got, wanted $code with '$words': $(cat "$dir/out")"
}
refused 66 'imf selftest --data DIR' "$dir/bare/bin/imf" selftest
refused 66 'holds no demo/' "$dir/bare/bin/imf" selftest --data "$dir/bare"
refused 73 'imf selftest --dir DIR' "$dir/usr/bin/imf" selftest --dir "$dir/nowhere"
refused 64 "'--fast'" "$dir/usr/bin/imf" selftest --fast
rm "$dir/usr/share/imf/input/demo/clerk/model.safetensors"
refused 66 'clerk' "$dir/usr/bin/imf" selftest
[ -z "$(ls "$TMPDIR" | grep imf-selftest)" ] || fail "a failed selftest left something in TMPDIR"
exit 0
