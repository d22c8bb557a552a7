// SPDX-License-Identifier: Apache-2.0
// The lease of a run directory: one job writes there at a time. A file `lease` names its owner (job id, host, process, start
// time of the process); its modification time is renewed every 30 s while the owner says anything.
#ifndef IMF_BASE_LEASE_H
#define IMF_BASE_LEASE_H

#include <stdbool.h>

#include "base/err.h"

// Takes the lease, also from an owner that is gone: on this host its process does not exist any more, on another host the
// lease was not renewed for 10 minutes. ERR_CREATE naming the owner when it lives. Of jobs that start in the same
// instant one gets it. Drawback: the file system must have hard links.
Err lease_take(const char *run_dir, const char *host) ERR_MUST_CHECK;
// Who holds the lease of a run directory, for a reader. *held is false when nobody does. host: this machine's name.
typedef struct LeaseOwner {
    char job[64], host[256];
    long pid;
    bool alive;   // as lease_take judges
    double age;   // seconds since the last renewal
} LeaseOwner;
Err lease_look(const char *run_dir, const char *host, LeaseOwner *out, bool *held) ERR_MUST_CHECK;

void lease_renew(void);  // cheap; called by everything that logs or shows progress
void lease_drop(void);   // removes it if this process owns it

#endif
