// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/device.hpp"

#include <nvtx3/nvToolsExt.h>

#include <cstring>
#include <new>

enum { HOPPER = 90 };

// The program has machine code for 8.x and 9.0.
static Err find_architecture(Device *d, int index)
{
    int major, minor;
    TRY_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index));
    TRY_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index));
    d->architecture = 10 * major + minor;
    CHECK(major == 8 || d->architecture == HOPPER, ERR_UNAVAILABLE, "device %d has compute capability %d.%d, and this program's code is for 8.x and 9.0: "
          "use another device (CUDA_VISIBLE_DEVICES), or set device: cpu", index, major, minor);
    return OK;
}

// libcuda is not linked: a program without a driver must start and say so.
static Err find_encoder(Device *d)
{
    void *f = nullptr;
    cudaDriverEntryPointQueryResult found;
    if (d->architecture != HOPPER) return OK;
    TRY_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &found));
    CHECK(found == cudaDriverEntryPointSuccess, ERR_UNAVAILABLE, "the driver has no cuTensorMapEncodeTiled: it is older than CUDA 12.0");
    d->encode = (TensorMapEncoder)f;
    return OK;
}

static Err open_parts(Device *d, int index)
{
    TRY(find_architecture(d, index));
    TRY(find_encoder(d));
    TRY_CUDA(cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking));
    CHECK(cublasLtCreate(&d->lt) == CUBLAS_STATUS_SUCCESS, ERR_UNAVAILABLE, "cuBLASLt does not start on this device");
    return OK;
}

Err device_open(int index, Device **out)
{
    int devices = 0;
    const cudaError_t found = cudaGetDeviceCount(&devices);
    CHECK(found == cudaSuccess && devices > 0, ERR_UNAVAILABLE, "there is no CUDA device (%s); look with nvidia-smi, or set device: cpu",
          found == cudaSuccess ? "none is visible" : cudaGetErrorString(found));
    CHECK(index < devices, ERR_UNAVAILABLE, "rank %d of this node has no device: %d can be seen; start as many ranks a node as there are devices "
          "(in Slurm with --gpus-per-node; --gpus-per-task hides them)", index, devices);
    TRY_CUDA(cudaSetDevice(index));
    Device *d = new (std::nothrow) Device();
    CHECK(d, ERR_UNAVAILABLE, "no memory");
    const Err err = open_parts(d, index);
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

Err device_ready(Device *d, bool *ready)
{
    const cudaError_t state = cudaStreamQuery(d->stream);
    *ready = state == cudaSuccess;
    if (state != cudaErrorNotReady) TRY_CUDA(state);
    return OK;
}

static Device planned;
Err device_plan(Device **out) { return *out = &planned, OK; }

int64_t device_peak(const Device *d) { return d->peak; }
int device_architecture(const Device *d) { return d->architecture; }

static Err take(Device *d, void *pp, void *p, int64_t bytes, cudaError_t got)
{
    CHECK(got == cudaSuccess, ERR_UNAVAILABLE, "no %lld bytes on the device, of which %lld are in use: %s; imf plan says what a stage needs "
          "(row_tokens, shard: grads and more ranks change it)", (long long)bytes, (long long)d->bytes, cudaGetErrorString(got));
    d->allocated[p] = bytes;
    d->bytes += bytes;
    if (d->bytes > d->peak) d->peak = d->bytes;
    memcpy(pp, &p, sizeof p);
    return OK;
}

Err device_alloc(Device *d, void *pp, int64_t bytes)
{
    void *p = nullptr;
    const cudaError_t got = cudaMalloc(&p, (size_t)bytes);
    return take(d, pp, p, bytes, got);
}

Err device_alloc_managed(Device *d, void *pp, int64_t bytes)
{
    void *p = nullptr;
    const cudaError_t got = cudaMallocManaged(&p, (size_t)bytes, cudaMemAttachGlobal);
    return take(d, pp, p, bytes, got);
}

void device_free(Device *d, void *p)
{
    if (!p) return;
    d->bytes -= d->allocated[p];
    d->allocated.erase(p);
    (void)cudaFree(p);
}

static Err managed_alloc(void *d, void *pp, int64_t bytes) { return device_alloc_managed((Device *)d, pp, bytes); }
static void managed_free(void *d, void *p) { device_free((Device *)d, p); }
MemSource device_managed(Device *d) { return {managed_alloc, managed_free, d}; }

static Err copy(Device *d, void *to, const void *from, int64_t bytes, cudaMemcpyKind kind)
{
    TRY_CUDA(cudaMemcpyAsync(to, from, (size_t)bytes, kind, d->stream));
    return device_wait(d);
}

Err device_put(Device *d, void *to, const void *from, int64_t bytes) { return copy(d, to, from, bytes, cudaMemcpyHostToDevice); }
Err device_get(Device *d, void *to, const void *from, int64_t bytes) { return copy(d, to, from, bytes, cudaMemcpyDeviceToHost); }

Err device_copy(Device *d, void *to, const void *from, int64_t bytes)
{
    TRY_CUDA(cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDeviceToDevice, d->stream));
    return OK;
}

