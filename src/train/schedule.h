// SPDX-License-Identifier: Apache-2.0
// Learning rate as a function of the step alone (so that resuming needs no scheduler state).
#ifndef IMF_TRAIN_SCHEDULE_H
#define IMF_TRAIN_SCHEDULE_H

#include <stdint.h>

#include "base/err.h"

typedef enum ScheduleKind { SCHEDULE_COSINE, SCHEDULE_LINEAR, SCHEDULE_CONSTANT } ScheduleKind;

typedef struct Schedule {
    ScheduleKind kind;
    double lr;       // peak
    int64_t total;   // optimiser steps of the whole run
    int64_t warmup;  // of which warm-up
} Schedule;

// kind by the name of lr_scheduler_type; warmup = ceil(ratio * total). ERR_RECIPE for an unknown name.
Err schedule_make(Schedule *out, const char *kind, double lr, double warmup_ratio, int64_t total) ERR_MUST_CHECK;

// Learning rate of the 0-based step. Cosine and linear rise linearly from 0 in the warm-up (the first step has lr 0) and
// fall to 0 at `total`: transformers' get_cosine_schedule_with_warmup and get_linear_schedule_with_warmup; constant is
// get_constant_schedule_with_warmup.
double schedule_lr(const Schedule *s, int64_t step);

#endif
