// SPDX-License-Identifier: Apache-2.0
// The end of a stage: how its time divides into phases (base/profile.h), over all ranks.
#ifndef IMF_STAGE_PHASES_H
#define IMF_STAGE_PHASES_H

#include <stdbool.h>

#include "base/err.h"

#define PHASES_FILE "profile.jsonl"  // of the run directory: a line for every time that a stage ran

// The first stage's time begins here.
void phases_start(void);

// Collective, and so is the error. Ends the profile of `stage` and begins the next one: adds a line to
// run_dir/profile.jsonl (NULL: none) and, when asked, prints the table on stderr. A line:
//   {"stage","ranks","time","program","wall_ms","mean_ms":{phase: ..},"max_ms":{phase: ..},
//    "messages","bytes","collectives","memory": each {"sum","max"}}
// mean and max over ranks; wall_ms is a mean too, measured apart from the phases. Counts: messages sent between ranks, their
// bytes, collective calls; sum and max over ranks (NetCDF's own are not seen). memory: the most bytes that a
// rank had allocated until then, without node-shared memory and libraries' own.
Err phases_end(const char *stage, const char *run_dir, bool print) ERR_MUST_CHECK;

#endif
