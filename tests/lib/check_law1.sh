#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check_law1.sh BUILD SEEDS [SEED]: the long form of t90 (make check-law1). 36 layouts, then SEEDS combinations of kills and
# restarts from those of the day on, with their kills by stage and window: of 200 combinations at least 5 in each. SEED: that
# one alone.
set -u
build=$1 seeds=$2 seed=${3:-}
[ -z "$seed" ] || exec sh tests/lib/chaos.sh -s "$build" "$seed"
keep=$(mktemp)
trap 'rm -f "$keep"' EXIT
layouts=
for ranks in 1 2 3 4; do for micro in 1 2 4; do for order in 0 7 9; do layouts="$layouts $ranks:$micro:$order"; done; done; done
LAW1_KEEP=$keep sh tests/lib/law1.sh "$build" $layouts || exit 1
first=$(($(date +%s) / 86400 * 200)) last=$(($(date +%s) / 86400 * 200 + seeds - 1))
echo "seeds $first to $last (make check-law1 SEED=$first repeats the first)"
[ "$seeds" -lt 200 ] || export CHAOS_LEAST=5
CHAOS_REFERENCE=$keep sh tests/lib/chaos.sh -s "$build" $(seq "$first" "$last")
