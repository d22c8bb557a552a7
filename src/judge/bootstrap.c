// SPDX-License-Identifier: Apache-2.0
// Bootstrap intervals; the method is in bootstrap.h.
#include "judge/bootstrap.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

static double plain_mean(const Stratum *s)
{
    double sum = 0;
    for (int64_t i = 0; i < s->n; i++) sum += s->x[i];
    return sum / (double)s->n;
}

// Mean of n draws with replacement; *counter moves on by n.
static double resampled_mean(const Stratum *s, RngKey key, uint64_t *counter)
{
    double sum = 0;
    for (int64_t i = 0; i < s->n; i++) sum += s->x[rng_below(key, (*counter)++, s->n)];
    return sum / (double)s->n;
}

static int by_value(const void *pa, const void *pb)
{
    double a = *(const double *)pa, b = *(const double *)pb;
    return (a > b) - (a < b);
}

// Linear interpolation between order statistics (Hyndman and Fan 1996, type 7).
static double quantile(const double *sorted, int64_t n, double q)
{
    double at = q * (double)(n - 1);
    int64_t i = (int64_t)floor(at);
    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

Err boot_interval(const Stratum *s, int64_t strata, RngKey key, Interval *out)
{
    double mean[BOOT_RESAMPLES];
    uint64_t counter = 0;
    *out = (Interval){0};
    ASSERT(strata > 0);
    for (int64_t k = 0; k < strata; k++) {
        ASSERT(s[k].n > 0);
        out->mean += plain_mean(&s[k]) / (double)strata;
    }
    for (int b = 0; b < BOOT_RESAMPLES; b++) {
        mean[b] = 0;
        for (int64_t k = 0; k < strata; k++) mean[b] += resampled_mean(&s[k], key, &counter) / (double)strata;
    }
    qsort(mean, BOOT_RESAMPLES, sizeof *mean, by_value);
    out->lo = quantile(mean, BOOT_RESAMPLES, 0.025);
    out->hi = quantile(mean, BOOT_RESAMPLES, 0.975);
    return OK;
}
