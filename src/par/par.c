// SPDX-License-Identifier: Apache-2.0
#include "par/par.h"

#include <errno.h>
#include <fcntl.h>
#include <mpi.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/profile.h"
#include "base/stop.h"

enum { CHUNK = 1 << 30, TAG_QUEUE_ASK = 901, TAG_QUEUE_ITEM = 902, TAG_STOP = 903, TAG_ALARM = 904 };

static struct {
    MPI_Comm world, node;
    int rank, size, node_id, node_rank, node_size;
    char host[MPI_MAX_PROCESSOR_NAME];
    char library[256];
    bool agreed;  // all ranks know that there was an error
    ParCounts count;
    bool stop;    // a rank was asked to end, and this one has passed the word
    bool relay;   // ranks work on their own (the same on all): who waits for them passes the word
    _Atomic int64_t agreements;  // that have ended
    ParBlame blame;              // of the next error
    _Atomic int64_t *alarm;      // shared by the node: the agreement before which a rank failed, + 1; NULL: not open
    int64_t alarmed, heard;      // what this rank sends, and the newest that it heard of, counted likewise
} g = {.size = 1, .node_size = 1};

static Err mpi_failed(int rc, const char *call, const char *file, int line)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    MPI_Error_string(rc, text, &n);
    return err_raise(ERR_INTERNAL, call, file, line, "MPI call failed on rank %d (%s): %s", g.rank, g.host, text);
}

#define TRY_MPI(call)                                                             \
    do {                                                                          \
        int rc_ = (call);                                                         \
        if (rc_ != MPI_SUCCESS) return mpi_failed(rc_, #call, __FILE__, __LINE__); \
    } while (0)

#define TRY_ALL(call)          \
    do {                       \
        g.count.collectives++; \
        TRY_MPI(call);         \
    } while (0)

static void count_message(int64_t bytes)
{
    g.count.messages++;
    g.count.bytes += bytes;
}

void par_counts_take(ParCounts *out)
{
    *out = g.count;
    g.count = (ParCounts){0};
}

// Ranks of one host form a node; IMF_NODES=k cuts the world into k equal pretended nodes instead.
static Err split_nodes(void)
{
    const char *pretend = getenv("IMF_NODES");
    int k = pretend ? atoi(pretend) : 0;
    if (k > 0) {
        if (k > g.size) k = g.size;
        g.node_id = (int)((int64_t)g.rank * k / g.size);
        TRY_MPI(MPI_Comm_split(g.world, g.node_id, g.rank, &g.node));
    } else {
        TRY_MPI(MPI_Comm_split_type(g.world, MPI_COMM_TYPE_SHARED, g.rank, MPI_INFO_NULL, &g.node));
    }
    TRY_MPI(MPI_Comm_rank(g.node, &g.node_rank));
    TRY_MPI(MPI_Comm_size(g.node, &g.node_size));
    if (k > 0) return OK;
    int leader = g.node_rank == 0, before = 0;
    TRY_MPI(MPI_Exscan(&leader, &before, 1, MPI_INT, MPI_SUM, g.world));
    g.node_id = g.rank == 0 ? 0 : before;
    TRY_MPI(MPI_Bcast(&g.node_id, 1, MPI_INT, 0, g.node));
    return OK;
}

Err par_init(int *argc, char ***argv)
{
    int granted;
    TRY_MPI(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &granted));
    TRY_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &g.world));
    TRY_MPI(MPI_Comm_set_errhandler(g.world, MPI_ERRORS_RETURN));
    TRY_MPI(MPI_Comm_rank(g.world, &g.rank));
    TRY_MPI(MPI_Comm_size(g.world, &g.size));
    int n = 0;
    TRY_MPI(MPI_Get_processor_name(g.host, &n));
    return split_nodes();
}

void par_finish(void)
{
    int initialized = 0;
    MPI_Initialized(&initialized);
    if (!initialized) return;
    MPI_Comm_free(&g.node);
    MPI_Comm_free(&g.world);
    MPI_Finalize();
}

void par_abort(int code)
{
    int initialized = 0;
    MPI_Initialized(&initialized);
    if (initialized) MPI_Abort(MPI_COMM_WORLD, code);
    _exit(code);
}

int par_rank(void) { return g.rank; }
int par_size(void) { return g.size; }
int par_node(void) { return g.node_id; }
int par_node_rank(void) { return g.node_rank; }
int par_node_size(void) { return g.node_size; }
const char *par_host(void) { return g.host; }

