#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf selftest (R-GEO1, law 1 on the user's machine): on one rank and on two all digests agree, and are the same in both; it
# finds its data beside an installed program and by --data; nothing is left behind. Without data: 66. --junit: what it prints as
# XML, whole after every end. The run on two ranks is the line of jobs/gitlab-ci.yml; tools/reframe_imf.py reads its output.
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
    [ -z "$(find "$TMPDIR" -name 'imf-selftest*')" ] || fail "$*: left something in TMPDIR"
}
digests() { awk '/^first  / { print $2, $3 }' "$dir/$1"; }

# An installed program: bin/imf and share/imf/input, started from elsewhere.
mkdir -p "$dir/usr/bin" "$dir/usr/share/imf/input" "$dir/bare/bin"
cp "$imf" "$dir/usr/bin" && cp "$imf" "$dir/bare/bin" && cp -r "$here/input/demo" "$dir/usr/share/imf/input/demo"
cd "$dir" || exit 1
check() { python3 "$here/tests/lib/selftest_files.py" "$@" >"$dir/why" 2>&1 || fail "$*: $(cat "$dir/why")"; }
check gitlab "$here/jobs/gitlab-ci.yml" selftest "$dir/ci"
passes two sh -c "$(sed "s|build/imf|'$dir/usr/bin/imf'|" "$dir/ci")"
passes one "$dir/bare/bin/imf" selftest --data "$here/input" --dir "$dir/tmp" --junit one.xml
check junit selftest.xml 16 0 0 two
check junit one.xml 16 0 0 one
python3 -X pycache_prefix="$dir/pycache" -m py_compile "$here/tools/reframe_imf.py" 2>"$dir/err" || fail "$(cat "$dir/err")"
check reframe "$here/tools/reframe_imf.py" two
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
refused 64 "'--junit'" "$dir/usr/bin/imf" selftest --junit

# A report that cannot be written: before any work.
for place in "$dir/nowhere/j.xml" "$dir/tmp" /dev/null ''; do
    refused 73 'say where to: imf selftest --junit FILE' "$dir/usr/bin/imf" selftest --junit "$place"
    ! grep -q '^first' "$dir/out" || fail "--junit '$place': it began to work: $(cat "$dir/out")"
done
refused 73 'say where to: imf selftest --junit FILE' mpirun -n 2 "$dir/usr/bin/imf" selftest --junit "$dir/nowhere/j.xml"
[ -c /dev/null ] || fail "/dev/null is no device any more"

# Killed: the report says so, or is the one before.
killed() {  # POINT
    IMF_FAULT=$1 "$dir/usr/bin/imf" selftest --junit j.xml >"$dir/out" 2>&1
    [ $? = 137 ] || fail "IMF_FAULT=$1: no kill: $(cat "$dir/out")"
    rm -rf "$TMPDIR"/imf-selftest-*
}
echo before >j.xml
killed file-rename:1
[ "$(cat j.xml)" = before ] || fail "a report that is not whole has the report's name"
killed item-finished:1
check junit j.xml 16 1 15 /dev/null 'has not ended'

# Another model than in the first layout: what differs is a failure. Failed stages and strange characters are, too.
mkdir other
cp "$here/input/demo/novice/model.safetensors" other
dd if=/dev/zero of=other/model.safetensors bs=1000 seek=900 count=20 conv=notrunc 2>"$dir/err" || fail "$(cat "$dir/err")"
"$dir/usr/bin/imf" selftest --junit j.xml >"$dir/different" 2>"$dir/err" &
until grep -q '^first *sft' "$dir/different"; do kill -0 $! 2>/dev/null || break; sleep 0.05; done
mv other/model.safetensors "$dir/usr/share/imf/input/demo/novice"
wait $!
[ $? = 70 ] && grep -q '^second sft .*DIFFERENT$' "$dir/different" || fail "not told apart: $(cat "$dir/different" "$dir/err")"
check junit j.xml 16 "$(grep -c 'DIFFERENT$' "$dir/different")" 0 "$dir/different" 'another digest in the second layout'
strange=$(printf 'a&b<c>"\001\377\357\277\276')
mkdir "$strange"
refused 66 'holds no demo/' "$dir/usr/bin/imf" selftest --data "$strange" --junit j.xml
check junit j.xml 16 1 15 /dev/null 'a&b<c>"?\ufffd\ufffd holds no demo/'
rm "$dir/usr/share/imf/input/demo/clerk/model.safetensors"
refused 66 'clerk' mpirun -n 2 "$dir/usr/bin/imf" selftest --junit j.xml
check junit j.xml 16 1 14 "$dir/out" 'clerk'
[ -z "$(find "$TMPDIR" -name 'imf-selftest*')" ] || fail "a failed selftest left something in TMPDIR"
exit 0
