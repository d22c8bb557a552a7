#!/bin/sh
# Prints config.mk: where the libraries are. Says what is missing, with the Debian package, and fails.
set -u
missing=
need() { missing="$missing $1"; }
command -v mpicc >/dev/null 2>&1 || need libopenmpi-dev
command -v pkg-config >/dev/null 2>&1 || { echo "imf: pkg-config is missing: apt-get install pkg-config" >&2; exit 69; }
packages='jansson:libjansson-dev yaml-0.1:libyaml-dev libpcre2-8:libpcre2-dev libutf8proc:libutf8proc-dev
libseccomp:libseccomp-dev libxxhash:libxxhash-dev'
names=
for p in $packages; do
    if pkg-config --exists "${p%%:*}"; then names="$names ${p%%:*}"; else need "${p##*:}"; fi
done
has_header() { printf '#include <%s>\n' "$1" | ${CC:-gcc} -E -x c - >/dev/null 2>&1; }
has_header dnnl.h || need libdnnl-dev
has_header gmp.h || need libgmp-dev
has_header cmocka.h 2>/dev/null || [ -e /usr/include/cmocka.h ] || need libcmocka-dev
# Debian's netcdf-mpi.pc names a wrong include path, so look for the header itself.
netcdf=${NETCDF_DIR:-}
if [ -n "$netcdf" ]; then inc=$netcdf/include lib="-L$netcdf/lib -lnetcdf"
else
    multi=$(${CC:-gcc} -print-multiarch 2>/dev/null)
    inc=/usr/lib/$multi/netcdf/mpi/include lib="-L/usr/lib/$multi -lnetcdf_mpi"
fi
[ -e "$inc/netcdf_par.h" ] || need libnetcdf-mpi-dev
# HDF5's own header, only to name the tensor that a damaged byte belongs to; without it damage is found all the same.
hdf5=${HDF5_DIR:-$netcdf} hdf5_flags= hdf5_lib=
if [ -n "$hdf5" ]; then [ ! -e "$hdf5/include/hdf5.h" ] || hdf5_flags="-DIMF_HDF5 -I$hdf5/include" hdf5_lib="-L$hdf5/lib -lhdf5"
elif [ -e /usr/include/hdf5/openmpi/hdf5.h ]; then hdf5_flags="-DIMF_HDF5 -I/usr/include/hdf5/openmpi" hdf5_lib=-lhdf5_openmpi
fi
if [ -n "$missing" ]; then
    echo "imf: libraries are missing; as root: apt-get install$missing" >&2
    exit 69
fi
# Without OpenMP (clang and no libomp) the ops run on one thread.
scratch=$(mktemp)
if echo 'int main(void) { return 0; }' | ${CC:-gcc} -fopenmp -x c -o "$scratch" - 2>/dev/null; then echo "OPENMP = -fopenmp"; fi
rm -f "$scratch"
echo "MPI_CFLAGS = $(mpicc --showme:compile)"
echo "MPI_LIBS = $(mpicc --showme:link)"
echo "NETCDF_CFLAGS = -I$inc $hdf5_flags"
echo "NETCDF_LIBS = $lib $hdf5_lib"
echo "PKG_CFLAGS = $(pkg-config --cflags $names)"
echo "PKG_LIBS = $(pkg-config --libs $names) -lgmp"