// Before MPI_Init too.
const char *par_library(void)
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int n;
    if (!*g.library && MPI_Get_library_version(text, &n) == MPI_SUCCESS) {
        text[strcspn(text, ",\n")] = '\0';
        snprintf(g.library, sizeof g.library, "%.255s", text);
    }
    return g.library;
}

const void *par_comm(void) { return &g.world; }

static bool alone(void) { return g.size == 1; }

// --- ending on request ------------------------------------------------------------------------------------------------

static Err send_word(int to)
{
    MPI_Request request;
    TRY_MPI(MPI_Isend("", 0, MPI_BYTE, to, TAG_STOP, g.world, &request));
    TRY_MPI(MPI_Request_free(&request));
    return OK;
}

// The word goes to rank 0 and from there to all: two messages a rank at most. The process ends soon, so nobody minds those
// that are never received.
static Err pass_word(void)
{
    g.stop = true;
    if (g.rank) return send_word(0);
    for (int r = 1; r < g.size; r++) TRY(send_word(r));
    return OK;
}

static Err hear(void)
{
    int waiting = 0;
    if (g.stop) return OK;
    if (!stop_asked()) TRY_MPI(MPI_Iprobe(g.rank ? 0 : MPI_ANY_SOURCE, TAG_STOP, g.world, &waiting, MPI_STATUS_IGNORE));
    return waiting || stop_asked() ? pass_word() : OK;
}

static Err stopped(const char *what)
{
    FAIL(ERR_REQUEUE, "%s: stopped on request; what is finished is kept; run the same command to go on", what);
}

void par_stop_watch(void) { g.relay = true; }

Err par_stop_check(const char *what)
{
    PROFILE(PHASE_WAIT);
    if (alone()) g.stop = stop_asked();
    else TRY(hear());
    return g.stop ? stopped(what) : OK;
}

Err par_stop_agree(const char *what)
{
    int64_t stop = stop_asked();
    TRY(par_max_i64(&stop, 1));
    return stop ? par_agree(stopped(what)) : OK;
}

// Waits for a collective call; where ranks work on their own the word is passed meanwhile.
static Err wait_and_hear(MPI_Request *request)
{
    for (int done = 0; !done;) {
        TRY(hear());
        TRY_MPI(MPI_Test(request, &done, MPI_STATUS_IGNORE));
    }
    return OK;
}

// --- alarm ------------------------------------------------------------------------------------------------------------

Err par_alarm_open(void)
{
    void *shared;
    ASSERT(!g.alarm);
    if (alone()) return OK;
    TRY(par_shared_alloc((int64_t)sizeof *g.alarm, &shared));
    g.alarm = shared;
    return OK;
}

void par_alarm_close(void)
{
    par_shared_free((void *)g.alarm, (int64_t)sizeof *g.alarm);
    g.alarm = NULL;
}

// The node sees it in shared memory, every rank gets a message besides. Those that come after their agreement are let lie, or met
// by a later question and known as old by their number.
static Err raise_alarm(void)
{
    if (!g.alarm) return OK;
    g.alarmed = par_agreements() + 1;
    atomic_store(g.alarm, g.alarmed);
    for (int r = 0; r < g.size; r++) {
        MPI_Request request;
        if (r == g.rank) continue;
        TRY_MPI(MPI_Isend(&g.alarmed, 1, MPI_INT64_T, r, TAG_ALARM, g.world, &request));
        TRY_MPI(MPI_Request_free(&request));
    }
    return OK;
}

bool par_alarm_on_node(int64_t since) { return g.alarm && atomic_load(g.alarm) > since; }

Err par_alarm_heard(int64_t since, bool *heard)
{
    for (int waiting = g.alarm != NULL; waiting;) {
        MPI_Status from;
        int64_t number;
        TRY_MPI(MPI_Iprobe(MPI_ANY_SOURCE, TAG_ALARM, g.world, &waiting, &from));
        if (!waiting) break;
        TRY_MPI(MPI_Recv(&number, 1, MPI_INT64_T, from.MPI_SOURCE, TAG_ALARM, g.world, MPI_STATUS_IGNORE));
        if (number > g.heard) g.heard = number;
    }
    *heard = g.heard > since || par_alarm_on_node(since);
    return OK;
}

// --- agreements -------------------------------------------------------------------------------------------------------

