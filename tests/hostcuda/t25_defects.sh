#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# hostcuda finds every planted defect, in every order and for every seed, names its kind, kernel and marked line, and refuses
# none of the same kernels without it.
set -u
. tests/hostcuda/lib.sh

# found PROGRAM: all its defects are.
found() {
    program=$1 source=tests/hostcuda/${1##*/}.cu
    "$program" >"$dir/list" || fail "no list of defects"
    [ "$(wc -l <"$dir/list")" -ge 26 ] || fail "only $(wc -l <"$dir/list") defects"
    while IFS=: read -r name kind; do
        timeout 60 "$program" "$name" >"$dir/out" 2>&1 || fail "$name: exit $?: $(sort -u "$dir/out" | head -n 3)"
        [ "$(wc -l <"$dir/out")" = 12 ] || fail "$name: not twelve reports: $(cat "$dir/out")"
        if line=$(grep -n "// DEFECT $name\$" "$source"); then
            ! grep -v "^$name: .*$source:${line%%:*} ($name)" "$dir/out" || fail "$name: a report without $source:${line%%:*}"
        fi
        [ -z "$kind" ] || ! grep -vE "^[a-z_]*: ($kind): " "$dir/out" || fail "$name: another kind than $kind"
    done <"$dir/list"
}
found "$1/tests/hostcuda/defects"
found "$1/tests/hostcuda/defects_sm90"
exit 0
