// SPDX-License-Identifier: Apache-2.0
// par/par_device.h by NCCL. The communicator does not block: every call and the end of a group are asked for until they are done, and a
// failed or late one ends in ncclCommAbort, so that no rank waits for ever for one that is gone.
#include "par/par_device.h"

#include <nccl.h>
#include <sched.h>
#include <stddef.h>

#include "base/log.h"
#include "base/profile.h"
#include "par/par.h"

static ncclComm_t comm;

static Err give_up(const char *what, const char *why)
{
    if (comm) (void)ncclCommAbort(comm);
    comm = NULL;
    FAIL(ERR_UNAVAILABLE, "%s: NCCL: %s on rank %d (%s); NCCL_DEBUG=WARN says more", what, why, par_rank(), par_host());
}

// Until NCCL has done what it was asked for.
static Err settle(ncclResult_t r, const char *what)
{
    const double end = time_now() + DEVICE_PATIENCE;
    while (r == ncclInProgress && time_now() < end) {
        (void)sched_yield();
        if (ncclCommGetAsyncError(comm, &r) != ncclSuccess) r = ncclInternalError;
    }
    if (r == ncclInProgress) return give_up(what, "no answer in time");
    return r == ncclSuccess ? OK : give_up(what, ncclGetErrorString(r));
}
#define TRY_NCCL(call) TRY(settle((call), __func__))

// Inside a group nothing is done before its end.
static Err queued(ncclResult_t r, const char *what)
{
    return r == ncclSuccess || r == ncclInProgress ? OK : give_up(what, ncclGetErrorString(r));
}

static Err make_id(ncclUniqueId *id)
{
    const ncclResult_t r = ncclGetUniqueId(id);
    CHECK(r == ncclSuccess, ERR_UNAVAILABLE, "NCCL does not start: %s; NCCL_DEBUG=WARN says more", ncclGetErrorString(r));
    return OK;
}

static Err join(ncclUniqueId id)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    TRY_NCCL(ncclCommInitRankConfig(&comm, par_size(), id, par_rank(), &config));
    return OK;
}

Err par_device_open(Device *d)
{
    ncclUniqueId id;
    (void)d;
    ASSERT(!comm);
    if (par_size() == 1) return OK;
    TRY(par_agree(par_rank() == 0 ? make_id(&id) : OK));
    TRY(par_bcast(&id, (int64_t)sizeof id, 0));
    return par_agree(join(id));
}

void par_device_close(void)
{
    if (comm) (void)ncclCommDestroy(comm);
    comm = NULL;
}

Err par_device_sum_i64(Device *d, int64_t *x, const ParRange *of)
{
    PROFILE(PHASE_COMM);
    if (!comm) return OK;
    TRY(queued(ncclGroupStart(), __func__));
    for (int r = 0; r < par_size(); r++) {
        int64_t *const at = x + of[r].begin;
        if (of[r].begin < of[r].end)
            TRY(queued(ncclReduce(at, at, (size_t)(of[r].end - of[r].begin), ncclInt64, ncclSum, r, comm, device_stream(d)), __func__));
    }
    TRY_NCCL(ncclGroupEnd());
    return OK;
}

Err par_device_share(Device *d, void *x, int64_t size, const ParRange *of)
{
    PROFILE(PHASE_COMM);
    if (!comm) return OK;
    TRY(queued(ncclGroupStart(), __func__));
    for (int r = 0; r < par_size(); r++) {
        char *const at = (char *)x + of[r].begin * size;
        if (of[r].begin < of[r].end)
            TRY(queued(ncclBroadcast(at, at, (size_t)((of[r].end - of[r].begin) * size), ncclInt8, r, comm, device_stream(d)), __func__));
    }
    TRY_NCCL(ncclGroupEnd());
    return OK;
}

Err par_device_wait(Device *d)
{
    PROFILE(PHASE_WAIT);
    const double end = time_now() + DEVICE_PATIENCE;
    bool ready = false;
    ncclResult_t r = ncclSuccess;
    if (!comm) return device_wait(d);
    for (;;) {
        TRY(device_ready(d, &ready));
        if (ready) return OK;
        if (ncclCommGetAsyncError(comm, &r) != ncclSuccess || (r != ncclSuccess && r != ncclInProgress))
            return give_up("waiting for other ranks", ncclGetErrorString(r));
        if (time_now() >= end) return give_up("waiting for other ranks", "no answer in time");
        (void)sched_yield();
    }
}