static Err least(int mine, int *out)
{
    if (!g.relay) {
        TRY_ALL(MPI_Allreduce(&mine, out, 1, MPI_INT, MPI_MIN, g.world));
        return OK;
    }
    MPI_Request request;
    TRY_ALL(MPI_Iallreduce(&mine, out, 1, MPI_INT, MPI_MIN, g.world, &request));
    TRY(wait_and_hear(&request));
    g.relay = false;
    return OK;
}

// From the error that says most to none.
enum { GRADE_OWN, GRADE_LINK, GRADE_REQUEUE, GRADE_OTHER, GRADE_NONE };
static int grade(Err mine)
{
    const int told[] = {GRADE_OWN, GRADE_LINK, GRADE_OTHER};
    return mine == OK ? GRADE_NONE : mine == ERR_REQUEUE ? GRADE_REQUEUE : told[g.blame];
}

static Err first_failing(Err mine, int *first)
{
    if (mine != OK) TRY(raise_alarm());
    TRY(least(g.rank + grade(mine) * g.size, first));
    atomic_fetch_add(&g.agreements, 1);
    g.blame = BLAME_OWN;
    return OK;
}

Err par_agree(Err mine)
{
    PROFILE(PHASE_WAIT);
    if (alone()) {
        g.agreed = mine != OK;
        return mine;
    }
    int first = 0;
    TRY(first_failing(mine, &first));
    if (first >= GRADE_NONE * g.size) return OK;
    first %= g.size;
    struct {
        int code;
        char text[2048];
    } note = {.code = (int)mine};
    snprintf(note.text, sizeof note.text, "%.2000s", err_message());
    TRY_ALL(MPI_Bcast(&note, (int)sizeof note, MPI_BYTE, first, g.world));
    if (g.rank != first) err_set_message(note.text);
    g.agreed = true;
    return (Err)note.code;
}

bool par_agreed(void) { return g.agreed; }
int64_t par_agreements(void) { return atomic_load(&g.agreements); }
void par_blame(ParBlame b) { g.blame = b; }

Err par_barrier(void)
{
    PROFILE(PHASE_WAIT);
    if (!alone()) TRY_ALL(MPI_Barrier(g.world));
    return OK;
}

static Err watched_barrier(void)
{
    MPI_Request request;
    if (!g.relay || alone()) return par_barrier();
    TRY_ALL(MPI_Ibarrier(g.world, &request));
    return wait_and_hear(&request);
}

Err par_node_barrier(void)
{
    PROFILE(PHASE_WAIT);
    if (g.node_size > 1) TRY_ALL(MPI_Barrier(g.node));
    return OK;
}

Err par_bcast(void *p, int64_t bytes, int root)
{
    PROFILE(PHASE_COMM);
    if (alone()) return OK;
    for (int64_t at = 0; at < bytes; at += CHUNK) {
        int n = (int)(bytes - at < CHUNK ? bytes - at : CHUNK);
        TRY_ALL(MPI_Bcast((char *)p + at, n, MPI_BYTE, root, g.world));
    }
    return OK;
}

Err par_sum_i64(int64_t *v, int n)
{
    PROFILE(PHASE_COMM);
    if (!alone()) TRY_ALL(MPI_Allreduce(MPI_IN_PLACE, v, n, MPI_INT64_T, MPI_SUM, g.world));
    return OK;
}

Err par_max_i64(int64_t *v, int n)
{
    PROFILE(PHASE_COMM);
    if (!alone()) TRY_ALL(MPI_Allreduce(MPI_IN_PLACE, v, n, MPI_INT64_T, MPI_MAX, g.world));
    return OK;
}

// Totals that MPI's int counts can hold: one call. Larger ones: a broadcast a rank.
static Err gather_bytes(const void *mine, char *all, const int64_t *count, const int64_t *at, int64_t sum)
{
    int *part;
    if (alone() || sum > CHUNK) {
        if (count[g.rank] > 0) memcpy(all + at[g.rank], mine, (size_t)count[g.rank]);
        for (int r = 0; r < g.size; r++) TRY(par_bcast(all + at[r], count[r], r));
        return OK;
    }
    TRY(MEM_ARRAY(&part, 2 * (int64_t)g.size));
    for (int r = 0; r < g.size; r++) part[r] = (int)count[r], part[g.size + r] = (int)at[r];
    g.count.collectives++;
    int rc = MPI_Allgatherv(mine, (int)count[g.rank], MPI_BYTE, all, part, part + g.size, MPI_BYTE, g.world);
    mem_free(part);
    TRY_MPI(rc);
    return OK;
}

