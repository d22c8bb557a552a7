// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/device.hpp"

#include <stdlib.h>

Err device_open(Device **out)
{
    int devices = 0;
    const cudaError_t found = cudaGetDeviceCount(&devices);
    CHECK(found == cudaSuccess && devices > 0, ERR_UNAVAILABLE, "there is no CUDA device (%s); look with nvidia-smi, or run on the CPU",
          found == cudaSuccess ? "none is visible" : cudaGetErrorString(found));
    Device *d = (Device *)calloc(1, sizeof *d);
    CHECK(d, ERR_UNAVAILABLE, "no memory");
    const cudaError_t made = cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking);
    if (made != cudaSuccess) free(d);
    TRY_CUDA(made);
    *out = d;
    return OK;
}

void device_close(Device *d)
{
    if (!d) return;
    (void)cudaStreamDestroy(d->stream);
    free(d);
}

Err device_wait(Device *d)
{
    TRY_CUDA(cudaStreamSynchronize(d->stream));
    return OK;
}

Err device_alloc(Device *d, void *pp, int64_t bytes)
{
    (void)d;
    const cudaError_t got = cudaMallocManaged((void **)pp, (size_t)bytes, cudaMemAttachGlobal);
    CHECK(got == cudaSuccess, ERR_UNAVAILABLE, "no %lld bytes on the device: %s", (long long)bytes, cudaGetErrorString(got));
    return OK;
}

void device_free(Device *d, void *p)
{
    (void)d;
    (void)cudaFree(p);
}
