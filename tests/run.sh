#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh BUILD [DIR]: runs every test of DIR (default tests): cmocka programs BUILD/tests/t* and scripts DIR/t*.sh.
# A test is silent unless wrong. Exit 0 passed, 77 skipped (its last line says why), anything else failed.
# With MODELS set (the folder of real models) a skip counts as a failure: that is make check-real. Where it has left the models in
# BUILD/models, make check too compares 50 prompts with transformers (t80).
# The last line is the verdict: "N passed, N failed, N skipped".
set -u
build=$1 dir=${2:-tests} passed=0 failed=0 skipped=0
programs=
[ "$dir" = tests ] && programs=$(ls "$build"/tests/t[0-9]* 2>/dev/null | grep -vE '\.(o|d)$')
real=
[ "$dir" = tests ] && [ -d "$build/models/smollm2" ] && real=tests/real/t80_logprobs.sh
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for test in $programs "$dir"/t[0-9]*.sh $real; do
    [ -e "$test" ] || continue
    case $test in *.sh) set -- sh "$test" "$build" ;; *) set -- "$test" ;; esac
    began=$(date +%s)
    MODELS=${MODELS:-$build/models} timeout "${TEST_LIMIT:-600}" "$@" >"$log" 2>&1 </dev/null
    code=$?
    spent=$(($(date +%s) - began))
    [ "$code" = 77 ] && [ -n "${MODELS:-}" ] && code=1
    case $code in
    0) passed=$((passed + 1)); [ "$spent" -lt 20 ] || echo "slow: $test took $spent s" ;;
    77) skipped=$((skipped + 1)); echo "SKIP $test: $(tail -n 1 "$log")" ;;
    *) failed=$((failed + 1)); echo "FAIL $test (exit $code, $spent s)"; tail -n 60 "$log" ;;
    esac
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
