#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check_rules.sh: the house rules that a machine can see. Prints each breach; exit 1 when there is one.
#   1. layers: a file includes its own layer or a lower one; stages never include stages
#   2. confined calls: MPI_ and nccl in src/par (kernels/hostcuda/mpi stands for NCCL itself); malloc in src/base/mem.c; exit in src/main.c; rand nowhere
#   3. every header names its shapes or owners in a comment at its top
set -u
bad=0
breach() { echo "rules: $1"; bad=1; }

layer() {  # the number of a path's layer; higher may include lower
    case $1 in
    base/*) echo 0 ;;
    par/* | kernels/*) echo 1 ;;
    text/* | model/*) echo 2 ;;
    train/* | decode/* | judge/*) echo 3 ;;
    stage/*) echo 4 ;;
    *) echo 5 ;;
    esac
}

for file in $(find src kernels -name '*.[ch]' | sort); do
    path=${file#src/}
    own=$(layer "$path")
    for used in $(sed -n 's/^#include "\([^"]*\)".*/\1/p' "$file"); do
        [ "$own" -ge "$(layer "$used")" ] || breach "$file includes $used, a higher layer"
    done
done

# confined PATTERN WHY FILE-PATTERN: code (comments and strings removed) that matches outside the allowed files
code() { sed -e 's://.*$::' -e 's/"[^"]*"/""/g' "$1"; }
confined() {
    for file in $(find src kernels -name '*.[ch]' | grep -vE "$3" | sort); do
        code "$file" | grep -nE "$1" | while read -r line; do echo "rules: $file:$line ($2)"; done
    done
}
found=$(
    confined '\bMPI_[A-Z][A-Za-z_]*\b' 'MPI_ belongs to src/par' '^src/par/'
    confined '\bnccl[A-Z]' 'nccl belongs to src/par' '^src/par/|^kernels/hostcuda/mpi/'
    confined '(^|[^_A-Za-z.>])(malloc|calloc|realloc|free) *\(' 'memory comes from base/mem.h' '^src/base/mem\.c'
    confined '(^|[^_A-Za-z])exit *\(' 'only main ends the process' '^src/main\.c|^src/par/par\.c|^src/judge/'
    confined '(^|[^_A-Za-z])(rand|srand|drand48|random) *\(' 'random numbers come from base/rng.h' '^$'
)
[ -z "$found" ] || { echo "$found"; bad=1; }

for file in $(find src kernels -name '*.h' | sort); do
    grep -v '^// SPDX' "$file" | head -n 1 | grep -q '^//' || breach "$file does not begin with a comment that says what it is"
done
exit $bad
