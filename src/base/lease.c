// SPDX-License-Identifier: Apache-2.0
#include "base/lease.h"

#include <fcntl.h>
#include <stdbool.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/roll.h"
#include "base/stop.h"

#define RENEW_SECONDS 30.0
enum { DEAD_SECONDS = 600, POLL_MS = 50, GRACE_MS = 1000 };

typedef struct Owner {
    char job[64], host[256];
    long pid;
    unsigned long long start;  // of the process, in clock ticks since boot
} Owner;

static struct {
    char path[IO_PATH];  // "" while no lease is held
    double renewed;
} g;

// Field 22 of /proc/<pid>/stat; 0 when there is no such process, or only what its parent has not asked for.
static unsigned long long process_start(long pid)
{
    char path[64], text[1024];
    unsigned long long start = 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    char *p = strrchr(text, ')');  // the name before it may hold anything
    if (p && (p[2] == 'Z' || p[2] == 'X')) return 0;
    for (int field = 2; p && field < 22; field++) p = strchr(p + 1, ' ');
    if (p) sscanf(p, " %llu", &start);
    return start;
}

static bool read_owner(const char *path, Owner *o, double *age)
{
    struct stat st;
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool good = fscanf(f, "%63s %255s %ld %llu", o->job, o->host, &o->pid, &o->start) == 4 && fstat(fileno(f), &st) == 0;
    fclose(f);
    if (good) *age = difftime(time(NULL), st.st_mtime);
    return good;
}

static bool lives(const Owner *o, const char *host, double age)
{
    if (strcmp(o->host, host)) return age < DEAD_SECONDS;
    return o->start != 0 && process_start(o->pid) == o->start;
}

static bool same_owner(const Owner *a, const Owner *b)
{
    return a->pid == b->pid && a->start == b->start && !strcmp(a->host, b->host);
}

static Err write_own(const char *path, const char *host)
{
    char text[512];
    const char *job = getenv("SLURM_JOB_ID");
    long pid = (long)getpid();
    int n = snprintf(text, sizeof text, "%.60s %.250s %ld %llu\n", job && *job ? job : "local", host, pid, process_start(pid));
    return io_write(path, text, n);
}

// An owner that was told to end is given the time that it has for that; one on this host that was killed a moment ago may still
// be on its way out, because mpirun does not wait for it.
static bool stays(const char *run_dir, const char *path, const char *host, Owner *o, double *age)
{
    for (int waited = 0;; waited += POLL_MS) {
        if (!read_owner(path, o, age)) return *o = (Owner){0}, false;
        if (!lives(o, host, *age)) return false;
        const int patience = roll_is_leaving(run_dir) ? 1000 * (STOP_SECONDS + 5) : strcmp(o->host, host) ? 0 : GRACE_MS;
        if (waited >= patience) return true;
        usleep(1000 * POLL_MS);
    }
}

// Refuses a living owner; removes the lease of a dead one. Of several that see it dead the one that makes a link named after
// the dead owner may; a link that holds another lease came too late and removes nothing.
static Err remove_dead(const char *run_dir, const char *path, const char *host)
{
    Owner seen = {0}, held = {0};
    double age = 0;
    char name[64], dead[IO_PATH];
    CHECK(!stays(run_dir, path, host, &seen, &age), ERR_CREATE,
          "%s belongs to a running job (job %s, host %s, process %ld); wait for it, or remove %s if it is gone", run_dir,
          seen.job, seen.host, seen.pid, path);
    bool known = seen.pid > 0;
    snprintf(name, sizeof name, "lease.dead.%ld.%llu", known ? seen.pid : 0, known ? seen.start : 0);
    TRY(io_join(dead, run_dir, name));
    if (link(path, dead) != 0) return usleep(10000), OK;  // another one is at it, or has done it
    bool same = read_owner(dead, &held, &age) == known && (!known || same_owner(&seen, &held));
    if (same) unlink(path);
    unlink(dead);
    if (same && known)
        log_warn("lease", "%s was left by job %s (host %s, process %ld), which is gone", run_dir, seen.job, seen.host, seen.pid);
    return OK;
}

// A link is made by one process only, also on a network file system.
static Err take(const char *run_dir, const char *path, const char *own, const char *host)
{
    enum { TRIES = 200 };
    TRY(write_own(own, host));
    for (int i = 0; i < TRIES; i++) {
        if (link(own, path) == 0) return OK;
        CHECK(errno == EEXIST, ERR_CREATE, "cannot create %s: %s%s", path, strerror(errno), io_advice(errno));
        TRY(remove_dead(run_dir, path, host));
    }
    FAIL(ERR_CREATE, "cannot take %s from a dead job; remove it and %s/lease.dead.*", path, run_dir);
}

Err lease_take(const char *run_dir, const char *host)
{
    char path[IO_PATH], name[400], own[IO_PATH];
    snprintf(name, sizeof name, "lease.%.250s.%ld", host, (long)getpid());
    TRY(io_join(path, run_dir, "lease"));
    TRY(io_join(own, run_dir, name));
    Err err = take(run_dir, path, own, host);
    unlink(own);
    TRY(err);
    snprintf(g.path, sizeof g.path, "%s", path);
    g.renewed = time_now();
    return OK;
}

Err lease_look(const char *run_dir, const char *host, LeaseOwner *out, bool *held)
{
    char path[IO_PATH];
    Owner o = {0};
    TRY(io_join(path, run_dir, "lease"));
    *out = (LeaseOwner){0};
    *held = read_owner(path, &o, &out->age);
    if (!*held) return OK;
    snprintf(out->job, sizeof out->job, "%s", o.job);
    snprintf(out->host, sizeof out->host, "%s", o.host);
    out->pid = o.pid;
    out->alive = lives(&o, host, out->age);
    return OK;
}

void lease_renew(void)
{
    if (!*g.path || time_now() - g.renewed < RENEW_SECONDS) return;
    g.renewed = time_now();
    if (utimensat(AT_FDCWD, g.path, NULL, 0) != 0) *g.path = '\0';  // removed by a person: not ours any more
}

void lease_drop(void)
{
    Owner owner;
    double age;
    if (*g.path && read_owner(g.path, &owner, &age) && owner.pid == (long)getpid()) unlink(g.path);
    *g.path = '\0';
}
