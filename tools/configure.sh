#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# configure.sh: prints config.mk (where the libraries are) on stdout and a table of what was found on stderr. No root and no
# network are needed.
#   PREFIXES="/a /b"   install prefixes, looked at in this order and before the system; names without spaces
#   NETCDF_DIR=/n      the prefix of the parallel NetCDF alone; HDF5_DIR: that of its HDF5
# Each library by pkg-config under a prefix (lib*/pkgconfig), else by header and library there, else where pkg-config and the
# compiler look by themselves; MPI by mpicc, NetCDF by nc-config too. What is missing is named at once, with its names in
# Debian, Spack and EasyBuild, and ends with 69. At the end a program that uses all of them is linked and run.
# Libraries outside /lib and /usr/lib get an rpath, so that imf runs without LD_LIBRARY_PATH.
set -u
CC=${CC:-gcc}
work=$(mktemp -d) || exit 69
trap 'rm -rf "$work"' EXIT
multi=$($CC -print-multiarch 2>/dev/null)
own_dirs='' system_dirs='' rpaths='' mpi_cflags='' mpi_libs='' netcdf_cflags='' netcdf_libs='' pkg_cflags='' pkg_libs=''
missing='' apt='' note=''
refuse() { echo "imf: $1" >&2; exit 69; }
row() { printf '  %-17s %-8s %-9s %s\n' "$1" "$2" "$3" "$4" >&2; }

