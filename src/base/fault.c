// SPDX-License-Identifier: Apache-2.0
#include "base/fault.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const points[] = {
    "item-finished",  "step-finished", "journal-write", "journal-line",      "journal-index",      "step-line",
    "compact-begin",  "compact-text",  "compact-file",  "compact-files",     "compact-done",       "compact-remove",
    "refs-computed",  "refs-written",  "shard-write",   "shard-close",       "manifest",           "checkpoint-rename",
    "checkpoint-renamed", "prune",     "export-rename", "export-removed",    "export-renamed",     "file-rename",
    "file-renamed",       "row-fails"};

bool fault_armed;
static struct {
    char point[32], in[32];  // in: the stage; "" any
    long left;               // passages until the last one
    const char *stage;       // that runs
    int rank;
} g = {.stage = "start"};

static bool known(const char *name)
{
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        if (!strcmp(name, points[i])) return true;
    return false;
}

Err fault_open(int rank)
{
    static const char form[] = "IMF_FAULT is '%s'; it wants POINT:N[:RANK][@STAGE]: a point of src/base/fault.h, N from 1";
    const char *text = getenv("IMF_FAULT"), *stage = text ? strchr(text, '@') : NULL;
    int only = -1;
    fault_armed = false;
    if (!text || !*text) return OK;
    const int got = sscanf(text, "%31[a-z-]:%ld:%d", g.point, &g.left, &only);
    CHECK(got >= 2 && known(g.point) && g.left > 0, ERR_USAGE, form, text);
    snprintf(g.in, sizeof g.in, "%s", stage ? stage + 1 : "");
    g.rank = rank;
    fault_armed = only < 0 || only == rank;
    return OK;
}

void fault_stage(const char *name) { g.stage = name; }

bool fault_reached(const char *point)
{
    if (strcmp(point, g.point) || (*g.in && strcmp(g.in, g.stage))) return false;
    return --g.left == 0;
}

// One write: the line is whole also when several ranks speak.
_Noreturn void fault_kill(const char *point)
{
    char text[160];
    int n = snprintf(text, sizeof text, "imf: IMF_FAULT: rank %d is killed at %s in %s\n", g.rank, point, g.stage);
    (void)!write(STDERR_FILENO, text, (size_t)n);
    kill(getpid(), SIGKILL);
    for (;;) pause();
}
