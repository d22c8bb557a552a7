#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# HPC-8: tools/spdx.sh names files without a licence line, adds it on top or behind #!, once, and changes nothing else.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }
command -v git >/dev/null 2>&1 || { echo "git is missing"; exit 77; }
id='SPDX-License-Identifier: Apache-2.0'

cd "$dir" && git init -q . || exit 1
printf '// What it is.\n#ifndef X\n#endif\n' >a.h
printf '#include <x.h>\nint x;\n' >b.c
printf '#!/bin/sh\n# What it is.\nexit 0\n' >c.sh && chmod 755 c.sh
printf 'all:\n\ttrue\n' >Makefile
printf '{"a": 1}\n' >d.json
printf '# %s\nx = 1\n' "$id" >e.py
printf '#!/usr/bin/env python3\n"""What."""\n' >tool
git add .
script=$OLDPWD/tools/spdx.sh
sh "$script" check >out && fail "check finds nothing"
[ "$(tr '\n' ' ' <out)" = "Makefile a.h b.c c.sh tool " ] || fail "check names: $(cat out)"
sh "$script" add >out || fail "add: $(cat out)"
sh "$script" check >out || fail "check after add: $(cat out)"
cp a.h a.once && sh "$script" add && cmp -s a.h a.once || fail "a second add changes a.h"
[ "$(head -n 2 a.h)" = "// $id
// What it is." ] || fail "a.h: $(cat a.h)"
[ "$(head -n 1 b.c)" = "// $id" ] || fail "b.c: $(cat b.c)"
[ "$(sed -n 2p c.sh)" = "# $id" ] && [ -x c.sh ] && sh c.sh || fail "c.sh: $(cat c.sh)"
[ "$(sed -n 2p tool)" = "# $id" ] || fail "tool: $(cat tool)"
make -s -f Makefile all || fail "Makefile"
[ "$(cat d.json)" = '{"a": 1}' ] && [ "$(grep -c SPDX e.py)" = 1 ] || fail "files that were right have changed"
for f in a.h b.c c.sh Makefile tool; do
    git show ":$f" >"$dir/before" && grep -vF "$id" "$f" | cmp -s - "$dir/before" || fail "$f has lost or changed a line"
done
exit 0
