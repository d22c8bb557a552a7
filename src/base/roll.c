// SPDX-License-Identifier: Apache-2.0
#include "base/roll.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/stop.h"

enum { ROLL_LIMIT = 1 << 28, NAMED = 8 };  // bytes of the file; ranks that a message names

static const char world_name[] = "lease.world", farewell_name[] = "lease.bye.";

static struct {
    char world[IO_PATH], farewell[IO_PATH];  // "": none of ours
    bool was_ended;
} g;

Err roll_join(const char *run_dir, int rank)
{
    char name[64];
    snprintf(name, sizeof name, "%s%d", farewell_name, rank);
    TRY(io_join(g.farewell, run_dir, name));
    stop_farewell_at(g.farewell);
    return OK;
}

Err roll_write(const char *run_dir, const char *stage, const RollRank *rank, int64_t n)
{
    char path[IO_PATH];
    Str text = {0};
    Err err = OK;
    TRY(io_join(path, run_dir, world_name));
    TRY_DONE(str_printf(&text, "stage %s\n", stage));
    for (int64_t i = 0; i < n; i++)
        TRY_DONE(str_printf(&text, "%lld %s %lld\n", (long long)i, rank[i].host, (long long)rank[i].pid));
    TRY_DONE(io_write(path, str_text(&text), text.len));
    snprintf(g.world, sizeof g.world, "%s", path);
done:
    str_free(&text);
    return err;
}

void roll_leave(void)
{
    stop_farewell_at(NULL);  // first: the launcher may still tell us to end
    if (*g.farewell) unlink(g.farewell);
    if (*g.world) unlink(g.world);
    *g.farewell = *g.world = '\0';
}

// --- the job before ------------------------------------------------------------------------------------------------------

typedef struct Job {
    char stage[64];
    RollRank *rank;  // [n], owned
    int *code;       // [n] of the farewell; -1: none. Owned
    int64_t n;
} Job;

static Err read_world(const char *path, Job *job)
{
    Str text = {0};
    Err err = OK;
    int64_t cap = 0;
    TRY_DONE(io_read(path, &text, ROLL_LIMIT));
    char *save = NULL, *line = text.p ? strtok_r(text.p, "\n", &save) : NULL;
    if (!line || sscanf(line, "stage %63s", job->stage) != 1) goto done;
    while ((line = strtok_r(NULL, "\n", &save))) {
        long long rank, pid;
        RollRank r = {.pid = 0};
        if (sscanf(line, "%lld %119s %lld", &rank, r.host, &pid) != 3 || rank != job->n) break;
        r.pid = pid;
        TRY_DONE(MEM_GROW(&job->rank, job->n, &cap, job->n + 1));
        job->rank[job->n++] = r;
    }
done:
    str_free(&text);
    return err;
}

static int farewell_code(const char *path)
{
    int code = 0;
    FILE *f = fopen(path, "re");
    if (!f) return -1;
    if (fscanf(f, "%3d", &code) != 1) code = 0;  // the disk may have been full: that it is there says enough
    fclose(f);
    return code;
}

// Reads and removes the farewells.
static Err take_farewells(const char *run_dir, Job *job)
{
    char **names, path[IO_PATH];
    int64_t n;
    Err err = OK;
    TRY(MEM_ARRAY(&job->code, job->n + 1));
    for (int64_t i = 0; i < job->n; i++) job->code[i] = -1;
    TRY_DONE(io_list(run_dir, &names, &n));
    for (int64_t i = 0; i < n && err == OK; i++) {
        if (!str_starts(names[i], farewell_name)) continue;
        long rank = strtol(names[i] + sizeof farewell_name - 1, NULL, 10);
        err = io_join(path, run_dir, names[i]);
        if (rank >= 0 && rank < job->n) job->code[rank] = farewell_code(path);
        unlink(path);
    }
    io_list_free(names, n);
done:
    return err;
}

// The ranks that a rule picks: those without farewell, or those that ended with an error.
static Err name_ranks(const Job *job, bool dead, Str *out)
{
    int64_t named = 0, all = 0;
    for (int64_t i = 0; i < job->n; i++) {
        if (dead ? job->code[i] >= 0 : job->code[i] <= 0) continue;
        if (all++ >= NAMED) continue;
        TRY(str_printf(out, "%srank %lld (host %s, process %lld%s", named++ ? ", " : "", (long long)i, job->rank[i].host,
                       (long long)job->rank[i].pid, dead ? ")" : ""));
        if (!dead) TRY(str_printf(out, ", error %d)", job->code[i]));
    }
    return all > NAMED ? str_printf(out, " and %lld more", (long long)(all - NAMED)) : OK;
}

static Err tell(const Job *job, Str *out)
{
    int64_t dead = 0, failed = 0;
    for (int64_t i = 0; i < job->n; i++) dead += job->code[i] < 0, failed += job->code[i] > 0;
    g.was_ended = !dead && !failed;
    if (g.was_ended) return str_printf(out, "the job before was ended from outside in stage %s", job->stage);
    if (dead == job->n && job->n > 1)
        return str_printf(out, "all %lld ranks of the job before ended in stage %s without a word: it was killed as a whole, or the "
                          "machine went down", (long long)job->n, job->stage);
    TRY(str_printf(out, "the job before ended in stage %s: ", job->stage));
    TRY(name_ranks(job, !failed, out));
    return str_puts(out, failed ? " could not go on" : " died first: killed, out of memory, crashed, or its node failed");
}

Err roll_call(const char *run_dir, Str *out)
{
    char path[IO_PATH];
    Job job = {.n = 0};
    Err err = OK;
    TRY(io_join(path, run_dir, world_name));
    if (io_exists(path)) TRY_DONE(read_world(path, &job));
    TRY_DONE(take_farewells(run_dir, &job));
    if (job.n) TRY_DONE(tell(&job, out));
    unlink(path);
done:
    mem_free(job.rank);
    mem_free(job.code);
    return err;
}

bool roll_is_leaving(const char *run_dir)
{
    return io_has(run_dir, "lease.bye.0");
}

bool roll_was_ended(void) { return g.was_ended; }
