#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The report's page in headless Chromium, light, dark, on a phone of 360 pixels and printed: nothing on the console, no request but
# the page, every figure has a box, nothing is wider than the window, links lead somewhere, text has a contrast of 4.5 to 1.
# Screenshots: BUILD/report.
set -u
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null ||
    { echo "no chromium: make check-report installs it"; exit 77; }
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }
. tests/lib/report_runs.sh
for run in all moved old; do
    python3 tools/report/browse.py "$dir/$run/report.html" "$1/report/$run" >"$dir/figures" 2>"$dir/bad" ||
        fail "the page of $run: $(cat "$dir/bad")"
    [ "$run" != all ] || [ "$(wc -l <"$dir/figures")" -ge 18 ] || fail "figures that the browser shows: $(cat "$dir/figures")"
done
# A page that is wrong is seen to be wrong.
sed -e 's|</main>|<p style="width:600px;color:#ccc;background:#fff">wide</p><img src="http://127.0.0.1:9/x.png"><script>x()</script></main>|' \
    "$dir/all/report.html" >"$dir/wrong.html"
python3 tools/report/browse.py "$dir/wrong.html" "$dir/wrong" >/dev/null 2>"$dir/bad" && fail "a bad page passes"
for word in 'console: ' '600\|6[0-9][0-9] wide in a window of 360' 'contrast 1'; do
    grep -q "$word" "$dir/bad" || fail "a bad page is not seen to be bad ($word): $(cat "$dir/bad")"
done
exit 0