prefixes=
for p in ${PREFIXES:-}; do
    case $p in '~'/*) p=$HOME/${p#??} ;; esac
    [ -d "$p" ] || refuse "PREFIXES names $p, which is no directory"
    prefixes="$prefixes $(cd "$p" && pwd)"
done
pc_dirs() { for p in "$@"; do for d in "$p"/lib/pkgconfig "$p"/lib*/pkgconfig "$p"/lib/*/pkgconfig "$p"/share/pkgconfig; do
    [ ! -d "$d" ] || printf '%s:' "$d"; done; done; }
PKG_CONFIG_PATH=$(pc_dirs $prefixes)${PKG_CONFIG_PATH:-}
export PKG_CONFIG_PATH

once() { case " $1 " in *" $2 "*) echo "$1" ;; *) echo "$1 $2" ;; esac; }
# The linker looks at -L in their order: prefixes come before the system's, or a Debian library of the same name wins.
lib_dir() {
    case $1 in
    /lib | /usr/lib | /lib64 | /usr/lib64 | "/lib/$multi" | "/usr/lib/$multi") ;;
    /lib/* | /lib64/* | /usr/lib/* | /usr/lib64/*) system_dirs=$(once "$system_dirs" "-L$1") ;;
    *) own_dirs=$(once "$own_dirs" "-L$1"); rpaths=$(once "$rpaths" "-Wl,-rpath,$1") ;;
    esac
}
take_libs() {  # words of a library's link flags: -L goes to the lists above, the others to $libs
    libs=
    for word in "$@"; do case $word in -L*) lib_dir "${word#-L}" ;; *) libs="$libs $word" ;; esac; done
}
has_header() { printf '#include <stddef.h>\n#include <%s>\n' "$2" | $CC -E $1 -x c - >/dev/null 2>&1; }
# The value of a macro expression, its blanks and quotes removed.
macro() {
    printf '#include <stddef.h>\n#include <%s>\n@@ %s\n' "$2" "$3" | $CC -E -P $1 -x c - 2>/dev/null |
        sed -n 's/^@@ //p' | tr -d ' "'
}
links() { echo 'int main(void) { return 0; }' | $CC -x c -o "$work/a" - "$@" >/dev/null 2>&1; }
dir_of_lib() {  # PREFIX LIBRARY: the directory that holds it
    for d in "$1"/lib "$1"/lib64 "$1/lib/$multi"; do
        for f in "$d/lib$2.so" "$d/lib$2.a"; do [ ! -e "$f" ] || { echo "$d"; return 0; }; done
    done
    return 1
}
by_pc() {  # PC: by pkg-config, when the pc file has one under $1 (or anywhere, with an empty $1)
    command -v pkg-config >/dev/null 2>&1 && pkg-config --exists "$2" 2>/dev/null || return 1
    where=$(pkg-config --variable=pcfiledir "$2")
    case $where in "$1"*) ;; *) return 1 ;; esac
    cflags=$(pkg-config --cflags "$2") ldflags=$(pkg-config --libs "$2")
    has_header "$cflags -DPCRE2_CODE_UNIT_WIDTH=8" "$3"
}
by_files() {  # PREFIX PC HEADER LIBRARY
    [ -e "$1/include/$3" ] && where=$(dir_of_lib "$1" "$4") || return 1
    cflags=-I$1/include ldflags="-L$where -l$4"
}
by_compiler() {  # also what CPATH and LIBRARY_PATH of a module add
    has_header -DPCRE2_CODE_UNIT_WIDTH=8 "$3" && links "-l$4" || return 1
    where=$($CC -print-file-name="lib$4.so") cflags='' ldflags="-l$4"
    case $where in /*) where=$(cd "$(dirname "$where")" && pwd); ldflags="-L$where -l$4" ;; *) where=compiler ;; esac
}
find_library() {
    for p in $prefixes; do by_pc "$p/" "$@" || by_files "$p" "$@" && return 0; done
    by_pc '' "$@" || by_compiler '' "$@"
}
lacks() {  # LABEL DEBIAN SPACK EASYBUILD
    row "$1" missing - -
    missing="$missing$(printf '  %-17s %-29s %-16s %s' "$1" "$2" "$3" "$4")
"
    apt="$apt $2"
}
library() {  # LABEL PC HEADER LIBRARY VERSION-MACROS DEBIAN SPACK EASYBUILD
    label=$1 pc=$2 header=$3 name=$4 version=$5
    shift 5
    find_library "$pc" "$header" "$name" || { lacks "$label" "$@"; return 0; }
    v=
    [ -z "$version" ] || v=$(macro "$cflags -DPCRE2_CODE_UNIT_WIDTH=8" "$header" "$version")
    [ -n "$v" ] || v=$(pkg-config --modversion "$pc" 2>/dev/null)
    take_libs $ldflags
    pkg_cflags="$pkg_cflags $cflags" pkg_libs="$pkg_libs$libs"
    row "$label" found "${v:--}" "$where"
}

# ---- MPI: Open MPI's wrapper, or one of MPICH's family -------------------------------------------------------------------
find_mpi() {
    mpicc=
    for p in $prefixes; do [ -n "$mpicc" ] || [ ! -x "$p/bin/mpicc" ] || mpicc=$p/bin/mpicc; done
    [ -n "$mpicc" ] || mpicc=$(command -v mpicc) || { lacks MPI 'libopenmpi-dev openmpi-bin' openmpi OpenMPI; return 0; }
    if compile=$("$mpicc" --showme:compile 2>/dev/null); then
        link=$("$mpicc" --showme:link) v=$("$mpicc" --showme:version 2>/dev/null | sed 's/.*Open MPI \([0-9.]*\).*/\1/')
    else
        compile=$("$mpicc" -compile_info 2>/dev/null | cut -d' ' -f2-)
        link=$("$mpicc" -link_info 2>/dev/null | cut -d' ' -f2-) v=-
        [ -n "$compile" ] || refuse "$mpicc tells no flags (neither --showme:compile nor -compile_info)"
    fi
    take_libs $link
    mpi_cflags=$compile mpi_libs=$libs
    row MPI found "$v" "$mpicc"
}

