// SPDX-License-Identifier: Apache-2.0
#include "par/par_nc.h"

#include <mpi.h>
#include <netcdf.h>
#include <netcdf_meta.h>
#include <netcdf_par.h>
#include <stdio.h>
#include <string.h>

#include "par/par.h"

enum { MODE = NC_NETCDF4 | NC_CLOBBER };

int par_nc_create(const char *path, int group, int *id)
{
    if (par_size() == 1) return nc_create(path, MODE, id);
    const MPI_Comm *world = par_comm();
    MPI_Comm comm;
    int size = 0;
    if (MPI_Comm_split(*world, group, par_rank(), &comm) != MPI_SUCCESS || MPI_Comm_size(comm, &size) != MPI_SUCCESS)
        return NC_EPARINIT;
    int status = size == 1 ? nc_create(path, MODE, id) : nc_create_par(path, MODE, comm, MPI_INFO_NULL, id);
    MPI_Comm_free(&comm);  // netCDF has its own copy
    return status;
}

bool par_nc_describe(char *out, int size)
{
    const char *version = nc_inq_libvers();  // "4.9.0 of Aug 19 2022 ..."
    snprintf(out, (size_t)size, "netCDF %.*s", (int)strcspn(version, " "), version);
    return NC_HAS_PARALLEL4;
}
