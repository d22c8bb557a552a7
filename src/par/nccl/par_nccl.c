// SPDX-License-Identifier: Apache-2.0
// par/par_device.h by NCCL. The communicator does not block: every call and the end of a group are asked for until they are done, and
// waiting is asking. What has failed or is late is given up: ncclCommAbort ends the collectives that are under way, on the device too.
//
// Who asks: the main thread while it waits, which also hears other ranks' alarms (par.h); and a thread of its own, since the main thread may
// sit in a call of CUDA (a full queue of launches, cudaFree) behind a collective that never ends. That thread sees what NCCL says, the
// clock and the alarms of its node. It never calls MPI, and the main thread alone begins collectives.
#include "par/par_device.h"

#include <nccl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "base/profile.h"
#include "par/par.h"

enum {
    LOOK_EVERY = 20 * 1000,  // microseconds
    LINK_BLOCKS = 16         // blocks of a collective at most: it runs beside ops, which want the other processors
};

static struct {
    bool open;             // with several ranks
    pthread_t thread;
    pthread_mutex_t lock;  // of all that follows: NCCL's calls end at once
    bool end;              // of the thread
    ncclComm_t comm;       // NULL: given up
    ncclResult_t state;    // what it last said
    bool busy;             // collectives were begun and have not been seen to end
    Device *on;            // in whose stream the last one is
    int64_t since;         // agreements that had ended then
    double late;           // time at which they are
    ParBlame blame;
    char why[128];         // it was given up
} g = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void lock(void) { (void)pthread_mutex_lock(&g.lock); }
static void unlock(void) { (void)pthread_mutex_unlock(&g.lock); }

// --- with the lock -------------------------------------------------------------------------------------------------------------

static void give_up(const char *why, ParBlame blame)
{
    if (!g.comm) return;
    (void)ncclCommAbort(g.comm);
    g.comm = NULL;
    g.blame = blame;
    (void)snprintf(g.why, sizeof g.why, "%s", why);
}

static void look(void)
{
    if (!g.comm || !g.busy) return;
    if (ncclCommGetAsyncError(g.comm, &g.state) != ncclSuccess) g.state = ncclInternalError;
    if (g.state != ncclSuccess && g.state != ncclInProgress) give_up(ncclGetErrorString(g.state), BLAME_LINK);
    else if (par_alarm_on_node(g.since)) give_up("another rank has failed", BLAME_OTHER);
    else if (time_now() >= g.late) give_up("no answer in time", BLAME_LINK);
}

static void wait_begins(void)
{
    if (!g.busy) g.since = par_agreements();
    g.late = time_now() + DEVICE_PATIENCE;
}

static void begin(void)
{
    wait_begins();
    g.busy = true;
}

// --- the thread ----------------------------------------------------------------------------------------------------------------

static void *watch(void *unused)
{
    for (bool end = false; !end;) {
        lock();
        look();
        end = g.end;
        unlock();
        if (!end) (void)usleep(LOOK_EVERY);
    }
    return unused;
}

// Signals are the main thread's.
static Err start_thread(void)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    const int rc = pthread_create(&g.thread, NULL, watch, NULL);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    CHECK(rc == 0, ERR_UNAVAILABLE, "no thread could be started on %s", par_host());
    g.open = true;
    return OK;
}

static void end_thread(void)
{
    lock();
    g.end = true;
    unlock();
    (void)pthread_join(g.thread, NULL);
    g.open = g.end = false;
}

// --- the main thread -------------------------------------------------------------------------------------------------------------

static Err lost(const char *what)
{
    par_blame(g.blame);
    FAIL(ERR_UNAVAILABLE, "%s: NCCL: %s on rank %d (%s); NCCL_DEBUG=WARN says more", what, g.why, par_rank(), par_host());
}

// state: what NCCL said; may be NULL.
static Err still_there(const char *what, ncclResult_t *state)
{
    bool heard = false;
    TRY(par_alarm_heard(g.since, &heard));
    lock();
    if (heard) give_up("another rank has failed", BLAME_OTHER);
    look();
    const bool there = g.comm;
    if (state) *state = g.state;
    unlock();
    if (!there) return lost(what);
    (void)sched_yield();
    return OK;
}

