#include "base/lease.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"

#define RENEW_SECONDS 30.0
enum { DEAD_SECONDS = 600 };

typedef struct Owner {
    char job[64], host[256];
    long pid;
    unsigned long long start;  // of the process, in clock ticks since boot
} Owner;

static struct {
    char path[IO_PATH];  // "" while no lease is held
    double renewed;
} g;

// Field 22 of /proc/<pid>/stat; 0 when there is no such process.
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
    if (!strcmp(o->host, host)) return process_start(o->pid) == o->start && o->start != 0;
    return age < DEAD_SECONDS;
}

Err lease_take(const char *run_dir, const char *host)
{
    char path[IO_PATH], text[512];
    Owner other;
    double age = 0;
    TRY(io_join(path, run_dir, "lease"));
    if (read_owner(path, &other, &age)) {
        CHECK(!lives(&other, host, age), ERR_CREATE,
              "%s belongs to a running job (job %s, host %s, process %ld); wait for it, or remove %s if it is gone", run_dir,
              other.job, other.host, other.pid, path);
        log_warn("lease", "%s was left by job %s (host %s, process %ld), which is gone", run_dir, other.job, other.host, other.pid);
    }
    const char *job = getenv("SLURM_JOB_ID");
    long pid = (long)getpid();
    int n = snprintf(text, sizeof text, "%.60s %.250s %ld %llu\n", job && *job ? job : "local", host, pid, process_start(pid));
    TRY(io_write(path, text, n));
    snprintf(g.path, sizeof g.path, "%s", path);
    g.renewed = time_now();
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
    if (*g.path) unlink(g.path);
    *g.path = '\0';
}
