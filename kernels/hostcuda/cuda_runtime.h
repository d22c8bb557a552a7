// SPDX-License-Identifier: Apache-2.0
// The part of the CUDA runtime that imf uses, on the CPU; names and meanings are NVIDIA's (CUDA Runtime API, 13.0).
//
// A stream is a queue: nothing runs when it is called. Work runs when somebody waits or asks (synchronise, query), one operation at a time, in
// an order that hostcuda's seed decides among the streams; events order it. So a missing event or a host buffer that is used
// again too soon gives other values for some seed. A defect in a kernel is cudaErrorLaunchFailure and stays, as on a device.
#ifndef IMF_HOSTCUDA_CUDA_RUNTIME_H
#define IMF_HOSTCUDA_CUDA_RUNTIME_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901
} cudaError_t;

typedef struct CUstream_st *cudaStream_t;  // NULL: the default stream, ordered like any other (per-thread semantics)
typedef struct CUevent_st *cudaEvent_t;

enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76 };
enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess = 0, cudaDriverEntryPointSymbolNotFound = 1, cudaDriverEntryPointVersionNotSufficent = 2 };
enum { cudaEnableDefault = 0 };

const char *cudaGetErrorString(cudaError_t e);
cudaError_t cudaGetLastError(void);  // the last failure of a call; a kernel's stays

cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int device);
// Compute capability 9.0, or what the environment's HOSTCUDA_SM says (80: 8.0).
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device);
// A function of the driver, as version 1000 x major + 10 x minor of CUDA has it. hostcuda's driver has cuTensorMapEncodeTiled, since 12.0.
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *found);
cudaError_t cudaMemGetInfo(size_t *unused, size_t *all);

cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
// Host and device reach it; the host only while nothing runs. hostcuda does not see what the host writes: here no read is of memory
// that nobody wrote.
enum { cudaMemAttachGlobal = 1 };
cudaError_t cudaMallocManaged(void **p, size_t bytes, unsigned flags);
cudaError_t cudaMallocHost(void **p, size_t bytes);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t s);
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t s);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int priority);  // which changes nothing here
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags);
cudaError_t cudaStreamQuery(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaDeviceSynchronize(void);

// While a stream captures, its work is written down and does not run. What waits for the device, or takes or gives back its memory, is refused
// and spoils the capture; so do events on the stream, which imf does not capture.
typedef struct CUgraph_st *cudaGraph_t;
typedef struct CUgraphExec_st *cudaGraphExec_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventQuery(cudaEvent_t e);
cudaError_t cudaEventSynchronize(cudaEvent_t e);

// More than 48 KB of dynamic shared memory must be allowed for a kernel before it is launched.
cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute what, int value);

#ifdef __cplusplus
}

#include <functional>

#include "kernels/hostcuda/hostcuda.hpp"

namespace hostcuda {

// Puts a launch into a stream; shared_bytes must be within the kernel's attribute.
cudaError_t enqueue(cudaStream_t s, std::function<bool()> launch_it, const void *kernel, size_t shared_bytes);

// Puts a library's work into a stream. It is called again as long as it says cudaErrorNotReady.
cudaError_t enqueue_call(cudaStream_t s, std::function<cudaError_t()> call);

template <typename... P, typename... A>
cudaError_t enqueue_kernel(const char *what, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t s, A &&...args)
{
    Call<P...> call{kernel, {std::forward<A>(args)...}};
    return enqueue(s, [=]() mutable { return run(what, grid, block, shared_bytes, std::ref(call), {&call, sizeof call}); },
                   (const void *)kernel, shared_bytes);
}

}  // namespace hostcuda

#define CUDA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    hostcuda::enqueue_kernel(#kernel, kernel, grid, block, shared_bytes, stream, __VA_ARGS__)
#endif
#endif
