// SPDX-License-Identifier: Apache-2.0
// Ending on request: the one place that listens to signals. A handler sets a flag and, when the launcher ends the job, leaves
// a farewell; the step loops look at the flag, finish what is in their hands, and end with ERR_REQUEUE.
//
//   SIGUSR1, SIGUSR2  "stop when it suits you": as a batch system sends before the time limit
//   SIGTERM           the same, within STOP_SECONDS; then the process ends with 75 where it stands. A farewell is left
//   SIGINT            a farewell is left, and the process ends as it always did
//
// A farewell is a file `lease.bye.<rank>` beside the run directory's lease (base/roll.h reads it): a rank that was told to end
// has one, a rank that was killed has none.
#ifndef IMF_BASE_STOP_H
#define IMF_BASE_STOP_H

#include <stdbool.h>

#include "base/err.h"

enum { STOP_SECONDS = 20 };

void stop_listen(void);            // first of all in a command that can be stopped; before it, signals end the process
bool stop_asked(void);             // of this process; src/par knows about the other ranks

// Where this process would leave its farewell: path NULL, nowhere.
void stop_farewell_at(const char *path);
// Leaves it now, with the code that the process ends with.
void stop_farewell(int code);

#endif
