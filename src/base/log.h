// SPDX-License-Identifier: Apache-2.0
// What a person reads: lines on stderr (rank 0 unless told otherwise) and the run directory's log.jsonl.
#ifndef IMF_BASE_LOG_H
#define IMF_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

void log_open(int rank, const char *host);               // before anything is logged
Err log_to(const char *run_dir) ERR_MUST_CHECK;          // rank 0: append to run_dir/log.jsonl from now on
void log_close(void);
void log_quiet(bool quiet);

void log_info(const char *component, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void log_warn(const char *component, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// The stage that runs from now on (its progress goes to run_dir/progress.json); NULL: it has ended, and the file is removed. A stage
// that stops half-way leaves it.
void log_stage(const char *stage);

// Progress of a stage: at most one line a second on a terminal (overwritten), one every 10 s otherwise, with rate and time
// left; the last one, with the time spent, is in log.jsonl too. unit: "tok", "samples", "steps".
//
// Besides, and whatever is quiet or a terminal, rank 0 keeps run_dir/progress.json (at most every 5 s, by rename, no result):
//   {"stage","what","unit","done","total","tokens_per_s","spent_s","left_s","time"}
typedef struct Progress {
    const char *what, *unit;
    int64_t total, first;  // first: done before the start (a resumed stage)
    double started, shown, kept;
} Progress;
void progress_start(Progress *p, const char *what, int64_t total, const char *unit);
void progress_show(Progress *p, int64_t done, int64_t tokens);  // tokens: for tokens/s, 0 = leave out
void progress_note(Progress *p, int64_t done, int64_t tokens);  // the file alone: for stages that print lines of their own
void progress_end(Progress *p, int64_t done, int64_t tokens);

double time_now(void);                   // seconds, monotonic
void time_text(char buf[32]);            // 2026-01-02T03:04:05Z
void time_span(double s, char buf[32]);  // 8.2 s, 45 s, 3 min 05 s, 2 h 10 min

#endif
