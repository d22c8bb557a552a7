#!/bin/sh
# spdx.sh check|add [DIRECTORY]: every source file that git knows says "SPDX-License-Identifier: Apache-2.0" in its first five lines, in
# a comment of its own language. check prints the files that do not, and ends with 1 when there are any. add puts the line into
# them: behind a #! line, else on top. Data, Markdown and files without comments (JSON, logs) are left alone.
set -u
line='SPDX-License-Identifier: Apache-2.0'
what=${1:-check}
cd "${2:-.}" || exit 66
case $what in check | add) ;; *) echo "usage: spdx.sh check|add [DIRECTORY]" >&2; exit 64 ;; esac

comment() {  # the start of a comment in the file's language; nothing: it is no source file
    case $1 in
    *.c | *.h | *.cc | *.hpp | *.cu | *.cuh) echo '//' ;;
    *.sh | *.bash | *.py | *.slurm | *.yaml | *.yml | *.modulefile | Makefile | */Makefile) echo '#' ;;
    *) case $(head -c 2 "$1" 2>/dev/null) in '#!') echo '#' ;; esac ;;
    esac
}

# Line of the file behind which the new one goes.
behind() {
    case $(head -n 1 "$1") in
    '#!'* | '#%'*) echo 1 ;;
    *) echo 0 ;;
    esac
}

add() {  # FILE COMMENT
    at=$(behind "$1")
    { head -n "$at" "$1"; echo "$2 $line"; tail -n +$((at + 1)) "$1"; } >"$1.spdx" && cat "$1.spdx" >"$1"
    code=$?
    rm -f "$1.spdx"
    [ $code = 0 ] || { echo "spdx: cannot write $1" >&2; exit 73; }
}

missing=0
list=$(git ls-files | grep -v '^tests/data/\|^input/demo/') || { echo "spdx: no files of git here" >&2; exit 66; }
for f in $list; do
    c=$(comment "$f")
    [ -n "$c" ] && [ -f "$f" ] || continue
    head -n 5 "$f" | grep -qF -- "$line" && continue
    if [ "$what" = add ]; then add "$f" "$c"; else echo "$f"; missing=1; fi
done
exit $missing
