// SPDX-License-Identifier: Apache-2.0
// The crash-loop guard: run_dir/<stage>/tries has a line a start that did not end in order, the step that it was computing.
// When TRIES starts in a row ended in the same step, another one would too: a batch system that requeues for ever is told so.
// Drawback: a write of a few bytes a step (rank 0, no sync), so a power failure may hide the last steps.
#ifndef IMF_TRAIN_TRIES_H
#define IMF_TRAIN_TRIES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/io.h"

enum { TRIES = 3 };

typedef struct Tries {
    char path[IO_PATH];
    int fd;      // -1: not open
    int64_t at;  // offset of this start's line
} Tries;

// Local (rank 0). ended: the start before was ended from outside, which is nobody's fault: its line goes. *stuck: the step that
// the last TRIES starts ended in, -1 when there is none.
Err tries_open(Tries *t, const char *dir, bool ended, int64_t *stuck) ERR_MUST_CHECK;
// This start begins to compute a step.
void tries_step(Tries *t, int64_t step);
// The start ends: with OK or ERR_REQUEUE everything is forgotten, with ERR_INTERNAL its line stays, else the line goes.
void tries_close(Tries *t, Err err);

#endif
