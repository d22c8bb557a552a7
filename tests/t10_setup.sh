#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Set-up: without the right to install, `make demo` and `make check` print the one apt line that is missing and stop with 69 (make
# itself then ends with 2); nothing missing, nothing said; plain `make` never installs anything.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
unset MAKEFLAGS MAKELEVEL
fail() { echo "$*"; cat "$dir/out"; exit 1; }
stub() { printf '#!/bin/sh\n%s\n' "$2" >"$dir/bin/$1"; chmod +x "$dir/bin/$1"; }

mkdir "$dir/bin"
stub dpkg-query 'for last; do :; done; case $last in missing-*) exit 1 ;; *) echo "install ok installed" ;; esac'
stub id 'echo 1000'
stub sudo 'exit 1'
stub apt-get 'echo "apt-get was run: $*"'
PATH=$dir/bin:$PATH
line='apt-get install -y missing-one missing-two'

sh tools/setup.sh there-one there-two >"$dir/out" 2>&1 || fail "nothing is missing, but exit $?"
[ ! -s "$dir/out" ] || fail "nothing is missing, but something is said"
sh tools/setup.sh missing-one there missing-two >"$dir/out" 2>&1
[ $? = 69 ] && [ "$(tail -n 1 "$dir/out")" = "$line" ] || fail "no exit 69 with '$line'"
for target in demo check check-real check-law1 demo-models; do
    make $target NEED='missing-one missing-two' BUILD="$dir/build" >"$dir/out" 2>&1
    [ $? = 2 ] && grep -q '] Error 69$' "$dir/out" && grep -qx "$line" "$dir/out" || fail "make $target"
    [ ! -e "$dir/build" ] || fail "make $target goes on without its packages"
done
stub sudo 'shift; [ "$1" = true ] || "$@"'  # sudo -n true; sudo -n env ... apt-get ...
sh tools/setup.sh missing-one 2>"$dir/out" || fail "with sudo: exit $?"
grep -q 'installing missing-one' "$dir/out" || fail "with sudo nothing is said"
make -n all BUILD="$dir/build" >"$dir/out" 2>&1 || fail "make -n all"
grep -q 'CC\|-c -o' "$dir/out" || fail "make -n all builds nothing"
! grep -q 'setup.sh\|apt-get' "$dir/out" || fail "plain make installs"
exit 0