Err par_allgather(const void *mine, int64_t bytes, void *all, int64_t *total, int64_t *offsets)
{
    PROFILE(PHASE_COMM);
    int64_t *count, *at;
    char *buffer = NULL;
    TRY(MEM_ARRAY(&count, 2 * (int64_t)g.size + 1));
    Err err = OK;
    at = count + g.size;
    count[g.rank] = bytes;
    TRY_DONE(par_sum_i64(count, g.size));
    for (int r = 0; r < g.size; r++) at[r + 1] = at[r] + count[r];
    TRY_DONE(mem_alloc(&buffer, at[g.size], 1));
    TRY_DONE(gather_bytes(mine, buffer, count, at, at[g.size]));
    if (offsets) memcpy(offsets, at, (size_t)(g.size + 1) * sizeof *at);
    if (total) *total = at[g.size];
    memcpy(all, &buffer, sizeof buffer);
    buffer = NULL;
done:
    mem_free(buffer);
    mem_free(count);
    return err;
}

struct ParRequest {
    int n;
    MPI_Request part[];  // one per CHUNK
};

static Err request_new(int64_t bytes, ParRequest **out)
{
    int n = (int)((bytes + CHUNK - 1) / CHUNK);
    TRY(mem_alloc(out, 1, (int64_t)(sizeof **out + sizeof(MPI_Request) * (size_t)n)));
    (*out)->n = n;
    return OK;
}

Err par_isend(const void *p, int64_t bytes, int peer, int tag, ParRequest **out)
{
    PROFILE(PHASE_COMM);
    TRY(request_new(bytes, out));
    for (int i = 0; i < (*out)->n; i++) {
        int64_t at = (int64_t)i * CHUNK;
        int n = (int)(bytes - at < CHUNK ? bytes - at : CHUNK);
        count_message(n);
        TRY_MPI(MPI_Isend((const char *)p + at, n, MPI_BYTE, peer, tag, g.world, &(*out)->part[i]));
    }
    return OK;
}

Err par_irecv(void *p, int64_t bytes, int peer, int tag, ParRequest **out)
{
    PROFILE(PHASE_COMM);
    TRY(request_new(bytes, out));
    for (int i = 0; i < (*out)->n; i++) {
        int64_t at = (int64_t)i * CHUNK;
        int n = (int)(bytes - at < CHUNK ? bytes - at : CHUNK);
        TRY_MPI(MPI_Irecv((char *)p + at, n, MPI_BYTE, peer, tag, g.world, &(*out)->part[i]));
    }
    return OK;
}

Err par_wait(ParRequest *r)
{
    PROFILE(PHASE_COMM);
    if (!r) return OK;
    int rc = MPI_Waitall(r->n, r->part, MPI_STATUSES_IGNORE);
    mem_free(r);
    TRY_MPI(rc);
    return OK;
}

// --- node-shared memory: an unlinked file in /dev/shm (or TMPDIR) mapped by the node's ranks ----------------------------
// A rank alone on its node takes memory of its own, which needs no room there and gets huge pages on more systems.

static Err shared_create(int64_t bytes, char path[IO_PATH])
{
    const char *places[] = {"/dev/shm", getenv("TMPDIR"), "/tmp"};
    Str tried = {0};
    for (int i = 0; i < 3; i++) {
        int64_t room = 0;
        if (!places[i] || io_free_bytes(places[i], &room) != OK) continue;
        if (room > bytes + bytes / 20) {
            snprintf(path, IO_PATH, "%s/imf-%ld-XXXXXX", places[i], (long)getpid());
            int fd = mkstemp(path);
            int rc = fd < 0 ? -1 : posix_fallocate(fd, 0, (off_t)bytes);
            if (fd >= 0) close(fd);
            if (rc == 0) return str_free(&tried), OK;
            if (fd >= 0) unlink(path);
        }
        TRY(str_printf(&tried, " %s (%lld bytes free)", places[i], (long long)room));
    }
    Err err = err_raise(ERR_UNAVAILABLE, __func__, __FILE__, __LINE__,
                        "no room for %lld bytes of node-shared memory on %s; tried%s. Enlarge /dev/shm or set TMPDIR",
                        (long long)bytes, g.host, str_text(&tried));
    str_free(&tried);
    return err;
}

