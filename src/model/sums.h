// SPDX-License-Identifier: Apache-2.0
// checksums.json: what vouches for the files of an exported model directory, as a manifest does for a checkpoint.
//
//   {"check": "<XXH3-128 of all that follows>",
//    "files":{"config.json":{"bytes":554,"xxh3":"<32 hex>"}, ..},"format":"imf-model-1","program":".."}
#ifndef IMF_MODEL_SUMS_H
#define IMF_MODEL_SUMS_H

#include "base/hash.h"

#define SUMS_FILE "checksums.json"

// Local. Sizes and sums of every file of `dir`; called before the directory gets its name.
Err sums_write(const char *dir) ERR_MUST_CHECK;

// Called with the name of a file that is not as it was written, and what is wrong with it.
typedef Err (*SumsFault)(void *user, const char *file, const char *what);
// Local, read-only. An error of its own only when the directory cannot be read; a damaged checksums.json is a fault.
// *files: how many were compared; -1 without a checksums.json (an earlier imf, or another program, wrote the model).
Err sums_check(const char *dir, SumsFault fault, void *user, int64_t *files) ERR_MUST_CHECK;

#endif
