// SPDX-License-Identifier: Apache-2.0
// Inside of `imf report`: report.c (gathers, prints the table), report_tally.c (counts over the records), report_drops.c
// (what was left out), report_html.c (escaping, tables, parts of a page), report_page.c (the page, its first and last
// sections), report_results.c, report_sets.c (from prompts to pairs), report_hist.c, report_curve.c (drawings),
// report_lives.c (texts to read), report_phases.c (times).
#ifndef IMF_STAGE_REPORT_PARTS_H
#define IMF_STAGE_REPORT_PARTS_H

#include <jansson.h>

#include "base/deck.h"
#include "base/str.h"
#include "stage/life.h"

enum {
    REPORT_NAMES = 12,  // sources, or data sets, that are told apart; the last one stands for all others
    REPORT_BINS = 26,   // of a histogram
    REPORT_PICKS = 5,   // prompts whose best and worst answers are shown
    REPORT_IDS = 5      // ids that are shown of those left out for one reason
};

// What the verify stage said; NONE: nothing.
enum { REPORT_RIGHT, REPORT_WRONG, REPORT_UNDECIDED, REPORT_NONE, REPORT_OUTCOMES };

// Bin b holds lo + b step <= x < lo + (b + 1) step. bins 0: nothing to show.
typedef struct ReportHist {
    double lo, step;
    int bins;
    int64_t count[REPORT_NAMES][REPORT_BINS];  // by source
} ReportHist;

typedef struct ReportPick {
    Id prompt, sample[2];  // best, worst
    double score[2];
    int outcome[2];
} ReportPick;

typedef struct ReportTally {
    json_t *sources, *datasets;  // names: as in the recipe, then as they appear
    int64_t samples[REPORT_NAMES], cut[REPORT_NAMES], scored[REPORT_NAMES], outcome[REPORT_NAMES][REPORT_OUTCOMES];
    double score_sum[REPORT_NAMES], length_sum[REPORT_NAMES];
    ReportHist score, length;
    bool tokens;                                                                  // lengths are in tokens; else in characters
    int64_t rows[REPORT_NAMES][REPORT_NAMES], pairs[REPORT_NAMES][REPORT_NAMES];  // [data set][source of the chosen answer]
    ReportPick pick[REPORT_PICKS];
    int picks;
} ReportTally;

typedef struct Report {
    const char *run_dir;
    const Deck *deck;
    Life *life;
    json_t *eval;      // eval/summary.json, NULL: not there
    json_t *pair;      // pair.json, NULL: not there
    json_t *metrics;   // array of the lines of metrics.jsonl
    json_t *speed;     // array of the lines of speed.jsonl, with "tokens_per_s"
    json_t *profile;   // array of the lines of profile.jsonl
    json_t *log;       // array of the warnings and the lines about the machine of log.jsonl
    json_t *torn;      // {file: lines that could not be read}
    json_t *sets;      // array of {name, count, digest} of ended stages
    json_t *drops;     // array of {stage, of, what, reason, n, ids}
    json_t *answers;   // array of eval records: the same prompts by several models
    json_t *asked;     // their prompts' messages by id
    ReportTally tally;
} Report;

// ---- counting: local, on rank 0 ----------------------------------------------------------------------------------------

// Fills r->tally from the record sets: one look at every record, 40 bytes a sample of memory.
Err report_tally(Report *r) ERR_MUST_CHECK;
// Fills r->drops from the record sets and lists of what was left out, counted by reason.
Err report_drops(Report *r) ERR_MUST_CHECK;
// The number of a name; it is added when it is new, and names over the limit share the last number.
int report_name(json_t *names, const char *name);

// ---- parts of a page ---------------------------------------------------------------------------------------------------

// Text with &, <, > and quotes made harmless, and characters that nobody sees or that turn the direction of text shown as
// [U+202E].
Err report_escape(Str *out, const char *text) ERR_MUST_CHECK;
// `text` escaped, the others as they are.
Err report_put(Str *out, const char *before, const char *text, const char *after) ERR_MUST_CHECK;
// At most so many characters of it, escaped.
Err report_label(Str *out, const char *text, int most) ERR_MUST_CHECK;
// The next section, and in one sentence what it shows. Closed by report_end.
Err report_section(Str *out, const char *id, const char *title, const char *caption) ERR_MUST_CHECK;
Err report_end(Str *out) ERR_MUST_CHECK;
// A table that scrolls inside of itself where it is too wide.
Err report_table(Str *out, const char *label) ERR_MUST_CHECK;
Err report_table_end(Str *out) ERR_MUST_CHECK;
Err report_cell(Str *out, const char *tag, const char *content) ERR_MUST_CHECK;  // tag: "td", "th", "td class=\"n\""
Err report_cell_value(Str *out, const json_t *v) ERR_MUST_CHECK;
Err report_cell_count(Str *out, int64_t n) ERR_MUST_CHECK;  // 12 345
// A text to read; what is longer than a page is cut, and says so.
Err report_block(Str *out, const char *class, const char *content) ERR_MUST_CHECK;

const char *report_text(const json_t *o, const char *key);  // "" when it is not there
double report_number(const json_t *o, const char *key);

// The largest of 1, 2, 5 times a power of ten that is not above x.
double report_nice(double x);
void report_count(int64_t n, char out[32]);  // 12 345
void report_tick(double v, char out[40]);    // short: 0.25, 12000, 3e-5, a minus sign

// ---- sections ----------------------------------------------------------------------------------------------------------

Err report_page(const Report *r, Str *out) ERR_MUST_CHECK;  // the whole page, appended
Err report_results(const Report *r, Str *out) ERR_MUST_CHECK;
Err report_headline(const Report *r, Str *out) ERR_MUST_CHECK;
Err report_sets(const Report *r, Str *out) ERR_MUST_CHECK;
Err report_hists(const Report *r, Str *out) ERR_MUST_CHECK;
Err report_training(const Report *r, Str *out) ERR_MUST_CHECK;
Err report_lives(const Report *r, Str *out) ERR_MUST_CHECK;
Err report_phases(const Report *r, Str *out) ERR_MUST_CHECK;

// ---- results -----------------------------------------------------------------------------------------------------------

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
