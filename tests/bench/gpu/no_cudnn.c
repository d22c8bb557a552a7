// SPDX-License-Identifier: Apache-2.0
// In place of cudnn_sdpa.c where cuDNN was not found when the program was built.
#include "cudnn_sdpa.h"

#include <stddef.h>

Err cudnn_sdpa_plan(const CudnnSdpaShape *shape, const char *device, CudnnSdpa **out)
{
    (void)shape, (void)device;
    *out = NULL;
    CHECK(false, ERR_UNAVAILABLE, "this program was built without cuDNN (cudnn.h)");
    return OK;
}

int64_t cudnn_sdpa_workspace(const CudnnSdpa *s) { return (void)s, 0; }
Err cudnn_sdpa_bind(CudnnSdpa *s, const CudnnSdpaTensors *t, void *workspace, void *stream)
{
    return (void)s, (void)t, (void)workspace, (void)stream, OK;
}
Err cudnn_sdpa_run(CudnnSdpa *s) { return (void)s, OK; }
void cudnn_sdpa_free(CudnnSdpa *s) { (void)s; }
const char *cudnn_sdpa_version(void) { return NULL; }
