// Creating a NetCDF-4 file that all ranks write (netcdf_par.h needs the communicator, which belongs to src/par).
#ifndef IMF_PAR_PAR_NC_H
#define IMF_PAR_PAR_NC_H

// Collective: creates (or replaces) the file, in parallel access mode unless this is the only rank. Returns a netCDF
// status (NC_NOERR); *id is the file.
int par_nc_create(const char *path, int *id);

#endif
