#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Law 1 at a real model's sizes: samples of SmolLM2 are the same bytes with 1, 3 and 8 slots.
set -u
[ -n "${MODELS:-}" ] && [ -d "$MODELS/smollm2" ] || { echo "MODELS/smollm2 is not there; make check-real fetches it"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/rows" <<'END'
{"prompt": "Name three colours."}
{"prompt": "A farmer has 12 cows and buys 5 more every year. How many cows has he after four years, and why?"}
{"text": "Once upon a time"}
END
for slots in 1 3 8; do
    "$1/imf" generate "$MODELS/smollm2" --temperature 0.8 --top-p 0.95 --n 2 --max-new-tokens 40 --slots $slots \
        <"$dir/rows" >"$dir/$slots" || exit 1
    [ "$(wc -l <"$dir/$slots")" = 6 ] || { echo "6 answers expected"; cat "$dir/$slots"; exit 1; }
    cmp "$dir/1" "$dir/$slots" || { echo "$slots slots give other samples than 1"; exit 1; }
done
