// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/device.hpp"

#include <new>

static Err open_parts(Device *d)
{
    TRY_CUDA(cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking));
    CHECK(cublasLtCreate(&d->lt) == CUBLAS_STATUS_SUCCESS, ERR_UNAVAILABLE, "cuBLASLt does not start on this device");
    return OK;
}

Err device_open(Device **out)
{
    int devices = 0;
    const cudaError_t found = cudaGetDeviceCount(&devices);
    CHECK(found == cudaSuccess && devices > 0, ERR_UNAVAILABLE, "there is no CUDA device (%s); look with nvidia-smi, or run on the CPU",
          found == cudaSuccess ? "none is visible" : cudaGetErrorString(found));
    Device *d = new (std::nothrow) Device();
    CHECK(d, ERR_UNAVAILABLE, "no memory");
    const Err err = open_parts(d);
    if (err != OK) device_close(d);
    else *out = d;
    return err;
}

void device_close(Device *d)
{
    if (!d) return;
    if (d->lt) (void)cublasLtDestroy(d->lt);
    if (d->stream) (void)cudaStreamDestroy(d->stream);
    delete d;
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
