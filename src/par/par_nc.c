#include "par/par_nc.h"

#include <mpi.h>
#include <netcdf.h>
#include <netcdf_par.h>

#include "par/par.h"

int par_nc_create(const char *path, int *id)
{
    if (par_size() == 1) return nc_create(path, NC_NETCDF4 | NC_CLOBBER, id);
    const MPI_Comm *world = par_comm();
    return nc_create_par(path, NC_NETCDF4 | NC_CLOBBER, *world, MPI_INFO_NULL, id);
}
