// SPDX-License-Identifier: Apache-2.0
// Results of checks as JUnit XML, which GitLab, Jenkins and others show as a table of tests.
#ifndef IMF_STAGE_JUNIT_H
#define IMF_STAGE_JUNIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

// A check. Texts are borrowed; out and failure may hold any bytes.
typedef struct JunitCase {
    const char *group, *name;
    double seconds;
    bool ran;             // false and no failure: skipped
    const char *out;      // what it found; NULL: nothing
    const char *failure;  // why it failed; NULL: it did not
} JunitCase;

// Local. Writes all checks to path, whole or not at all. ERR_CREATE, before anything is touched, when path is no place for a file.
Err junit_write(const char *path, const char *suite, const JunitCase *cases, int n) ERR_MUST_CHECK;

#endif