# ---- NetCDF: only a parallel one will do ----------------------------------------------------------------------------------
parallel() {  # FLAGS: 0 parallel, 1 serial or none; a serial one is remembered
    has_header "$1" netcdf.h || return 1
    [ "$(macro "$1" netcdf_meta.h NC_HAS_PARALLEL4)" = 1 ] && has_header "$1 $mpi_cflags" netcdf_par.h && return 0
    note=${note:-$2}
    return 1
}
nc_config() {
    [ -x "$1" ] && nc_cflags="-I$("$1" --includedir)" && nc_ldflags=$("$1" --libs) && where=$1 && parallel "$nc_cflags" "$1"
}
netcdf_under() {
    nc_config "$1/bin/nc-config" && return 0
    [ -e "$1/include/netcdf.h" ] || return 1
    where=$(dir_of_lib "$1" netcdf) || return 1
    nc_cflags=-I$1/include nc_ldflags="-L$where -lnetcdf"
    parallel "$nc_cflags" "$1"
}
# Debian's netcdf-mpi.pc names a wrong include path, so its place is looked at directly.
netcdf_debian() {
    where=/usr/lib/$multi/netcdf/mpi nc_cflags=-I/usr/lib/$multi/netcdf/mpi/include nc_ldflags=-lnetcdf_mpi
    [ -e "$where/include/netcdf_par.h" ] && parallel "$nc_cflags" "$where"
}
find_netcdf() {
    if [ -n "${NETCDF_DIR:-}" ]; then netcdf_under "$NETCDF_DIR" && return 0; [ -z "$note" ] || return 1; fi
    for p in $prefixes; do netcdf_under "$p" && return 0; done
    nc_config "$(command -v nc-config)" && return 0
    netcdf_debian && return 0
    nc_cflags='' nc_ldflags=-lnetcdf where=compiler
    parallel '' "the compiler's include path" && links -lnetcdf
}
take_netcdf() {
    if find_netcdf; then
        take_libs $nc_ldflags
        netcdf_cflags=$nc_cflags netcdf_libs=$libs
        v=$(macro "$nc_cflags" netcdf_meta.h NC_VERSION)
        row 'NetCDF (parallel)' found "$v" "$where${note:+ (the one of $note is serial)}"
    elif [ -n "$note" ]; then
        row 'NetCDF (parallel)' serial - "$note"
        refuse "the NetCDF of $note is serial; imf needs one over parallel HDF5: \
Debian libnetcdf-mpi-dev, Spack netcdf-c+mpi, EasyBuild netCDF with an MPI toolchain"
    else
        lacks 'NetCDF (parallel)' libnetcdf-mpi-dev netcdf-c+mpi netCDF
    fi
}

# HDF5's own header, only to name the tensor that a damaged byte belongs to; without it damage is found all the same. It must be
# the HDF5 that NetCDF stands on, so Debian's is taken beside Debian's NetCDF only.
find_hdf5() {
    for p in ${HDF5_DIR:-} ${NETCDF_DIR:-} $prefixes; do by_files "$p" hdf5 hdf5.h hdf5 && return 0; done
    [ -z "${HDF5_DIR:-}" ] && [ "$netcdf_libs" = ' -lnetcdf_mpi' ] || return 1
    where=/usr/include/hdf5/openmpi cflags=-I/usr/include/hdf5/openmpi ldflags=-lhdf5_openmpi
    [ -e "$where/hdf5.h" ]
}
take_hdf5() {
    find_hdf5 || { row 'HDF5 (optional)' missing - 'damaged checkpoints are found, but the tensor is not named'; return 0; }
    take_libs $ldflags
    netcdf_cflags="$netcdf_cflags -DIMF_HDF5 $cflags" netcdf_libs="$netcdf_libs$libs"
    v=$(macro "$cflags $mpi_cflags" H5public.h 'H5_VERS_MAJOR . H5_VERS_MINOR . H5_VERS_RELEASE')
    row 'HDF5 (optional)' found "$v" "$where"
}

