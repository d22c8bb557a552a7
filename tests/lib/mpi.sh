# SPDX-License-Identifier: Apache-2.0
# Sourced by tests that start mpirun: as root too, with more ranks than cores, bound to none, and without the copies between
# processes that containers forbid.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl_vader_single_copy_mechanism=none
