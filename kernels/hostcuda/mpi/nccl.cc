// SPDX-License-Identifier: Apache-2.0
// NCCL over MPI: a collective runs when its stream comes to it, and the stream stays there until the other ranks have come or the communicator
// is aborted. What it reads must have been written, what it writes must be memory of the device (shadow.cc). A communicator that does not
// block says so once a call before it is done.
#include "kernels/hostcuda/mpi/nccl.h"

#include "kernels/hostcuda/block.hpp"
#include "kernels/hostcuda/cuda_runtime.h"

#define OMPI_SKIP_MPICXX 1  // the C++ bindings of old
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <sched.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

struct ncclComm {
    MPI_Comm mpi;
    int ranks, rank;
    bool blocking, busy;
    std::atomic<bool> aborted;
};

namespace {

std::atomic<bool> broken;
int depth = 0;  // of open groups
struct Call {
    cudaStream_t stream;
    std::function<cudaError_t()> run;
};
std::vector<Call> group;
ncclComm_t grouped = nullptr;

ncclResult_t done(ncclComm_t c)
{
    if (c->blocking) return ncclSuccess;
    c->busy = true;
    return ncclInProgress;
}

ncclResult_t submit(ncclComm_t c, Call call)
{
    if (depth) return grouped = c, group.push_back(std::move(call)), ncclSuccess;
    if (hostcuda::enqueue_call(call.stream, std::move(call.run)) != cudaSuccess) return ncclInvalidUsage;
    return done(c);
}

// One collective, piece by piece: MPI counts in int. `begin` starts a piece, `end` takes what it has brought.
template <typename T> struct Collective {
    static const size_t PIECE = 1 << 20;
    ncclComm_t comm;
    size_t n, at = 0;
    std::function<int(Collective &, int some, MPI_Request *)> begin;
    std::function<bool(Collective &, size_t some)> end;
    std::vector<T> mine = std::vector<T>(std::min(n, PIECE)), sum = mine;
    MPI_Request request = MPI_REQUEST_NULL;
    bool under_way = false;

    // Nobody comes any more. MPI may still write here: it is never freed.
    static cudaError_t leave(std::shared_ptr<Collective> c)
    {
        if (c->under_way) new std::shared_ptr<Collective>(std::move(c));
        return cudaSuccess;
    }

    static cudaError_t go(std::shared_ptr<Collective> c)
    {
        int done = 0;
        for (; c->at < c->n; c->at += PIECE) {
            const size_t some = std::min(c->n - c->at, PIECE);
            if (c->comm->aborted) return leave(c);
            if (!c->under_way && c->begin(*c, (int)some, &c->request) != MPI_SUCCESS) return cudaErrorInvalidValue;
            c->under_way = true;
            if (MPI_Test(&c->request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) return cudaErrorLaunchFailure;
            if (!done) return sched_yield(), cudaErrorNotReady;
            c->under_way = false;
            if (!c->end(*c, some)) return cudaErrorInvalidValue;
        }
        return cudaSuccess;
    }
};

template <typename T, typename Begin, typename End> std::function<cudaError_t()> collective(ncclComm_t comm, size_t n, Begin begin, End end)
{
    std::shared_ptr<Collective<T>> c(new Collective<T>{comm, n, 0, begin, end});
    return [c] { return Collective<T>::go(c); };
}

// `to` may be `from`.
std::function<cudaError_t()> reduce(ncclComm_t comm, const int64_t *from, int64_t *to, size_t n, int root)
{
    using C = Collective<int64_t>;
    return collective<int64_t>(
        comm, n,
        [=](C &c, int some, MPI_Request *request) {
            if (!hostcuda::device_read(c.mine.data(), from + c.at, (size_t)some * 8)) return MPI_ERR_BUFFER;
            return MPI_Ireduce(c.mine.data(), c.sum.data(), some, MPI_INT64_T, MPI_SUM, root, comm->mpi, request);
        },
        [=](C &c, size_t some) { return comm->rank != root || hostcuda::device_write(to + c.at, c.sum.data(), some * 8); });
}

std::function<cudaError_t()> broadcast(ncclComm_t comm, const char *from, char *to, size_t bytes, int root)
{
    using C = Collective<char>;
    return collective<char>(
        comm, bytes,
        [=](C &c, int some, MPI_Request *request) {
            if (comm->rank == root && !hostcuda::device_read(c.mine.data(), from + c.at, (size_t)some)) return MPI_ERR_BUFFER;
            return MPI_Ibcast(c.mine.data(), some, MPI_BYTE, root, comm->mpi, request);
        },
        [=](C &c, size_t some) { return hostcuda::device_write(to + c.at, c.mine.data(), some); });
}

}  // namespace

extern "C" {

const char *ncclGetErrorString(ncclResult_t r)
{
    switch (r) {
    case ncclSuccess: return "no error";
    case ncclSystemError: return "unhandled system error";
    case ncclInternalError: return "internal error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclInProgress: return "NCCL operation in progress";
    }
    return "unknown result code";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    memset(id, 0, sizeof *id);
    memcpy(id->internal, "hostcuda", 8);
    id->internal[8] = (char)rank;
    return ncclSuccess;
}

// All ranks must have the id of one of them.
ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t *config)
{
    int size, own;
    ncclUniqueId first = id;
    ncclComm *c = new ncclComm{MPI_COMM_NULL, ranks, rank, config->blocking != 0, false, {false}};
    MPI_Comm_dup(MPI_COMM_WORLD, &c->mpi);
    MPI_Comm_size(c->mpi, &size);
    MPI_Comm_rank(c->mpi, &own);
    MPI_Bcast(&first, (int)sizeof first, MPI_BYTE, 0, c->mpi);
    *comm = c;
    if (size != ranks || own != rank || memcmp(&first, &id, sizeof id)) return ncclInvalidArgument;
    return done(c);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    *error = broken ? ncclSystemError : comm->busy ? ncclInProgress : ncclSuccess;
    comm->busy = false;
    return ncclSuccess;
}

void hostcuda_nccl_break(void) { broken = true; }

// The others may be gone: MPI is not asked. Streams may still come to its collectives: it is never freed.
ncclResult_t ncclCommAbort(ncclComm_t comm) { return comm->aborted = true, ncclSuccess; }

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    if (comm->busy) return ncclInvalidUsage;
    MPI_Comm_free(&comm->mpi);
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclGroupStart(void) { return depth++, ncclSuccess; }

ncclResult_t ncclGroupEnd(void)
{
    if (!depth) return ncclInvalidUsage;
    if (--depth) return ncclSuccess;
    for (Call &call : group)
        if (hostcuda::enqueue_call(call.stream, std::move(call.run)) != cudaSuccess) return ncclInvalidUsage;
    const bool any = !group.empty();
    group.clear();
    return any ? done(grouped) : ncclSuccess;
}

ncclResult_t ncclReduce(const void *from, void *to, size_t n, ncclDataType_t type, ncclRedOp_t op, int root, ncclComm_t comm, cudaStream_t stream)
{
    if (comm->busy) return ncclInvalidUsage;
    if (type != ncclInt64 || op != ncclSum || root < 0 || root >= comm->ranks) return ncclInvalidArgument;
    return submit(comm, {stream, reduce(comm, (const int64_t *)from, (int64_t *)to, n, root)});
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t n, ncclDataType_t type, int root, ncclComm_t comm, cudaStream_t stream)
{
    if (comm->busy) return ncclInvalidUsage;
    const size_t size = type == ncclInt8 ? 1 : type == ncclInt64 ? 8 : type == ncclFloat32 ? 4 : 0;
    if (!size || root < 0 || root >= comm->ranks) return ncclInvalidArgument;
    return submit(comm, {stream, broadcast(comm, (const char *)from, (char *)to, n * size, root)});
}

}  // extern "C"