row library state version where
find_mpi
take_netcdf
[ -z "$netcdf_libs" ] || take_hdf5
dotted() { echo "$1_MAJOR . $1_MINOR${2:+ . $1_$2}"; }
library oneDNN dnnl dnnl.h dnnl "$(dotted DNNL_VERSION PATCH)" libdnnl-dev onednn -
library jansson jansson jansson.h jansson JANSSON_VERSION libjansson-dev jansson Jansson
library libyaml yaml-0.1 yaml.h yaml '' libyaml-dev libyaml libyaml
library PCRE2 libpcre2-8 pcre2.h pcre2-8 "$(dotted PCRE2)" libpcre2-dev pcre2 PCRE2
library GMP gmp gmp.h gmp '__GNU_MP_VERSION . __GNU_MP_VERSION_MINOR . __GNU_MP_VERSION_PATCHLEVEL' libgmp-dev gmp GMP
library utf8proc libutf8proc utf8proc.h utf8proc "$(dotted UTF8PROC_VERSION PATCH)" libutf8proc-dev utf8proc utf8proc
library libseccomp libseccomp seccomp.h seccomp "$(dotted SCMP_VER MICRO)" libseccomp-dev libseccomp libseccomp
library xxHash libxxhash xxhash.h xxhash "$(dotted XXH_VERSION RELEASE)" libxxhash-dev xxhash xxHash
if [ -n "$missing" ]; then
    {
        printf 'imf: missing:\n  %-17s %-29s %-16s %s\n%s' library Debian Spack EasyBuild "$missing"
        echo "imf: as root on Debian: apt-get install$apt"
        echo 'imf: without root: install them below any directory, then: make configure PREFIXES="/one/directory /another"'
    } >&2
    exit 69
fi
# cmocka.h leans on these three headers; without cmocka everything but the tests is built.
cmocka_cflags='' cmocka_libs='' no_cmocka=
if cmocka=$(find_library cmocka cmocka.h cmocka && echo "$where|$cflags|$ldflags"); then
    take_libs $(echo "$cmocka" | cut -d'|' -f3)
    cmocka_cflags=$(echo "$cmocka" | cut -d'|' -f2) cmocka_libs=$libs
    v=$(pkg-config --modversion cmocka 2>/dev/null)
    row 'cmocka (tests)' found "${v:--}" "${cmocka%%|*}"
else
    no_cmocka=1
    row 'cmocka (tests)' missing - 'optional: Debian libcmocka-dev, Spack cmocka'
fi

# ---- all of them in one program ---------------------------------------------------------------------------------------------
cat >"$work/all.c" <<'END'
#define PCRE2_CODE_UNIT_WIDTH 8
#include <dnnl.h>
#include <gmp.h>
#include <jansson.h>
#include <mpi.h>
#include <netcdf.h>
#include <netcdf_par.h>
#include <pcre2.h>
#include <seccomp.h>
#include <utf8proc.h>
#include <xxhash.h>
#include <yaml.h>
typedef void (*Any)(void);
Any volatile used[] = {(Any)MPI_Init, (Any)nc_create_par, (Any)dnnl_version, (Any)json_loads, (Any)yaml_parser_parse,
    (Any)pcre2_compile, (Any)mpz_init, (Any)utf8proc_map, (Any)seccomp_init, (Any)XXH3_64bits};
int main(void) { return used[0] == 0; }
END
$CC $mpi_cflags $netcdf_cflags $pkg_cflags -o "$work/all" "$work/all.c" $own_dirs $rpaths $system_dirs $netcdf_libs $mpi_libs \
    $pkg_libs -lm -lpthread 2>"$work/log" ||
    { cat "$work/log" >&2; refuse "a program that uses all these libraries does not compile; see the compiler's words"; }
"$work/all" 2>"$work/log" ||
    { cat "$work/log" >&2; refuse "a program that uses all these libraries does not start; see the loader's words"; }

# Without OpenMP (clang and no libomp) the ops run on one thread.
links -fopenmp && echo "OPENMP = -fopenmp"
echo "PREFIXES ?=$prefixes"
echo "NETCDF_DIR ?= ${NETCDF_DIR:-}"
echo "HDF5_DIR ?= ${HDF5_DIR:-}"
echo "MPI_CFLAGS = $mpi_cflags"
echo "MPI_LIBS = $mpi_libs"
echo "NETCDF_CFLAGS = $netcdf_cflags"
echo "NETCDF_LIBS = $netcdf_libs"
echo "PKG_CFLAGS =$pkg_cflags"
echo "PKG_LIBS =$pkg_libs"
echo "LIB_DIRS =$own_dirs$rpaths$system_dirs"
echo "CMOCKA_CFLAGS = $cmocka_cflags"
echo "CMOCKA_LIBS = $cmocka_libs"
echo "NO_CMOCKA = $no_cmocka"
