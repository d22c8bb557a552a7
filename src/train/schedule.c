// SPDX-License-Identifier: Apache-2.0
// Schedules of transformers (optimization.py), evaluated in double as Python does.
#include "train/schedule.h"

#include <math.h>
#include <string.h>

Err schedule_make(Schedule *out, const char *kind, double lr, double warmup_ratio, int64_t total)
{
    *out = (Schedule){.lr = lr, .total = total, .warmup = (int64_t)ceil(warmup_ratio * (double)total)};
    if (!strcmp(kind, "cosine")) out->kind = SCHEDULE_COSINE;
    else if (!strcmp(kind, "linear")) out->kind = SCHEDULE_LINEAR;
    else if (!strcmp(kind, "constant")) out->kind = SCHEDULE_CONSTANT;
    else FAIL(ERR_RECIPE, "lr_scheduler_type '%s' is unknown; choose cosine, linear or constant", kind);
    return OK;
}

double schedule_lr(const Schedule *s, int64_t step)
{
    const double pi = 3.14159265358979323846;
    double t = (double)step, warmup = (double)s->warmup;
    if (step < s->warmup) return s->lr * (t / fmax(1.0, warmup));
    if (s->kind == SCHEDULE_CONSTANT) return s->lr;
    double span = fmax(1.0, (double)(s->total - s->warmup));
    if (s->kind == SCHEDULE_LINEAR) return s->lr * fmax(0.0, ((double)s->total - t) / span);
    return s->lr * fmax(0.0, 0.5 * (1.0 + cos(pi * ((t - warmup) / span))));
}
