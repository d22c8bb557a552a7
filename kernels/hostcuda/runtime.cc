// SPDX-License-Identifier: Apache-2.0
// Streams and events: lazy queues whose order the seed decides. Graphs: queues that were written down.
#include "kernels/hostcuda/cuda_runtime.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "kernels/hostcuda/block.hpp"
#include "kernels/hostcuda/cuda.h"
#include "kernels/hostcuda/nvtx3/nvToolsExt.h"

// Recorded `wanted` times, of which `reached` have run.
struct CUevent_st {
    uint64_t wanted = 0, reached = 0;
};

namespace {

// One piece of work. It can run when its event (NULL: none) has been reached that often.
struct Work {
    std::function<cudaError_t()> go;
    std::shared_ptr<CUevent_st> after;
    uint64_t times = 0;
};

}  // namespace

struct CUgraph_st {
    std::deque<Work> queue;
};
struct CUgraphExec_st : CUgraph_st {};

struct CUstream_st {
    std::deque<Work> queue;
    std::unique_ptr<CUgraph_st> capture;  // where work goes instead; NULL: it captures nothing
    bool spoilt = false;                  // the capture
};

namespace {

CUstream_st standard;
std::vector<CUstream_st *> streams = {&standard};
std::map<CUevent_st *, std::shared_ptr<CUevent_st>> events;  // waits keep a destroyed event alive
std::map<const void *, int> shared_limit;                    // by kernel
cudaError_t sticky, last;

enum { SHARED_PLAIN = 48 * 1024 };

CUstream_st *known(cudaStream_t s)
{
    if (!s) return &standard;
    for (CUstream_st *each : streams)
        if (each == s) return each;
    return nullptr;
}

cudaError_t fail(cudaError_t e)
{
    if (e != cudaSuccess && e != cudaErrorNotReady) last = e;
    return e;
}

// Whoever waits or touches memory while a stream captures spoils the capture.
bool spoils()
{
    bool any = false;
    for (CUstream_st *s : streams)
        if (s->capture) any = s->spoilt = true;
    return any;
}

bool can_run(const CUstream_st *s) { return !s->queue.empty() && (!s->queue.front().after || s->queue.front().after->reached >= s->queue.front().times); }

// Runs one operation of some stream; false: none can.
bool run_one()
{
    std::vector<CUstream_st *> ready;
    for (CUstream_st *s : streams)
        if (can_run(s)) ready.push_back(s);
    if (ready.empty()) return false;
    CUstream_st *s = ready[hostcuda::stream_bits() % ready.size()];
    Work w = std::move(s->queue.front());
    s->queue.pop_front();
    const cudaError_t e = sticky == cudaSuccess ? w.go() : sticky;  // after a failure nothing runs any more
    if (e == cudaErrorNotReady) s->queue.push_front(std::move(w));
    else if (e != cudaSuccess) sticky = e;
    return true;
}

template <typename Done> cudaError_t run_until(Done done)
{
    if (spoils()) return fail(cudaErrorStreamCaptureUnsupported);
    while (!done())
        if (!run_one()) return fail(cudaErrorInvalidResourceHandle);  // waits for an event that nobody records
    return sticky != cudaSuccess ? fail(sticky) : cudaSuccess;
}

// A question lets some work happen, so that polling comes to an end.
void run_some()
{
    for (unsigned n = hostcuda::stream_bits() % 3; n; n--)
        if (!run_one()) return;
}

cudaError_t put(cudaStream_t stream, Work w, bool captured = true)
{
    CUstream_st *s = known(stream);
    if (!s) return fail(cudaErrorInvalidResourceHandle);
    if (sticky != cudaSuccess) return fail(sticky);
    if (s->spoilt) return fail(cudaErrorStreamCaptureInvalidated);
    if (s->capture && !captured) return s->spoilt = true, fail(cudaErrorStreamCaptureUnsupported);
    (s->capture ? s->capture->queue : s->queue).push_back(std::move(w));
    return cudaSuccess;
}

}  // namespace

