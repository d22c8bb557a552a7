#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# setup.sh PACKAGE...: installs what is missing; without the right to, prints the one line that would and exits 69.
set -u
missing=
for p in "$@"; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ]; then as=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then as='sudo -n'
else
    echo "imf: these packages are missing; ask your administrator, or run as root:" >&2
    echo "apt-get install -y$missing" >&2
    exit 69
fi
echo "imf: installing$missing" >&2
$as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 ||
    { $as apt-get update -qq >/dev/null 2>&1
      $as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null; } ||
    { echo "imf: apt-get install failed for:$missing" >&2; exit 69; }
