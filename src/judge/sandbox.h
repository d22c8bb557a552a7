// SPDX-License-Identifier: Apache-2.0
// The supervisor of candidate programs: one process a rank, forked before MPI_Init, spoken to through a socket pair.
#ifndef IMF_JUDGE_SANDBOX_H
#define IMF_JUDGE_SANDBOX_H

#include <jansson.h>

#include "base/err.h"

// Sends a request to the supervisor and waits for its answer (new reference). Local. Starts the Python processes at the first
// call; ERR_UNAVAILABLE when this machine cannot run code safely.
//   {"op":"describe"}                                       -> {"text"}
//   {"op":"run","program","tests","cpu","memory","output"}  -> {"outcome","reason","weak","cpu"}
Err sandbox_request(const json_t *request, json_t **reply) ERR_MUST_CHECK;

#endif
