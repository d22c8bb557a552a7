#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make cuda-coverage: is every line of every kernel, in every instance, executed by the tests on hostcuda? Lines that are not are printed, with exit 1.
# usage: cuda_coverage.sh BUILD TEST...   (programs of tests/hostcuda; arguments of a test behind a colon)
set -eu
build=$1
shift
dir=$build/coverage
rm -rf "$dir"
mkdir -p "$dir"
for t; do
    name=${t%%:*}
    g++ -std=c++17 -O0 -g -w -Wno-psabi --coverage -fprofile-update=atomic -fsanitize=thread,bounds -fsanitize-undefined-trap-on-error -fstack-reuse=none \
        -ffp-contract=off -Isrc -I. -Ikernels/hostcuda -x c++ -c "tests/hostcuda/$name.cu" -o "$dir/$name.o"
    g++ --coverage -o "$dir/$name" "$dir/$name.o" "$build"/kernels/hostcuda/*.o "$build/libimf.a" -lboost_context -lbacktrace
    case $t in *:*) "$dir/$name" "${t#*:}" ;; *) "$dir/$name" ;; esac
done
ln -s "$(pwd)/kernels" "$(pwd)/tests" "$dir"  # sources are named from the root
(cd "$dir" && gcov -r ./*.gcda >gcov.txt 2>&1)
seen=$(cd "$dir" && ls ./*.cuh.gcov | sed 's#.*/##; s/\.gcov$//' | sort)
for f in kernels/cuda/*.cuh; do
    name=$(basename "$f")
    case $name in ptx.cuh | wgmma.cuh) continue ;; esac
    echo "$seen" | grep -qx "$name" || { echo "$f: no test includes it"; exit 1; }
done
# A function that several tests compile, or an instance of a template, has a part of its own: its name, then its lines. Copies of one count together.
missing=$(for f in "$dir"/*.cuh.gcov; do
    awk -F: -v file="$(basename "$f" .gcov)" '
        /^-+$/ { name = ""; next }
        /^_Z[A-Za-z0-9_]*:$/ { name = $1; next }
        { count = $1; gsub(/[ *]/, "", count); at = name ":" ($2 + 0) }
        count == "#####" && !(at in line) { line[at] = $0 }
        count ~ /^[0-9]+$/ && count > 0 { executed[at] = 1 }
        END { for (at in line) if (!(at in executed)) print file ": " line[at] "   " at }' "$f"
done | sort)
[ -z "$missing" ] || { echo "$missing"; echo "these lines are not executed by any test"; exit 1; }
echo "every line of $(echo "$seen" | wc -l) files of kernels/cuda is executed"
