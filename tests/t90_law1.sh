#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# R-GEO1, law 1: four layouts, then eight combinations with kills and restarts: one digest (`make check-law1`: 36 and 200). The
# combinations are those of the day; a failure names the one that shows it.
set -u
keep=$(mktemp)
trap 'rm -f "$keep"' EXIT
LAW1_KEEP=$keep sh tests/lib/law1.sh "$1" 1:1:0 2:2:7 3:4:0:2 4:1:9 || exit 1
first=$(($(date +%s) / 86400 * 8))
CHAOS_REFERENCE=$keep sh tests/lib/chaos.sh "$1" $(seq $first $((first + 7)))