static Err shared_map(const char *path, int64_t bytes, void **p)
{
    const bool alone_here = g.node_size == 1;
    int fd = alone_here ? -1 : open(path, O_RDWR | O_CLOEXEC);
    CHECK(alone_here || fd >= 0, ERR_UNAVAILABLE, "cannot open shared memory %s: %s", path, strerror(errno));
    *p = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, alone_here ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);
    if (fd >= 0) close(fd);
    CHECK(*p != MAP_FAILED, ERR_UNAVAILABLE, "cannot map %lld bytes of %s: %s", (long long)bytes, path, strerror(errno));
#ifdef MADV_HUGEPAGE
    (void)madvise(*p, (size_t)bytes, MADV_HUGEPAGE);  // a wish
#endif
    return OK;
}

Err par_shared_alloc(int64_t bytes, void *pp)
{
    char path[IO_PATH] = "";
    void *p = NULL;
    if (bytes < 1) bytes = 1;
    Err err = g.node_rank == 0 && g.node_size > 1 ? shared_create(bytes, path) : OK;
    TRY(par_agree(err));
    if (g.node_size > 1) TRY_ALL(MPI_Bcast(path, IO_PATH, MPI_BYTE, 0, g.node));
    err = shared_map(path, bytes, &p);
    Err all = par_agree(err);
    if (g.node_rank == 0 && g.node_size > 1) unlink(path);
    memcpy(pp, &p, sizeof p);
    return all;
}

void par_shared_free(void *p, int64_t bytes)
{
    if (p) munmap(p, (size_t)(bytes < 1 ? 1 : bytes));
}

// --- dynamic work -----------------------------------------------------------------------------------------------------

struct ParQueue {
    int64_t n, next;
    int finished;  // rank 0: other ranks that were told -1
    bool ended;    // this rank got its -1
};

Err par_queue_open(ParQueue **out, int64_t n)
{
    PROFILE(PHASE_WAIT);
    TRY(MEM_ARRAY(out, 1));
    (*out)->n = n;
    return par_barrier();
}

// Nothing new once ranks were asked to end.
static int64_t deal(ParQueue *q) { return q->next < q->n && !g.stop ? q->next++ : -1; }

static Err answer(ParQueue *q, const MPI_Status *from)
{
    char nothing;
    TRY_MPI(MPI_Recv(&nothing, 0, MPI_BYTE, from->MPI_SOURCE, TAG_QUEUE_ASK, g.world, MPI_STATUS_IGNORE));
    int64_t item = deal(q);
    if (item < 0) q->finished++;
    count_message(sizeof item);
    TRY_MPI(MPI_Send(&item, 1, MPI_INT64_T, from->MPI_SOURCE, TAG_QUEUE_ITEM, g.world));
    return OK;
}

Err par_queue_serve(ParQueue *q)
{
    PROFILE(PHASE_WAIT);
    for (int waiting = g.rank == 0 && !alone(); waiting;) {
        MPI_Status from;
        TRY_MPI(MPI_Iprobe(MPI_ANY_SOURCE, TAG_QUEUE_ASK, g.world, &waiting, &from));
        if (waiting) TRY(answer(q, &from));
    }
    return OK;
}

Err par_queue_next(ParQueue *q, int64_t *item)
{
    PROFILE(PHASE_WAIT);
    *item = -1;
    if (q->ended) return OK;
    if (g.rank == 0) {
        TRY(par_queue_serve(q));
        *item = deal(q);
    } else {
        count_message(0);
        TRY_MPI(MPI_Send("", 0, MPI_BYTE, 0, TAG_QUEUE_ASK, g.world));
        TRY_MPI(MPI_Recv(item, 1, MPI_INT64_T, 0, TAG_QUEUE_ITEM, g.world, MPI_STATUS_IGNORE));
    }
    q->ended = *item < 0;
    return OK;
}

Err par_queue_close(ParQueue *q)
{
    PROFILE(PHASE_WAIT);
    for (int64_t left = 0; !q->ended && left >= 0;) TRY(par_queue_next(q, &left));
    while (g.rank == 0 && q->finished < g.size - 1) {
        if (g.relay) TRY(hear());
        TRY(par_queue_serve(q));
    }
    mem_free(q);
    return watched_barrier();
}
