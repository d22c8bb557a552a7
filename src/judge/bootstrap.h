// SPDX-License-Identifier: Apache-2.0
// Means with bootstrap intervals (Efron 1979), over prompts: what an evaluation prints beside every number.
//
// Method: resample the prompts with replacement, stratum by stratum (a stratum is a kind of prompt), take the mean of the
// strata's means, and report the 2.5 % and 97.5 % quantiles of BOOT_RESAMPLES such means. For a comparison of two models
// the values are the differences on the same prompts (paired bootstrap): what both find easy or hard cancels out.
// Drawback: too narrow for fewer than about 20 prompts. Random numbers are Philox; the result depends on the values, their
// order and the key alone, so callers pass values in id order.
#ifndef IMF_JUDGE_BOOTSTRAP_H
#define IMF_JUDGE_BOOTSTRAP_H

#include <stdint.h>

#include "base/err.h"
#include "base/rng.h"

enum { BOOT_RESAMPLES = 2000 };

typedef struct Interval {
    double mean, lo, hi;
} Interval;

typedef struct Stratum {
    const double *x;  // [n], borrowed
    int64_t n;        // > 0
} Stratum;

// Mean over strata of the strata's means, with its 95 % interval. Local.
Err boot_interval(const Stratum *s, int64_t strata, RngKey key, Interval *out) ERR_MUST_CHECK;

#endif
