// SPDX-License-Identifier: Apache-2.0
// Control groups: version 2 (one tree, /sys/fs/cgroup) and version 1 (a tree a controller). A process's group lies in
// /proc/self/cgroup; inside a container that path often is not visible, then the root of the tree speaks for it. A limit of a
// parent group holds too, so the way up is walked.
#include "base/machine.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"

enum { LINE = 1024 };

// The number behind `key` in a file of lines "key: N kB", in bytes; 0 when it is not there.
static int64_t kilobytes(const char *path, const char *key)
{
    char line[LINE];
    int64_t value = 0;
    FILE *f = fopen(path, "re");
    while (f && !value && fgets(line, sizeof line, f))
        if (str_starts(line, key)) value = strtoll(line + strlen(key), NULL, 10) * 1024;
    if (f) fclose(f);
    return value;
}

int64_t machine_memory(void) { return kilobytes("/proc/meminfo", "MemTotal:"); }
int64_t machine_memory_free(void) { return kilobytes("/proc/meminfo", "MemAvailable:"); }

OwnMemory machine_own_memory(void)
{
    const char *path = "/proc/self/smaps_rollup";
    const int64_t own = kilobytes(path, "Anonymous:");
    return (OwnMemory){own, kilobytes(path, "Rss:") - own};
}

static bool read_line(const char *path, char text[LINE])
{
    FILE *f = fopen(path, "re");
    bool good = f && fgets(text, LINE, f);
    if (f) fclose(f);
    return good;
}

// The group of this process in the tree of `controller` ("" = version 2); "/" when unknown.
static void own_group(const char *controller, char group[LINE])
{
    char line[LINE];
    FILE *f = fopen("/proc/self/cgroup", "re");
    strcpy(group, "/");
    while (f && fgets(line, sizeof line, f)) {
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path) continue;
        *path++ = '\0';
        path[strcspn(path, "\n")] = '\0';
        if (*controller ? strstr(names, controller) != NULL : !names[1]) snprintf(group, LINE, "%s", path);
    }
    if (f) fclose(f);
}

// Calls f for `name` in the own group and every group above it.
static void each_limit(const char *tree, const char *controller, const char *name, void (*f)(const char *text, double *out), double *out)
{
    char group[LINE], text[LINE], path[IO_PATH];
    own_group(controller, group);
    for (;;) {
        snprintf(path, sizeof path, "%s%s/%s", tree, strcmp(group, "/") ? group : "", name);
        if (read_line(path, text)) f(text, out);
        char *slash = strrchr(group, '/');
        if (!slash || !group[1]) return;
        slash[slash == group] = '\0';
    }
}

static void take_smaller(double value, double *out)
{
    if (value > 0 && (*out == 0 || value < *out)) *out = value;
}

static void take_bytes(const char *text, double *out)
{
    double value = strtod(text, NULL);
    if (value < 9e18) take_smaller(value, out);  // version 1 writes a huge number for "none", version 2 "max"
}

static void take_quota(const char *text, double *out)
{
    double quota = 0, period = 0;
    if (sscanf(text, "%lf %lf", &quota, &period) == 2 && period > 0) take_smaller(quota / period, out);
}

int64_t machine_memory_limit(void)
{
    double least = 0;
    each_limit("/sys/fs/cgroup", "", "memory.max", take_bytes, &least);
    each_limit("/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes", take_bytes, &least);
    return least < (double)machine_memory() ? (int64_t)least : 0;
}

int64_t machine_memory_room(void)
{
    int64_t all = machine_memory(), limit = machine_memory_limit();
    return limit ? limit : all;
}

int machine_core_list(int *core, int max)
{
    cpu_set_t set;
    int n = 0;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 0;
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, &set)) continue;
        if (n < max) core[n] = i;
        n++;
    }
    return n;
}

Cores machine_cores(void)
{
    Cores c = {.online = (int)sysconf(_SC_NPROCESSORS_ONLN), .allowed = machine_core_list(NULL, 0)};
    if (!c.allowed) c.allowed = c.online;
    each_limit("/sys/fs/cgroup", "", "cpu.max", take_quota, &c.quota);
    return c;
}
