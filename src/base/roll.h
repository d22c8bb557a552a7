// SPDX-License-Identifier: Apache-2.0
// The roll of a job: who its ranks are, and, at the next start, who of them died first. Rank 0 writes `lease.world` beside the
// lease; a launcher that ends a job because one rank died tells the others to end, and those leave a farewell (base/stop.h).
//
//   lease.world        a line "stage NAME", then a line "RANK HOST PROCESS" a rank
//   lease.bye.<rank>   three digits: the code that the rank ended with, 000 when it was told to end
#ifndef IMF_BASE_ROLL_H
#define IMF_BASE_ROLL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

typedef struct RollRank {
    char host[120];
    int64_t pid;
} RollRank;

// Local, every rank: from now on this rank leaves a farewell in run_dir when it is told to end.
Err roll_join(const char *run_dir, int rank) ERR_MUST_CHECK;
// Rank 0, which holds the lease. What became of the job before this one, appended: nothing when it ended in order. Its roll and
// farewells are removed.
Err roll_call(const char *run_dir, Str *out) ERR_MUST_CHECK;
bool roll_is_leaving(const char *run_dir);  // rank 0 of the job there was told to end
bool roll_was_ended(void);  // the job before was ended from outside: every rank was told to, none died
// Rank 0: the n ranks of this job, now in `stage`.
Err roll_write(const char *run_dir, const char *stage, const RollRank *rank, int64_t n) ERR_MUST_CHECK;
// Every rank: it ends in order; nothing is to be told at the next start.
void roll_leave(void);

#endif
