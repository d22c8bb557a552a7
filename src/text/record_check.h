// SPDX-License-Identifier: Apache-2.0
// Checking a record set: every line against its index, the order of ids, and the set against its `done`. Unlike record_open it
// does not stop at the first fault, changes nothing on the disk, and belongs to one process.
#ifndef IMF_TEXT_RECORD_CHECK_H
#define IMF_TEXT_RECORD_CHECK_H

#include "text/record.h"

typedef struct RecordCheck {
    void *user;
    // A fault; file: a name in the set's directory; line: 1-based, 0 for the file as a whole.
    Err (*fault)(void *user, const char *file, int64_t line, const char *what);
    // A record in the files' order; data is borrowed, NULL when its line is damaged but its index still names it.
    Err (*record)(void *user, Id id, const json_t *data, const char *file, int64_t line);
} RecordCheck;

typedef struct RecordState {
    bool there, ended;
    int64_t records, files;
    int64_t torn;    // last lines of a running or stopped stage that are not whole; readers skip them
    Id digest;       // of an ended set: as `done` says, or of what is there when it is lost
    json_t *header;  // first header line, or `done` when it is ended; owned by the caller, NULL when there is none
} RecordState;

// Local. A stage that never ran is not there; one without `done` has not ended: neither is a fault.
Err record_check(const char *run_dir, const char *stage, const RecordCheck *c, RecordState *out) ERR_MUST_CHECK;

#endif