static void all_ended(void)
{
    lock();
    g.busy = false;
    unlock();
}

// Collectives may go on beside what was waited for.
static Err see_whether_ended(Device *d)
{
    bool ended = true;
    if (g.busy && g.on != d) TRY(device_ready(g.on, &ended));
    if (ended) all_ended();
    return OK;
}

// Until NCCL has done what it was asked for, with the lock: r is its answer.
static Err settle(ncclResult_t r, const char *what)
{
    if (r != ncclSuccess && r != ncclInProgress) give_up(ncclGetErrorString(r), BLAME_LINK);
    g.state = r;
    unlock();
    do TRY(still_there(what, &r));
    while (r == ncclInProgress);
    return OK;
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
    config.maxCTAs = LINK_BLOCKS;
    TRY(start_thread());
    lock();
    begin();
    TRY(settle(ncclCommInitRankConfig(&g.comm, par_size(), id, par_rank(), &config), "joining the other ranks"));
    all_ended();
    return OK;
}

Err par_device_open(Device *d)
{
    ncclUniqueId id;
    (void)d;
    ASSERT(!g.open);
    if (par_size() == 1) return OK;
    g.busy = false, g.why[0] = '\0';
    TRY(par_alarm_open());
    TRY(par_agree(par_rank() == 0 ? make_id(&id) : OK));
    TRY(par_bcast(&id, (int64_t)sizeof id, 0));
    return par_agree(join(id));
}

// After a failure nobody waits for the others.
void par_device_close(void)
{
    if (g.open) {
        end_thread();
        if (g.comm) (void)(par_agreed() || g.busy ? ncclCommAbort(g.comm) : ncclCommDestroy(g.comm));
        g.comm = NULL;
    }
    par_alarm_close();
}

// A group of collectives, ranks in ascending order: one for each that has a part.
typedef ncclResult_t Collective(void *x, ParRange of, int64_t size, int rank, cudaStream_t s);

static ncclResult_t group(Collective *collective, void *x, int64_t size, const ParRange *of, cudaStream_t s)
{
    ncclResult_t r = ncclGroupStart();
    for (int k = 0; k < par_size() && (r == ncclSuccess || r == ncclInProgress); k++)
        if (of[k].begin < of[k].end) r = collective((char *)x + of[k].begin * size, of[k], size, k, s);
    const ncclResult_t end = ncclGroupEnd();
    return r == ncclSuccess || r == ncclInProgress ? end : r;
}

static Err collect(Collective *collective, Device *d, void *x, int64_t size, const ParRange *of, const char *what)
{
    PROFILE(PHASE_COMM);
    if (!g.open) return OK;
    lock();
    begin();
    g.on = d;
    const bool there = g.comm;
    if (there) return settle(group(collective, x, size, of, device_stream(d)), what);
    unlock();
    return lost(what);
}

static ncclResult_t reduce(void *x, ParRange of, int64_t size, int rank, cudaStream_t s)
{
    (void)size;
    return ncclReduce(x, x, (size_t)(of.end - of.begin), ncclInt64, ncclSum, rank, g.comm, s);
}

static ncclResult_t broadcast(void *x, ParRange of, int64_t size, int rank, cudaStream_t s)
{
    return ncclBroadcast(x, x, (size_t)((of.end - of.begin) * size), ncclInt8, rank, g.comm, s);
}

Err par_device_sum_i64(Device *d, int64_t *x, const ParRange *of)
{
    return collect(reduce, d, x, (int64_t)sizeof *x, of, "summing over ranks");
}

Err par_device_share(Device *d, void *x, int64_t size, const ParRange *of) { return collect(broadcast, d, x, size, of, "sending to ranks"); }

Err par_device_wait(Device *d)
{
    PROFILE(PHASE_WAIT);
    bool ready = false;
    if (!g.open) return device_wait(d);
    lock();
    wait_begins();
    unlock();
    while (!ready) {
        TRY(device_ready(d, &ready));
        TRY(still_there("waiting for other ranks", NULL));
    }
    return see_whether_ended(d);
}
