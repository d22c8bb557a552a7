// SPDX-License-Identifier: Apache-2.0
// Streams are lazy, events order them, what nothing orders the seed does; graphs are streams written down; failures come when somebody asks, and stay.
#include <cuda_runtime.h>

#include <cstdio>
#include <set>

#include "kernels/cuda/ptx.cuh"

enum { N = 32 };

__global__ void times_and_plus(uint32_t *x, uint32_t times, uint32_t plus) { x[threadIdx.x] = x[threadIdx.x] * times + plus; }
__global__ void outside(uint32_t *x) { x[N] = 1; }
__global__ void fill(uint32_t *x)
{
    SHARED_MEMORY(shared);
    shared[threadIdx.x] = 1;  // bytes side by side are no race
    x[threadIdx.x] = shared[threadIdx.x];
}

#define WANT(x)                                                                \
    do {                                                                       \
        if (!(x)) return printf("line %d: not %s\n", __LINE__, #x), 1;         \
    } while (0)

// Two streams write x; with an event between them the result is one, without it depends on the seed.
static int two_streams(bool ordered, std::set<uint32_t> *results)
{
    for (int seed = 0; seed < 16; seed++) {
        hostcuda::set_order(hostcuda::Order::RANDOM, (uint64_t)seed);
        uint32_t *x, back[N] = {0};
        cudaStream_t a, b;
        cudaEvent_t e;
        WANT(cudaMalloc((void **)&x, sizeof back) == cudaSuccess);
        WANT(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking) == cudaSuccess && cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking) == cudaSuccess);
        WANT(cudaEventCreateWithFlags(&e, cudaEventDisableTiming) == cudaSuccess);
        WANT(cudaMemsetAsync(x, 0, sizeof back, a) == cudaSuccess && cudaStreamSynchronize(a) == cudaSuccess);
        WANT(CUDA_LAUNCH(times_and_plus, 1, N, 0, a, x, 2, 3) == cudaSuccess);
        WANT(cudaEventRecord(e, a) == cudaSuccess);
        if (ordered) WANT(cudaStreamWaitEvent(b, e, 0) == cudaSuccess);
        WANT(CUDA_LAUNCH(times_and_plus, 1, N, 0, b, x, 5, 1) == cudaSuccess);
        WANT(cudaStreamSynchronize(b) == cudaSuccess && cudaStreamSynchronize(a) == cudaSuccess && cudaEventQuery(e) == cudaSuccess);
        WANT(cudaMemcpyAsync(back, x, sizeof back, cudaMemcpyDeviceToHost, nullptr) == cudaSuccess);
        WANT(back[0] == 0);  // nothing has run yet
        WANT(cudaStreamSynchronize(nullptr) == cudaSuccess);
        for (uint32_t v : back) WANT(v == back[0]);
        results->insert(back[0]);
        WANT(cudaEventDestroy(e) == cudaSuccess && cudaStreamDestroy(a) == cudaSuccess && cudaStreamDestroy(b) == cudaSuccess && cudaFree(x) == cudaSuccess);
    }
    return 0;
}

// A host buffer that is changed before its copy has run: some seed shows it.
static int early_reuse()
{
    std::set<uint32_t> results;
    for (int seed = 0; seed < 16; seed++) {
        hostcuda::set_order(hostcuda::Order::RANDOM, (uint64_t)seed);
        uint32_t *x, staging[N] = {1}, back[N];
        cudaMalloc((void **)&x, sizeof back);
        cudaMemcpyAsync(x, staging, sizeof staging, cudaMemcpyHostToDevice, nullptr);
        cudaStreamQuery(nullptr);
        staging[0] = 2;
        cudaMemcpyAsync(back, x, sizeof back, cudaMemcpyDeviceToHost, nullptr);
        WANT(cudaDeviceSynchronize() == cudaSuccess);
        results.insert(back[0]);
        cudaFree(x);
    }
    WANT(results.size() == 2);
    return 0;
}