void *device_stream(Device *d) { return d->stream; }

Err device_zero(Device *d, void *p, int64_t bytes)
{
    TRY_CUDA(cudaMemsetAsync(p, 0, (size_t)bytes, d->stream));
    return OK;
}

// --- order between streams -----------------------------------------------------------------------------------------------------

static Err open_beside(Device *d)
{
    int least, first;
    TRY_CUDA(cudaDeviceGetStreamPriorityRange(&least, &first));
    TRY_CUDA(cudaStreamCreateWithPriority(&d->stream, cudaStreamNonBlocking, first));
    return OK;
}

Err device_beside(Device *, Device **out)
{
    Device *d = new (std::nothrow) Device();
    CHECK(d, ERR_UNAVAILABLE, "no memory");
    const Err err = open_beside(d);
    if (err != OK) device_close(d);
    else *out = d;
    return err;
}

Err device_mark(Device *d, DeviceMark **m)
{
    if (!*m) TRY_CUDA(cudaEventCreateWithFlags((cudaEvent_t *)m, cudaEventDisableTiming));
    TRY_CUDA(cudaEventRecord((cudaEvent_t)*m, d->stream));
    return OK;
}

Err device_after(Device *d, const DeviceMark *m)
{
    if (m) TRY_CUDA(cudaStreamWaitEvent(d->stream, (cudaEvent_t)m, 0));
    return OK;
}

void device_mark_free(DeviceMark *m)
{
    if (m) (void)cudaEventDestroy((cudaEvent_t)m);
}

// --- graphs --------------------------------------------------------------------------------------------------------------------

Err device_record(Device *d)
{
    TRY_CUDA(cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeThreadLocal));
    return OK;
}

Err device_recorded(Device *d, DeviceGraph **out)
{
    cudaGraph_t taken = nullptr;
    cudaGraphExec_t made = nullptr;
    *out = nullptr;
    TRY_CUDA(cudaStreamEndCapture(d->stream, &taken));
    const cudaError_t e = cudaGraphInstantiate(&made, taken, 0);
    (void)cudaGraphDestroy(taken);
    TRY_CUDA(e);
    *out = (DeviceGraph *)made;
    return OK;
}

Err device_replay(Device *d, DeviceGraph *g)
{
    TRY_CUDA(cudaGraphLaunch((cudaGraphExec_t)g, d->stream));
    return OK;
}

void device_graph_free(DeviceGraph *g)
{
    if (g) (void)cudaGraphExecDestroy((cudaGraphExec_t)g);
}

// --- ranges --------------------------------------------------------------------------------------------------------------------

bool device_range(const char *name) { return (void)nvtxRangePushA(name), true; }

void device_range_end(const bool *begun)
{
    if (*begun) (void)nvtxRangePop();
}
