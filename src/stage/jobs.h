// SPDX-License-Identifier: Apache-2.0
// The jobs that worked on a run directory, one after the other: jobs.jsonl, a line a job:
//   {"time","command","host","ranks","threads","dtype","isa","gemm","program"} and, where equal bits end, "break"
// gemm: who multiplies fp32 matrices, "oneDNN" or "own".
#ifndef IMF_STAGE_JOBS_H
#define IMF_STAGE_JOBS_H

#include "base/err.h"
#include "kernels/ops.h"

#define JOBS_FILE "jobs.jsonl"

// Collective, and so is the error. Adds this job's line. Where the job before computed on another instruction set level or with
// another gemm, results are not the bits of an undisturbed run: it warns, and "break" names both.
Err jobs_begin(const char *run_dir, const char *command, const Ctx *ctx) ERR_MUST_CHECK;

#endif