cudaError_t hostcuda::enqueue(cudaStream_t s, std::function<bool()> launch_it, const void *kernel, size_t shared_bytes)
{
    const auto limit = shared_limit.find(kernel);
    if (shared_bytes > (size_t)(limit == shared_limit.end() ? SHARED_PLAIN : limit->second)) return fail(cudaErrorInvalidValue);
    return put(s, {[launch_it] { return launch_it() ? cudaSuccess : cudaErrorLaunchFailure; }, nullptr});
}

cudaError_t hostcuda::enqueue_call(cudaStream_t s, std::function<cudaError_t()> call) { return put(s, {std::move(call), nullptr}); }

static int &architecture_now()
{
    static const char *wanted = getenv("HOSTCUDA_SM");
    static int now = wanted ? atoi(wanted) : 90;
    return now;
}

int hostcuda::architecture() { return architecture_now(); }
void hostcuda::set_architecture(int sm) { architecture_now() = sm; }

extern "C" {

const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    }
    return "unknown error";
}

cudaError_t cudaGetLastError(void)
{
    const cudaError_t e = last;
    last = sticky;
    return e;
}

static const int DEVICES = 8;  // all the same; a rank takes one of its own

cudaError_t cudaGetDeviceCount(int *n) { return *n = DEVICES, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return device >= 0 && device < DEVICES ? cudaSuccess : fail(cudaErrorInvalidValue); }

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    if (device < 0 || device >= DEVICES) return fail(cudaErrorInvalidValue);
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? hostcuda::architecture() / 10 : hostcuda::architecture() % 10;
    return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *found)
{
    if (flags != cudaEnableDefault) return fail(cudaErrorInvalidValue);
    const bool known_name = !strcmp(name, "cuTensorMapEncodeTiled");
    *function = known_name && version >= 12000 ? (void *)cuTensorMapEncodeTiled : nullptr;
    *found = *function ? cudaDriverEntryPointSuccess : known_name ? cudaDriverEntryPointVersionNotSufficent : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *unused, size_t *all) { return *unused = *all = (size_t)80 << 30, cudaSuccess; }

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    if (spoils()) return fail(cudaErrorStreamCaptureUnsupported);
    return (*p = hostcuda::device_alloc(bytes)) ? cudaSuccess : fail(cudaErrorMemoryAllocation);
}

cudaError_t cudaMallocManaged(void **p, size_t bytes, unsigned)
{
    const cudaError_t e = cudaMalloc(p, bytes);
    return e != cudaSuccess || hostcuda::device_set(*p, 0, bytes) ? e : fail(cudaErrorInvalidValue);
}

cudaError_t cudaFree(void *p)
{
    const cudaError_t e = cudaDeviceSynchronize();  // as the device does
    if (e == cudaErrorStreamCaptureUnsupported) return e;
    hostcuda::device_free(p);
    return e;
}

cudaError_t cudaMallocHost(void **p, size_t bytes) { return (*p = malloc(bytes)) ? cudaSuccess : fail(cudaErrorMemoryAllocation); }
cudaError_t cudaFreeHost(void *p) { return free(p), cudaSuccess; }

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t s)
{
    const auto go = [=] {
        bool good;
        if (kind == cudaMemcpyHostToDevice) good = hostcuda::device_write(to, from, bytes);
        else if (kind == cudaMemcpyDeviceToHost) good = hostcuda::device_read(to, from, bytes);
        else good = hostcuda::device_copy(to, from, bytes);
        return good ? cudaSuccess : cudaErrorInvalidValue;
    };
    return put(s, {go, nullptr});
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t s)
{
    return put(s, {[=] { return hostcuda::device_set(to, value, bytes) ? cudaSuccess : cudaErrorInvalidValue; }, nullptr});
}

