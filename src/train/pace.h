// SPDX-License-Identifier: Apache-2.0
// When to checkpoint and when to stop by the clock. Ranks act on what rank 0's clock says, so that all do the same after the
// same step.
#ifndef IMF_TRAIN_PACE_H
#define IMF_TRAIN_PACE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct Pace {
    double save_every;    // seconds between checkpoints; 0: never by the clock
    double step, save;    // seconds that one takes: a long one is forgotten slowly
    double began, saved;  // time_now() of the running step, of the last checkpoint
    int64_t end;          // SLURM_JOB_END_TIME: when the batch system ends the job, seconds since 1970; 0: nobody says
} Pace;

// bytes: of a checkpoint; until one was measured it is thought to take its bytes at 100 MB/s.
void pace_start(Pace *p, int64_t save_seconds, int64_t bytes);
void pace_step_begins(Pace *p);
void pace_step_ends(Pace *p);
void pace_saved(Pace *p, double seconds);

bool pace_save_is_due(const Pace *p);
// Less time is left than 1.5 times another step and a checkpoint take. seconds_left: may be NULL.
bool pace_is_over(const Pace *p, double *seconds_left);

#endif
