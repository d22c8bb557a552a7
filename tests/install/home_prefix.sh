#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make check-install (HPC-1, HPC-3): an ordinary user without jansson and libyaml from Debian builds both from source into a
# prefix of his own, configures, builds and installs imf out of a source tree that he cannot write, and runs it; ldd names the
# prefix, not Debian. Debian's headers and pc files of the two are hidden by bind mounts in a mount namespace of the test's own.
# Sources are Debian's (apt-get source, into a temporary directory). Needs root, unshare, setpriv and a Debian mirror; else 77.
set -u
user=54321
skip() { echo "$1"; exit 77; }
fail() { echo "$*"; tail -n 30 "$dir/log"; exit 1; }

if [ "${1:-}" != inside ]; then
    [ "$(id -u)" = 0 ] || skip "not root: neither can Debian's packages be hidden nor another user be taken"
    command -v cmake >/dev/null || skip "cmake is missing (Debian: cmake): jansson and libyaml cannot be built"
    command -v setpriv >/dev/null && unshare -m true 2>/dev/null || skip "no mount namespaces here"
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    mkdir -p "$dir/lists/partial" "$dir/home" "$dir/source"
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    site=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/debian.* 2>/dev/null |
        sed -n 's/^URIs: *//p; s/^deb [^h]*\(http[^ ]*debian\) .*/\1/p' | head -n 1)
    echo "deb-src [signed-by=$key] ${site:-http://deb.debian.org/debian} bookworm main" >"$dir/list"
    apt="apt-get -qq -o Dir::Etc::sourcelist=$dir/list -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$dir/lists \
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root"
    (cd "$dir/source" && $apt update && $apt source --download-only jansson libyaml) >"$dir/log" 2>&1 ||
        skip "no sources of jansson and libyaml can be fetched: $(tail -n 1 "$dir/log")"
    mkdir "$dir/imf"
    tar cf - --exclude='./build*' --exclude=./.git --exclude=./config.mk --exclude=./runs . | tar xf - -C "$dir/imf"
    chown -R $user:$user "$dir/home" && chmod -R go+rX,go-w "$dir" && chmod 700 "$dir/lists"
    unshare -m sh "$0" inside "$dir"
    exit
fi

dir=$2
echo >"$dir/nothing" && chmod 000 "$dir/nothing"
for f in $(dpkg -L libjansson-dev libyaml-dev | grep -E '\.(h|pc|a)$'); do
    mount --bind "$dir/nothing" "$f" || skip "no bind mounts here"
done
as_user() {
    setpriv --reuid=$user --regid=$user --clear-groups env -i HOME="$dir/home" PATH="$PATH" "$@" >"$dir/log" 2>&1
}
# The archives have no configure script; both have a CMakeLists.txt.
build='cd "$HOME" && tar xf "$1"/source/$2_*.orig.tar.gz && cmake -S $2-[0-9]* -B $2-build -DCMAKE_INSTALL_PREFIX="$HOME/libs" \
    -DCMAKE_INSTALL_LIBDIR=lib -DBUILD_SHARED_LIBS=ON -DJANSSON_BUILD_SHARED_LIBS=ON -DJANSSON_BUILD_DOCS=OFF \
    -DJANSSON_WITHOUT_TESTS=ON -DBUILD_TESTING=OFF && make -s -C $2-build install'
make="nice make -s -j2 -C $dir/imf BUILD=$dir/home/build CONFIG=$dir/home/config.mk OPT=-O1"

as_user $make configure && fail "Debian's packages are not hidden"
for words in 'libjansson-dev *jansson *Jansson' 'libyaml-dev *libyaml *libyaml' 'install libjansson-dev libyaml-dev$'; do
    grep -qE "$words" "$dir/log" || fail "make configure does not say '$words'"
done
as_user sh -c "$build" - "$dir" jansson || fail "jansson does not build"
as_user sh -c "$build" - "$dir" libyaml || fail "libyaml does not build"
as_user $make configure PREFIXES="$dir/home/libs" || fail "make configure PREFIXES"
cat "$dir/log"
as_user $make || fail "make"
as_user $make install prefix="$dir/home/imf" || fail "make install"
as_user "$dir/home/imf/bin/imf" --version || fail "imf --version"
cat "$dir/log"
as_user sh -c "cd $dir/home/imf/share/imf && ../../bin/imf select input/demo.yaml --quiet --set run_dir=$dir/home/run" ||
    fail "imf select"
as_user ldd "$dir/home/imf/bin/imf"
for name in jansson yaml; do grep -E "lib$name.*=> $dir/home/libs/lib/" "$dir/log" || fail "lib$name is not the prefix's"; done
as_user $make uninstall prefix="$dir/home/imf" || fail "make uninstall"
[ -z "$(find "$dir/home/imf" -type f)" ] || fail "make uninstall leaves $(find "$dir/home/imf" -type f | head -n 3)"
echo "check-install: passed"
