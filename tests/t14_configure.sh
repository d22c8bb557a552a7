#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# HPC-3: tools/configure.sh on places made here: a library in PREFIXES wins over the system's, by pkg-config and by its files
# alone, with an rpath; the first prefix that has it is taken; a serial NetCDF is refused in one line, or passed over for a
# parallel one; everything that is missing is named at once, with its names in Debian, Spack and EasyBuild, and ends with 69;
# MPICH's wrapper is understood; make keeps PREFIXES.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
unset MAKEFLAGS MAKELEVEL PREFIXES NETCDF_DIR PKG_CONFIG_PATH
fail() { echo "$*"; cat "$dir/err" "$dir/out"; exit 1; }
configure() { env "$@" sh tools/configure.sh >"$dir/out" 2>"$dir/err"; }
says() { grep -qE -- "$2" "$dir/$1" || fail "$1 does not match '$2'"; }
lib=$(gcc -print-file-name=libjansson.so)

# Two prefixes: a/ has jansson with a pc file, b/ has another jansson and a libyaml without one.
mkdir -p "$dir/a/include" "$dir/a/lib/pkgconfig" "$dir/b/include" "$dir/b/lib64"
cp /usr/include/jansson.h /usr/include/jansson_config.h "$dir/a/include"
cp /usr/include/jansson.h /usr/include/jansson_config.h /usr/include/yaml.h "$dir/b/include"
cp "$lib" "$dir/a/lib/libjansson.so.4" && ln -s libjansson.so.4 "$dir/a/lib/libjansson.so"
cp "$lib" "$dir/b/lib64/libjansson.so"
cp "$(gcc -print-file-name=libyaml.so)" "$dir/b/lib64/libyaml-0.so.2" && ln -s libyaml-0.so.2 "$dir/b/lib64/libyaml.so"
sed -i 's/define JANSSON_VERSION .*/define JANSSON_VERSION "9.1"/' "$dir/a/include/jansson.h"
printf 'Name: jansson\nDescription: x\nVersion: 9.1\nLibs: -L%s/lib -ljansson\nCflags: -I%s/include\n' "$dir/a" "$dir/a" \
    >"$dir/a/lib/pkgconfig/jansson.pc"

configure PREFIXES="$dir/a $dir/b" || fail "configure with two prefixes"
says err "jansson  *found  *9.1  *$dir/a/lib/pkgconfig"
says err "libyaml  *found .*$dir/b/lib64"
says out "^PKG_CFLAGS = .*-I$dir/a/include.*-I$dir/b/include"
says out "^LIB_DIRS = -L$dir/a/lib -L$dir/b/lib64 -Wl,-rpath,$dir/a/lib -Wl,-rpath,$dir/b/lib64( |\$)"
says out "^PREFIXES \\?= $dir/a $dir/b\$"
says out '^NO_CMOCKA = $'
configure PREFIXES="$dir/b" || fail "configure with b"
says err "jansson  *found .*$dir/b/lib64"
configure || fail "configure without prefixes"
! grep -q "rpath" "$dir/out" || fail "an rpath into the system"

# What it writes is what make uses: a program's loader takes the prefix's library, although Debian's is there too.
configure_by_make() { make -s CONFIG="$dir/config.mk" BUILD="$dir/build" "$@" "$dir/config.mk" >"$dir/out" 2>"$dir/err"; }
configure_by_make PREFIXES="$dir/a" || fail "make config.mk"
cat >"$dir/Makefile" <<'END'
include config.mk
all:
	echo 'char *jansson_version_str(void); int main(void) { return !jansson_version_str(); }' | \
	  gcc -x c -o program - $(LIB_DIRS) $(NETCDF_LIBS) $(MPI_LIBS) $(PKG_LIBS)
END
make -s -C "$dir" >"$dir/out" 2>"$dir/err" || fail "a program with config.mk"
ldd "$dir/program" >"$dir/out"
says out "libjansson.so.4 => $dir/a/lib/libjansson.so.4"
touch -d 2001-01-01 "$dir/config.mk"  # older than configure.sh: made anew, with the prefixes that it was made with
configure_by_make || fail "make config.mk again"
says err "jansson  *found  *9.1"

configure PREFIXES="$dir/a $dir/nothing" && fail "a prefix that is no directory"
says err "^imf: PREFIXES names $dir/nothing, which is no directory\$"

# A serial NetCDF.
mkdir -p "$dir/n/include" "$dir/n/lib"
touch "$dir/n/lib/libnetcdf.so" && echo '#define X 1' >"$dir/n/include/netcdf.h"
printf '#define NC_VERSION "4.9.9"\n#define NC_HAS_PARALLEL4 0\n' >"$dir/n/include/netcdf_meta.h"
configure NETCDF_DIR="$dir/n"
[ $? = 69 ] && [ "$(grep -c '^imf: ' "$dir/err")" = 1 ] || fail "a serial NetCDF: one line and 69"
says err "^imf: the NetCDF of $dir/n is serial; .*libnetcdf-mpi-dev.*netcdf-c\\+mpi"
configure PREFIXES="$dir/n" || fail "a serial NetCDF in a prefix and a parallel one of the system"
says err "NetCDF \\(parallel\\) found .*/netcdf/mpi \\(the one of $dir/n is serial\\)"

# MPICH's family tells its flags in another way.
mkdir -p "$dir/m/bin"
cat >"$dir/m/bin/mpicc" <<END
#!/bin/sh
case \$1 in
-compile_info) echo "gcc $(mpicc --showme:compile)" ;;
-link_info) echo "gcc $(mpicc --showme:link)" ;;
*) exit 1 ;;
esac
END
chmod +x "$dir/m/bin/mpicc"
configure PREFIXES="$dir/m" || fail "MPICH's wrapper"
says err "MPI  *found .*$dir/m/bin/mpicc"
says out '^MPI_LIBS =.* -lmpi'

# Nothing there at all: a compiler without headers, no mpicc, no pc files.
mkdir "$dir/bin"
for tool in sh sed cut tr cat mktemp dirname grep rm gcc; do ln -s "$(command -v $tool)" "$dir/bin/$tool"; done
configure PATH="$dir/bin" CC='gcc -nostdinc -B/nonexistent'
[ $? = 69 ] || fail "nothing is there, but not 69"
for name in libopenmpi-dev libnetcdf-mpi-dev libdnnl-dev libjansson-dev libyaml-dev libpcre2-dev libgmp-dev libutf8proc-dev \
    libseccomp-dev libxxhash-dev; do says err "apt-get install .*$name"; done
says err '^  jansson  *libjansson-dev  *jansson  *Jansson$'
says err '^  MPI  *libopenmpi-dev openmpi-bin  *openmpi  *OpenMPI$'
says err 'make configure PREFIXES='
[ ! -s "$dir/out" ] || fail "a config.mk in spite of that"
exit 0
