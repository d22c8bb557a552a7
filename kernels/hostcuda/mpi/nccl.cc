// SPDX-License-Identifier: Apache-2.0
// NCCL over MPI: a collective runs when its stream comes to it, and waits there for the other ranks. What it reads must have been written,
// what it writes must be memory of the device (shadow.cc). A communicator that does not block says so once a call before it is done.
#include "kernels/hostcuda/mpi/nccl.h"

#include "kernels/hostcuda/block.hpp"
#include "kernels/hostcuda/cuda_runtime.h"

#define OMPI_SKIP_MPICXX 1  // the C++ bindings of old
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

struct ncclComm {
    MPI_Comm mpi;
    int ranks, rank;
    bool blocking, busy;
};

namespace {

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

// `to` may be `from`. MPI counts in int: pieces.
cudaError_t reduce(ncclComm_t c, const int64_t *from, int64_t *to, size_t n, int root)
{
    const size_t PIECE = 1 << 20;
    std::vector<int64_t> mine(std::min(n, PIECE)), sum(mine.size());
    for (size_t at = 0; at < n; at += PIECE) {
        const size_t some = std::min(n - at, PIECE);
        if (!hostcuda::device_read(mine.data(), from + at, some * 8)) return cudaErrorInvalidValue;
        if (MPI_Reduce(mine.data(), sum.data(), (int)some, MPI_INT64_T, MPI_SUM, root, c->mpi) != MPI_SUCCESS) return cudaErrorLaunchFailure;
        if (c->rank == root && !hostcuda::device_write(to + at, sum.data(), some * 8)) return cudaErrorInvalidValue;
    }
    return cudaSuccess;
}

cudaError_t broadcast(ncclComm_t c, const char *from, char *to, size_t bytes, int root)
{
    const size_t PIECE = 1 << 23;
    std::vector<char> data(std::min(bytes, PIECE));
    for (size_t at = 0; at < bytes; at += PIECE) {
        const size_t some = std::min(bytes - at, PIECE);
        if (c->rank == root && !hostcuda::device_read(data.data(), from + at, some)) return cudaErrorInvalidValue;
        if (MPI_Bcast(data.data(), (int)some, MPI_BYTE, root, c->mpi) != MPI_SUCCESS) return cudaErrorLaunchFailure;
        if (!hostcuda::device_write(to + at, data.data(), some)) return cudaErrorInvalidValue;
    }
    return cudaSuccess;
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
    ncclComm *c = new ncclComm{MPI_COMM_NULL, ranks, rank, config->blocking != 0, false};
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
    *error = comm->busy ? ncclInProgress : ncclSuccess;
    comm->busy = false;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) { return delete comm, ncclSuccess; }  // the others may be gone: MPI is not asked

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
    return submit(comm, {stream, [=] { return reduce(comm, (const int64_t *)from, (int64_t *)to, n, root); }});
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t n, ncclDataType_t type, int root, ncclComm_t comm, cudaStream_t stream)
{
    if (comm->busy) return ncclInvalidUsage;
    const size_t size = type == ncclInt8 ? 1 : type == ncclInt64 ? 8 : type == ncclFloat32 ? 4 : 0;
    if (!size || root < 0 || root >= comm->ranks) return ncclInvalidArgument;
    return submit(comm, {stream, [=] { return broadcast(comm, (const char *)from, (char *)to, n * size, root); }});
}

}  // extern "C"
