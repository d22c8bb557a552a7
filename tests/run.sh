#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh BUILD [DIR]: runs every test of DIR (default tests): cmocka programs BUILD/tests/t* and scripts DIR/t*.sh, TEST_JOBS (1) at a time.
# A script that says "begins first" in its head does.
# A test is silent unless wrong. Exit 0 passed, 77 skipped (its last line says why), anything else failed.
# With MODELS set (the folder of real models) a skip counts as a failure: that is make check-real. Where it has left the models in
# BUILD/models, make check too compares 50 prompts with transformers (t80).
# The last line is the verdict: "N passed, N failed, N skipped".
set -u

# run.sh --one BUILD TEST: what is to be said of it; a word in the file $VERDICTS.
if [ "$1" = --one ]; then
    build=$2 test=$3
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    case $test in *.sh) set -- sh "$test" "$build" ;; *) set -- "$test" ;; esac
    began=$(date +%s)
    MODELS=${MODELS:-$build/models} timeout "${TEST_LIMIT:-600}" "$@" >"$log" 2>&1 </dev/null
    code=$?
    spent=$(($(date +%s) - began))
    [ "$code" = 77 ] && [ -n "${MODELS:-}" ] && code=1
    case $code in
    0) word=passed; [ "$spent" -lt 20 ] || echo "slow: $test took $spent s" ;;
    77) word=skipped; echo "SKIP $test: $(tail -n 1 "$log")" ;;
    *) word=failed; echo "FAIL $test (exit $code, $spent s)
$(tail -n 60 "$log")" ;;
    esac
    echo $word >>"$VERDICTS"
    exit 0
fi

build=$1 dir=${2:-tests}
programs=
[ "$dir" = tests ] && programs=$(ls "$build"/tests/t[0-9]* 2>/dev/null | grep -vE '\.(o|d)$')
real=
[ "$dir" = tests ] && [ -d "$build/models/smollm2" ] && real=tests/real/t80_logprobs.sh
VERDICTS=$(mktemp)
export VERDICTS
trap 'rm -f "$VERDICTS"' EXIT
count() { grep -c "^$1" "$VERDICTS"; }
first=$(grep -ls '^#.*begins first' "$dir"/t[0-9]*.sh)
each() {
    for test in $first $programs "$dir"/t[0-9]*.sh $real; do [ ! -e "$test" ] || echo "$test"; done | awk '!had[$0]++'
}
each | xargs -P "${TEST_JOBS:-1}" -n 1 sh "$0" --one "$build"
passed=$(count passed) skipped=$(count skipped)
failed=$(($(each | wc -l) - passed - skipped))  # one that left no word too
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
