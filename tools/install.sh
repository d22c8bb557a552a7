#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# install.sh install|uninstall BUILD ROOT: puts imf below ROOT (make's DESTDIR and prefix together), or takes it away again.
#   bin/imf  bin/imf-cuda (where make has built it)  share/man/man1/imf.1  share/bash-completion/completions/imf  share/doc/imf/  share/imf/{input,jobs}  share/imf/files
# share/imf/files lists what was written, relative to ROOT: the tree may be moved, and uninstall removes exactly these files and
# the directories that are empty then. Run from the source directory, which is only read.
set -u
what=$1 build=$2 root=$3
list=share/imf/files
fail() { echo "imf: $1" >&2; exit 73; }

# The job scripts of an installed tree take its own program.
own_program() { sed -i 's|^IMF=$IMF_HOME/build/imf  |IMF=$IMF_HOME/../../bin/imf|; s|$IMF_HOME/build/cuda/imf|$IMF_HOME/../../bin/imf-cuda|' "$1"; }

put() {  # MODE SOURCE TARGET
    mkdir -p "$root/$(dirname "$3")" && cp "$2" "$root/$3.new.$$" && chmod "$1" "$root/$3.new.$$" &&
        mv -f "$root/$3.new.$$" "$root/$3" || fail "cannot write $root/$3"
    echo "$3" >>"$root/$list"
}

install_files() {
    mkdir -p "$root/share/imf" && : >"$root/$list" ||
        fail "cannot write below $root; give another place: make install prefix=\$HOME/imf"
    put 755 "$build/imf" bin/imf
    [ ! -x "$build/cuda/imf" ] || put 755 "$build/cuda/imf" bin/imf-cuda  # beside it: bin/imf starts where no CUDA library is
    put 644 "$build/imf.1" share/man/man1/imf.1
    put 644 tools/imf.bash share/bash-completion/completions/imf
    for f in README.md INSTALL CHANGELOG.md CITATION.cff LICENSE docs/*.md docs/*.svg; do
        [ ! -f "$f" ] || put 644 "$f" "share/doc/imf/${f#docs/}"
    done
    find input jobs tools/imf.modulefile tools/reframe_imf.py -type f 2>/dev/null | sort >"$root/$list.source" || :
    while read -r f; do
        [ -x "$f" ] && mode=755 || mode=644
        put $mode "$f" "share/imf/${f#tools/}"
    done <"$root/$list.source"
    rm -f "$root/$list.source"
    [ ! -f "$root/share/imf/jobs/site.sh" ] || own_program "$root/share/imf/jobs/site.sh"
    echo "$list" >>"$root/$list"
    echo "imf: installed below $root; try: cd $root/share/imf && $root/bin/imf run input/demo.yaml --set run_dir=DIRECTORY"
}

uninstall_files() {
    [ -f "$root/$list" ] || fail "nothing is installed below $root ($list is not there)"
    cp "$root/$list" "${TMPDIR:-/tmp}/imf-files.$$" || fail "cannot write ${TMPDIR:-/tmp}"
    while read -r f; do
        rm -f "$root/$f" || fail "cannot remove $root/$f"
        d=$(dirname "$f")
        while [ "$d" != . ] && rmdir "$root/$d" 2>/dev/null; do d=$(dirname "$d"); done
    done <"${TMPDIR:-/tmp}/imf-files.$$"
    rm -f "${TMPDIR:-/tmp}/imf-files.$$"
}

case $what in
install) install_files ;;
uninstall) uninstall_files ;;
*) echo "usage: install.sh install|uninstall BUILD ROOT" >&2; exit 64 ;;
esac
