// SPDX-License-Identifier: Apache-2.0
// Creating NetCDF-4 files that several ranks write (netcdf_par.h needs the communicator, which belongs to src/par).
#ifndef IMF_PAR_PAR_NC_H
#define IMF_PAR_PAR_NC_H

#include <stdbool.h>

// Collective over all ranks: those that name the same group name the same path and create (or replace) that file together, in
// parallel access mode unless a rank is alone. Returns a netCDF status (NC_NOERR); *id is the file.
int par_nc_create(const char *path, int group, int *id);

// Version of the netCDF library; false when it was built without parallel files. Local.
bool par_nc_describe(char *out, int size);

#endif
