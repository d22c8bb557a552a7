#!/bin/sh
# run.sh BUILD: runs every test program (cmocka) and script under tests/; a test is silent unless wrong.
# Exit 0 passed, 77 skipped (with a reason on its last line), anything else failed. Scripts: t*.sh, called with BUILD.
# The last line is the verdict: "N passed, N failed, N skipped".
set -u
build=$1 passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for test in "$build"/tests/t[0-9]* tests/t[0-9]*.sh; do
    case $test in *.o | *.d) continue ;; esac
    [ -e "$test" ] || continue
    case $test in *.sh) set -- sh "$test" "$build" ;; *) set -- "$test" ;; esac
    timeout 600 "$@" >"$log" 2>&1
    case $? in
    0) passed=$((passed + 1)) ;;
    77) skipped=$((skipped + 1)); echo "SKIP $test: $(tail -n 1 "$log")" ;;
    *) failed=$((failed + 1)); echo "FAIL $test"; tail -n 60 "$log" ;;
    esac
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
