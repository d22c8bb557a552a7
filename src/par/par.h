// SPDX-License-Identifier: Apache-2.0
// Ranks: the only files that say MPI_. Everything here works without an MPI launcher too (one rank).
//
// "collective" = every rank must call it, in the same order. All functions abort through par_abort when MPI itself
// fails; nothing here returns a partial result.
#ifndef IMF_PAR_PAR_H
#define IMF_PAR_PAR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

Err par_init(int *argc, char ***argv) ERR_MUST_CHECK;
void par_finish(void);               // collective; MPI_Finalize
void par_abort(int code) __attribute__((noreturn));  // MPI_Abort; for main and for failed MPI calls only

int par_rank(void);
int par_size(void);
int par_node(void);                  // number of this rank's node (IMF_NODES=k pretends k nodes)
int par_node_rank(void);             // rank inside the node
int par_node_size(void);
const char *par_host(void);
const char *par_library(void);       // version text of the MPI library, one line; before par_init too

// Collective: returns on every rank the error of the lowest failing rank (its code and message), or OK. A local error
// must pass through here before any rank waits for another one's work. ERR_REQUEUE only if no rank has a graver one.
Err par_agree(Err mine) ERR_MUST_CHECK;
bool par_agreed(void);  // the last error that par_agree returned is known to all ranks
int64_t par_agreements(void);  // that have ended; any thread may ask

// How much the error says that this rank takes to its next par_agree: errors that say more go first, then the lowest rank's. A link that
// broke may be another rank's doing; a rank that only heard of it says least of all.
typedef enum ParBlame { BLAME_OWN, BLAME_LINK, BLAME_OTHER } ParBlame;
void par_blame(ParBlame b);

// For ranks that wait for each other elsewhere than in MPI, on GPUs: between open and close (collective) a rank that comes to par_agree with
// an error first tells all others. Heard: has one that had ended `since` agreements or more? On a node: the same, of the own node's
// ranks, without MPI, for any thread.
Err par_alarm_open(void) ERR_MUST_CHECK;
void par_alarm_close(void);  // local
Err par_alarm_heard(int64_t since, bool *heard) ERR_MUST_CHECK;
bool par_alarm_on_node(int64_t since);

// Ending on request (base/stop.h): one rank's signal is enough. Where ranks work on their own, every rank calls par_stop_watch,
// does its work, and comes to the next par_agree, in which those that wait pass the word. par_stop_check is local and cheap,
// for the loop of that work: ERR_REQUEUE once any rank was asked and word of it has come here. par_stop_agree is collective.
void par_stop_watch(void);
Err par_stop_check(const char *what) ERR_MUST_CHECK;
Err par_stop_agree(const char *what) ERR_MUST_CHECK;

// Collective; counts are bytes.
Err par_barrier(void) ERR_MUST_CHECK;
Err par_node_barrier(void) ERR_MUST_CHECK;
Err par_bcast(void *p, int64_t bytes, int root) ERR_MUST_CHECK;
Err par_sum_i64(int64_t *v, int n) ERR_MUST_CHECK;    // in place, on all ranks
Err par_max_i64(int64_t *v, int n) ERR_MUST_CHECK;

// Collective: concatenates every rank's bytes in rank order. *all is owned by the caller (mem_free); offsets, if not
// NULL, has room for size + 1 entries. Sums of floating-point numbers go through here and are added in an order
// that does not depend on the ranks (law 1); there is no floating-point all-reduce on purpose.
Err par_allgather(const void *mine, int64_t bytes, void *all, int64_t *total, int64_t *offsets) ERR_MUST_CHECK;

// What this process did since the last call: messages that it sent, their bytes, collective calls that it entered (those of
// NetCDF are not seen).
typedef struct ParCounts {
    int64_t messages, bytes, collectives;
} ParCounts;
void par_counts_take(ParCounts *out);

// Point to point. Messages above 2 GiB are split. Non-blocking forms complete in par_wait.
typedef struct ParRequest ParRequest;
Err par_isend(const void *p, int64_t bytes, int peer, int tag, ParRequest **out) ERR_MUST_CHECK;
Err par_irecv(void *p, int64_t bytes, int peer, int tag, ParRequest **out) ERR_MUST_CHECK;
Err par_wait(ParRequest *r) ERR_MUST_CHECK;  // frees r; NULL is fine

// Node-shared memory: one zeroed block a node, mapped by all its ranks. Collective over the node's ranks (all ranks
// call it). Space is checked before: /dev/shm, else TMPDIR, else ERR_UNAVAILABLE naming size and place. Writers and
// readers separate their turns with par_node_barrier.
Err par_shared_alloc(int64_t bytes, void *pp) ERR_MUST_CHECK;
void par_shared_free(void *p, int64_t bytes);

// A shared counter 0 .. n-1 that deals items dynamically ("give me the next one"). Rank 0 serves the others by
// messages: it must call par_queue_serve often (between decode steps). Collective: open, close.
typedef struct ParQueue ParQueue;
Err par_queue_open(ParQueue **out, int64_t n) ERR_MUST_CHECK;
Err par_queue_next(ParQueue *q, int64_t *item) ERR_MUST_CHECK;  // -1 when all are dealt
Err par_queue_serve(ParQueue *q) ERR_MUST_CHECK;                // rank 0: answers waiting requests; others: nothing
Err par_queue_close(ParQueue *q) ERR_MUST_CHECK;                // rank 0 serves until every rank got its -1

// This job's communicator (MPI_Comm *), for par_nc.c alone.
const void *par_comm(void);

#endif
