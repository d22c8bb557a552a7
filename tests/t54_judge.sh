#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf judge (item 12): one row in, one row out, in order, ids kept; malformed rows are named with their line and end in 65.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; cat "$dir/out"; exit 1; }
judge() { printf '%s\n' "$2" | "$imf" judge "$1" >"$dir/out" 2>&1; }
want() { judge "$1" "$2" && [ "$(cat "$dir/out")" = "$3" ] || fail "judge $1 $2: not $3"; }
refuse() { judge "$1" "$2"; [ $? = "$3" ] && grep -q "$4" "$dir/out" || fail "judge $1 $2: no $3 with $4"; }

want math '{"id":7,"gold":"1/2","answer":"so \\boxed{0.5}"}' '{"id":7,"verdict":"right","extracted":"0.5","reason":"equal"}'
want math '{"gold":18,"answer":"She has 17."}' '{"verdict":"wrong","extracted":"17","reason":"different"}'
want math '{"gold":"1/3","answer":"\\boxed{0.333}"}' '{"verdict":"undecided","extracted":"0.333","reason":"a rounded decimal"}'
want fuseeval '{"gold":"50","answer":"\\boxed{0.5}"}' '{"verdict":"right","extracted":"0.5","reason":"equal"}'
want checks '{"checks":[{"kind":"starts_with","text":"A"},{"kind":"case","value":"upper"}],"answer":"Ab"}' \
    '{"verdict":"wrong","grade":0.5,"reason":"met 1 of 2; not met: case"}'
refuse math '{"gold":"1"}' 65 'standard input:1'
refuse math '{"gold":"","answer":"1"}' 65 'gold'
refuse math '{"gold":' 65 'standard input:1'
refuse checks '{"checks":[{"kind":"start_with"}],"answer":"a"}' 65 'starts_with'
refuse code '{"program":"x"}' 65 'tests'
refuse maths '{}' 64 'maths'
judge code '{"program":"def f(x):\n    return x","tests":["assert f(1) == 1"]}' || { tail -n 1 "$dir/out"; exit 77; }
grep -q '"verdict":"right".*"trust":"strong"' "$dir/out" || fail "judge code"
judge code '{"answer":"```python\ny = 3\n```","tests":["assert y == 4"]}'
grep -q '"verdict":"wrong".*"trust":"weak"' "$dir/out" || fail "judge code, weak"
exit 0