// Written down, work does not run; then it runs as often as it is launched, in its stream's order. What waits or allocates spoils the capture.
static int graph()
{
    uint32_t *x, *y, back[N] = {0};
    cudaStream_t s;
    cudaGraph_t g, spoilt;
    cudaGraphExec_t e;
    WANT(cudaMalloc((void **)&x, sizeof back) == cudaSuccess && cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) == cudaSuccess);
    WANT(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeThreadLocal) == cudaErrorInvalidValue);
    WANT(cudaMemsetAsync(x, 0, sizeof back, s) == cudaSuccess);
    WANT(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    for (int i = 0; i < 2; i++) WANT(CUDA_LAUNCH(times_and_plus, 1, N, 0, s, x, 2, 3) == cudaSuccess);
    WANT(cudaStreamEndCapture(s, &g) == cudaSuccess && cudaGraphInstantiate(&e, g, 0) == cudaSuccess && cudaGraphDestroy(g) == cudaSuccess);
    WANT(cudaMemcpyAsync(back, x, sizeof back, cudaMemcpyDeviceToHost, s) == cudaSuccess && cudaStreamSynchronize(s) == cudaSuccess && back[0] == 0);
    WANT(cudaGraphLaunch(e, s) == cudaSuccess && CUDA_LAUNCH(times_and_plus, 1, N, 0, s, x, 1, 1) == cudaSuccess && cudaGraphLaunch(e, s) == cudaSuccess);
    WANT(cudaMemcpyAsync(back, x, sizeof back, cudaMemcpyDeviceToHost, s) == cudaSuccess && cudaStreamSynchronize(s) == cudaSuccess && back[0] == 49);
    WANT(cudaGraphExecDestroy(e) == cudaSuccess);
    for (int i = 0; i < 4; i++) {
        const cudaError_t no = cudaErrorStreamCaptureUnsupported;
        WANT(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
        if (i == 0) WANT(cudaStreamSynchronize(s) == no);
        if (i == 1) WANT(cudaStreamQuery(s) == no);
        if (i == 2) WANT(cudaMalloc((void **)&y, 4) == no);
        if (i == 3) WANT(cudaFree(x) == no);
        WANT(CUDA_LAUNCH(times_and_plus, 1, N, 0, s, x, 2, 3) == cudaErrorStreamCaptureInvalidated);
        WANT(cudaStreamEndCapture(s, &spoilt) == cudaErrorStreamCaptureInvalidated && !spoilt);
    }
    WANT(cudaStreamSynchronize(s) == cudaSuccess && cudaStreamDestroy(s) == cudaSuccess && cudaFree(x) == cudaSuccess);
    return 0;
}

static int limits()
{
    uint32_t *x;
    WANT(cudaMalloc((void **)&x, N * 4) == cudaSuccess);
    WANT(CUDA_LAUNCH(fill, 1, N, 48 * 1024, nullptr, x) == cudaSuccess);
    WANT(CUDA_LAUNCH(fill, 1, N, 48 * 1024 + 1, nullptr, x) == cudaErrorInvalidValue && cudaGetLastError() == cudaErrorInvalidValue);
    WANT(cudaFuncSetAttribute((const void *)fill, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 * 1024 + 1) == cudaErrorInvalidValue);
    WANT(cudaFuncSetAttribute((const void *)fill, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 * 1024) == cudaSuccess);
    WANT(CUDA_LAUNCH(fill, 1, N, 100 * 1024, nullptr, x) == cudaSuccess);
    WANT(cudaDeviceSynchronize() == cudaSuccess);
    // A failure shows when somebody waits, and everything fails from then on.
    WANT(CUDA_LAUNCH(outside, 1, N, 0, nullptr, x) == cudaSuccess);
    WANT(cudaStreamSynchronize(nullptr) == cudaErrorLaunchFailure && strstr(hostcuda::report(), "outside: out of bounds"));
    WANT(CUDA_LAUNCH(fill, 1, N, 64, nullptr, x) == cudaErrorLaunchFailure && cudaDeviceSynchronize() == cudaErrorLaunchFailure);
    return 0;
}

int main()
{
    std::set<uint32_t> ordered, loose;
    if (two_streams(true, &ordered) || two_streams(false, &loose) || early_reuse() || graph() || limits()) return 1;
    WANT(ordered.size() == 1 && *ordered.begin() == 16);
    WANT(loose.size() == 2 && loose.count(5));
    return 0;
}
