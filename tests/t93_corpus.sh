#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every input of tests/fuzz/corpus (seeds, and what fuzzing found) goes through its target once: no crash, no broken promise, and no
# target without inputs. The build's sanitizers see it too: make check SANITIZE=address,undefined. PRS-6.
set -u
build=$1 bad=0
for source in tests/fuzz/*.c; do
    target=$(basename "$source" .c)
    [ "$target" = replay ] && continue
    set -- "tests/fuzz/corpus/$target"/*
    [ -e "$1" ] || { echo "tests/fuzz/corpus/$target has no input"; bad=1; continue; }
    out=$(OMP_NUM_THREADS=1 "$build/tests/fuzz/$target" "$@" 2>&1) || { echo "fuzz target $target: $out" | grep -v '^warning: '; bad=1; }
done
exit $bad
