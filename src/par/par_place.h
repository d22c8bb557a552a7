// SPDX-License-Identifier: Apache-2.0
// Where the ranks of this job were put: mistakes of a launch that show in no result, only in time.
#ifndef IMF_PAR_PAR_PLACE_H
#define IMF_PAR_PAR_PLACE_H

#include "base/err.h"

// Collective. ERR_UNAVAILABLE when this rank is a world of its own in a Slurm step of several tasks: the launcher did not connect
// them, and each would do all the work.
Err par_check_world(void) ERR_MUST_CHECK;

// Collective. One warning when a node's ranks x threads want more cores than they may use, or, where each is bound, two ranks
// share a core.
Err par_check_cores(int threads) ERR_MUST_CHECK;

#endif