// ---- streams ----------------------------------------------------------------------------------------------------------

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    streams.push_back(*s = new CUstream_st);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int) { return cudaStreamCreateWithFlags(s, flags); }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { return *least = 0, *greatest = -5, cudaSuccess; }

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    if (!s || !known(s)) return fail(cudaErrorInvalidResourceHandle);
    const cudaError_t e = cudaStreamSynchronize(s);
    for (size_t i = 0; i < streams.size(); i++)
        if (streams[i] == s) streams.erase(streams.begin() + (long)i--);
    delete s;
    return e;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    const auto found = events.find(e);
    if (found == events.end()) return fail(cudaErrorInvalidResourceHandle);
    return put(s, {[] { return cudaSuccess; }, found->second, found->second->wanted}, false);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    CUstream_st *s = known(stream);
    if (!s) return fail(cudaErrorInvalidResourceHandle);
    if (s->capture) return s->spoilt = true, fail(cudaErrorStreamCaptureUnsupported);
    run_some();
    return sticky != cudaSuccess ? fail(sticky) : s->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    CUstream_st *s = known(stream);
    return s ? run_until([s] { return s->queue.empty(); }) : fail(cudaErrorInvalidResourceHandle);
}

cudaError_t cudaDeviceSynchronize(void)
{
    return run_until([] {
        for (CUstream_st *s : streams)
            if (!s->queue.empty()) return false;
        return true;
    });
}

// ---- graphs -----------------------------------------------------------------------------------------------------------

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode)
{
    CUstream_st *s = known(stream);
    if (!s || !stream || s->capture) return fail(cudaErrorInvalidValue);  // never the default stream
    s->capture.reset(new CUgraph_st);
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    CUstream_st *s = known(stream);
    *graph = nullptr;
    if (!s || !s->capture) return fail(cudaErrorInvalidValue);
    const bool spoilt = s->spoilt;
    CUgraph_st *made = s->capture.release();
    s->spoilt = false;
    if (spoilt) return delete made, fail(cudaErrorStreamCaptureInvalidated);
    *graph = made;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    *exec = new CUgraphExec_st{{graph->queue}};
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s)
{
    for (const Work &w : exec->queue) {
        const cudaError_t e = put(s, w);
        if (e != cudaSuccess) return e;
    }
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return delete exec, cudaSuccess; }

// ---- events -----------------------------------------------------------------------------------------------------------

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    auto made = std::make_shared<CUevent_st>();
    *e = made.get();
    events[*e] = std::move(made);
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e) { return events.erase(e) ? cudaSuccess : fail(cudaErrorInvalidResourceHandle); }

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    const auto found = events.find(e);
    if (found == events.end()) return fail(cudaErrorInvalidResourceHandle);
    const std::shared_ptr<CUevent_st> event = found->second;
    const uint64_t time = ++event->wanted;
    return put(s, {[event, time] { return event->reached = time, cudaSuccess; }, nullptr}, false);
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
    const auto found = events.find(e);
    if (found == events.end()) return fail(cudaErrorInvalidResourceHandle);
    run_some();
    return sticky != cudaSuccess ? fail(sticky) : e->reached >= e->wanted ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    const auto found = events.find(e);
    return found == events.end() ? fail(cudaErrorInvalidResourceHandle) : run_until([e] { return e->reached >= e->wanted; });
}

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute what, int value)
{
    if (what != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0) return fail(cudaErrorInvalidValue);
    if (value > (hostcuda::architecture() < 90 ? 163 : 227) * 1024) return fail(cudaErrorInvalidValue);
    shared_limit[kernel] = value;
    return cudaSuccess;
}

// ---- ranges -----------------------------------------------------------------------------------------------------------

static int ranges;
int nvtxRangePushA(const char *) { return ranges++; }
int nvtxRangePop(void) { return ranges > 0 ? --ranges : -1; }

}  // extern "C"
