// SPDX-License-Identifier: Apache-2.0
#include "train/pace.h"

#include <stdlib.h>
#include <time.h>

#include "base/log.h"

void pace_start(Pace *p, int64_t save_seconds, int64_t bytes)
{
    const char *end = getenv("SLURM_JOB_END_TIME");
    const double now = time_now();
    *p = (Pace){.save_every = (double)save_seconds, .save = (double)bytes / 100e6, .began = now, .saved = now};
    p->end = end ? strtoll(end, NULL, 10) : 0;
}

void pace_step_begins(Pace *p) { p->began = time_now(); }

static double slowly(double old, double now) { return now > 0.9 * old ? now : 0.9 * old; }

void pace_step_ends(Pace *p) { p->step = slowly(p->step, time_now() - p->began); }

void pace_saved(Pace *p, double seconds)
{
    p->save = slowly(p->save, seconds);
    p->saved = time_now();
}

bool pace_save_is_due(const Pace *p) { return p->save_every > 0 && time_now() - p->saved >= p->save_every; }

bool pace_is_over(const Pace *p, double *seconds_left)
{
    struct timespec now;
    if (p->end <= 0) return false;
    clock_gettime(CLOCK_REALTIME, &now);
    double left = (double)p->end - (double)now.tv_sec - 1e-9 * (double)now.tv_nsec;
    if (seconds_left) *seconds_left = left;
    return left < 1.5 * (p->step + p->save);
}
