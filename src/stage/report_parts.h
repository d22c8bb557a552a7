// Inside of `imf report`: report.c (gathers, prints the table), report_page.c (the page), report_curve.c (its drawings),
// report_phases.c (its table of times).
#ifndef IMF_STAGE_REPORT_PARTS_H
#define IMF_STAGE_REPORT_PARTS_H

#include <jansson.h>

#include "base/str.h"

typedef struct Report {
    const char *run_dir;
    json_t *eval;      // eval/summary.json, NULL: not there
    json_t *pair;      // pair.json, NULL: not there
    json_t *metrics;   // array of the lines of metrics.jsonl
    json_t *profile;   // array of the lines of profile.jsonl
    json_t *sets;      // array of {name, count, digest}
    json_t *examples;  // array of pair records
    json_t *answers;   // array of eval records: the same prompts by several models
    json_t *asked;     // their prompts' messages by id
} Report;

// The whole page, appended.
Err report_page(const Report *r, Str *out) ERR_MUST_CHECK;

// Text with &, <, > and quotes made harmless.
Err report_escape(Str *out, const char *text) ERR_MUST_CHECK;

// A drawing of up to four fields of the lines of one stage against the step; nothing when no line has any of them.
Err report_curve(Str *out, const json_t *metrics, const char *stage, const char *title, const char *const *fields, int n)
    ERR_MUST_CHECK;

// A row for every stage that ran, from the lines of profile.jsonl; nothing when there is none.
Err report_phases(Str *out, const json_t *lines) ERR_MUST_CHECK;

// "52.1 [49.8, 54.4]" in percent, with signs when the mean is "diff"; "-" when the row is NULL.
void report_interval(const json_t *row, const char *mean, char out[64]);
// The row of (model, set, kind), NULL when there is none.
const json_t *report_row(const json_t *rows, const char *model, const char *set, const char *kind);
// The row of the difference of two models on the set and kind of `group`, NULL when there is none.
const json_t *report_pair(const json_t *paired, const json_t *a, const json_t *b, const json_t *group);
// Which differences b - a are shown (summary.json has all): each model with the one before it, the last one with all.
bool report_shows(size_t a, size_t b, size_t models);
// Distinct values of a field (or of "set" and "kind" together, as {set, kind, n}), in order of appearance: new array.
json_t *report_models(const json_t *rows);
json_t *report_groups(const json_t *rows);

#endif
