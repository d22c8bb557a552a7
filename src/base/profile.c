// SPDX-License-Identifier: Apache-2.0
#include "base/profile.h"

#include <time.h>

static struct {
    ProfilePhase phase;
    int32_t depth;
    int64_t since;  // when the running phase began
    ProfileTimes times;
} g;

const char *profile_name(ProfilePhase p)
{
    static const char *const names[PHASES] = {"other", "gemm", "attention", "elementwise", "optimiser", "communication",
                                              "wait", "io", "draw"};
    return names[p];
}

static int64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void charge(void)
{
    int64_t now = clock_ns();
    g.times.ns[g.phase] += now - g.since;
    g.since = now;
}

static void change(ProfilePhase p)
{
    if (p == g.phase) return;
    charge();
    g.phase = p;
}

ProfileMark profile_enter(ProfilePhase p)
{
    ProfileMark mark = {g.phase, g.depth++};
    change(p);
    return mark;
}

void profile_leave(const ProfileMark *mark)
{
    g.times.misnested += g.depth != mark->depth + 1;
    g.depth = mark->depth;
    change(mark->before);
}

void profile_start(void)
{
    g.phase = PHASE_OTHER;
    g.depth = 0;
    g.times = (ProfileTimes){0};
    g.since = clock_ns();
}

void profile_take(ProfileTimes *out)
{
    charge();
    *out = g.times;
    g.times = (ProfileTimes){0};
}
