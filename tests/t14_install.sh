#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# HPC-1: make install honours DESTDIR and prefix, writes the program, the manual page, the documents and the recipes; the
# tree may be moved and its demo recipe is understood from there; other people's files stay; make uninstall leaves none of ours.
set -u
build=$1  # as make was told: another spelling would write other names into the dependency files
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
unset MAKEFLAGS MAKELEVEL
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fail() { echo "$*"; cat "$dir/log"; exit 1; }
have() { [ -s "$1" ] || fail "$1 is not there"; }

mkdir -p "$dir/x/opt/y/bin" && echo other >"$dir/x/opt/y/bin/other"
make -s install BUILD="$build" DESTDIR="$dir/x" prefix=/opt/y >"$dir/log" 2>&1 || fail "make install"
root=$dir/x/opt/y
for f in bin/imf share/man/man1/imf.1 share/bash-completion/completions/imf share/doc/imf/README.md share/doc/imf/recipe.md \
    share/imf/jobs/gitlab-ci.yml share/imf/reframe_imf.py share/imf/input/demo.yaml share/imf/input/demo/novice/config.json; do have "$root/$f"; done
[ ! -x "$build/cuda/imf" ] || have "$root/bin/imf-cuda"
[ -x "$root/bin/imf" ] || fail "bin/imf cannot be run"
[ -z "$(find "$dir/x" -type f ! -path "$root/*")" ] || fail "files outside the prefix"
grep -rq "$dir" "$root/share/imf/files" && fail "the list of files names the place"
make -s install BUILD="$build" DESTDIR="$dir/x" prefix=/opt/y >"$dir/log" 2>&1 || fail "make install, a second time"

mv "$root" "$dir/moved"
(cd "$dir/moved/share/imf" && ../../bin/imf select input/demo.yaml --quiet --set run_dir="$dir/run") >"$dir/log" 2>&1 ||
    fail "the moved tree's demo recipe"
have "$dir/run/prompts/done"
[ -x "$dir/moved/share/imf/jobs/submit.sh" ] || [ ! -x jobs/submit.sh ] || fail "jobs/submit.sh cannot be run"
program=$(IMF_HOME=$dir/moved/share/imf && . "$dir/moved/share/imf/jobs/site.sh" && echo "$IMF")
[ -x "$program" ] || fail "jobs/site.sh names $program"
make -s uninstall BUILD="$build" DESTDIR= prefix="$dir/moved" >"$dir/log" 2>&1 || fail "make uninstall"
[ "$(cd "$dir/moved" && find . ! -name .)" = "./bin
./bin/other" ] || fail "make uninstall leaves $(cd "$dir/moved" && find . -type f | head -n 5)"
make -s uninstall BUILD="$build" prefix="$dir/moved" >"$dir/log" 2>&1 && fail "nothing to remove, but no error"
grep -q 'nothing is installed below' "$dir/log" || fail "make uninstall without an installation"
echo file >"$dir/file"
make -s install BUILD="$build" prefix="$dir/file/below" >"$dir/log" 2>&1 && fail "a prefix that cannot be made"
grep -q 'cannot write below .*make install prefix=' "$dir/log" || fail "a prefix that cannot be made"
exit 0
