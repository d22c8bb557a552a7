// SPDX-License-Identifier: Apache-2.0
// Counts over the records of a run: one look at every record. What needs a sample's source or a prompt's data set finds it by
// id.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "stage/report_parts.h"

// Of every sample, in the order of the set.
typedef struct Work {
    double *score;    // NAN: none
    int64_t *length;  // in characters, until all are found to have tokens
    int64_t *tokens;  // -1: only the text was kept, as a user's own answers are
    int64_t *prompt;  // -1: it is not among the prompts
    int8_t *source, *outcome;
    int8_t *dataset;  // of every prompt
    int64_t samples, prompts;
} Work;

int report_name(json_t *names, const char *name)
{
    size_t i, n = json_array_size(names);
    const json_t *old;
    json_array_foreach(names, i, old) if (!strcmp(json_string_value(old), name)) return (int)i;
    if (n == REPORT_NAMES - 1) json_array_append_new(names, json_string("all others"));
    else if (n < REPORT_NAMES) json_array_append_new(names, json_string(*name ? name : "(no name)"));
    return n < REPORT_NAMES ? (int)n : REPORT_NAMES - 1;
}

static int name_of(json_t *names, const json_t *data, const char *key)
{
    const char *s = report_text(data, key);
    return report_name(names, *s ? s : "(no name)");
}

static int64_t find(RecordSet *s, const json_t *data, const char *key)
{
    Id id;
    return id_parse(report_text(data, key), &id) ? record_find(s, id) : -1;
}

// ---- one look at each set --------------------------------------------------------------------------------------------

typedef Err (*Look)(Report *r, Work *w, int64_t i, const json_t *data);

static Err each(Report *r, Work *w, int set, Look look)
{
    RecordSet *s = life_set(r->life, set);
    for (int64_t i = 0; i < record_count(s); i++) {
        json_t *data;
        TRY(record_read(s, i, &data));
        Err err = look(r, w, i, data);
        json_decref(data);
        TRY(err);
    }
    return OK;
}

static Err look_prompt(Report *r, Work *w, int64_t i, const json_t *data)
{
    w->dataset[i] = (int8_t)name_of(r->tally.datasets, data, "dataset");
    return OK;
}

// Characters: bytes that do not continue one.
static int64_t characters(const char *s)
{
    int64_t n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static Err look_sample(Report *r, Work *w, int64_t i, const json_t *data)
{
    ReportTally *t = &r->tally;
    int s = w->source[i] = (int8_t)name_of(t->sources, data, "source");
    const json_t *ids = json_object_get(data, "ids");
    w->length[i] = characters(report_text(data, "text"));
    w->tokens[i] = json_is_array(ids) ? (int64_t)json_array_size(ids) : -1;
    w->prompt[i] = find(life_set(r->life, LIFE_PROMPTS), data, "prompt");
    w->score[i] = NAN;
    w->outcome[i] = REPORT_NONE;
    t->samples[s]++;
    t->cut[s] += !strcmp(report_text(data, "finish"), "length");
    return OK;
}

static Err look_score(Report *r, Work *w, int64_t i, const json_t *data)
{
    ReportTally *t = &r->tally;
    int64_t at = find(life_set(r->life, LIFE_SAMPLES), data, "sample");
    const json_t *score = json_object_get(data, "score");
    (void)i;
    if (at < 0 || !json_is_number(score) || !isfinite(json_number_value(score))) return OK;
    w->score[at] = json_number_value(score);
    t->scored[w->source[at]]++;
    t->score_sum[w->source[at]] += w->score[at];
    return OK;
}

static Err look_verdict(Report *r, Work *w, int64_t i, const json_t *data)
{
    static const char *const outcomes[] = {"right", "wrong", "undecided"};
    int64_t at = find(life_set(r->life, LIFE_SAMPLES), data, "sample");
    (void)i;
    for (int o = 0; o < REPORT_NONE && at >= 0; o++)
        if (!strcmp(report_text(data, "outcome"), outcomes[o]))
            w->outcome[at] = (int8_t)o, r->tally.outcome[w->source[at]][o]++;
    return OK;
}

static int dataset_of(Report *r, const Work *w, const json_t *data)
{
    int64_t p = find(life_set(r->life, LIFE_PROMPTS), data, "prompt");
    return p < 0 ? report_name(r->tally.datasets, "(not among the prompts)") : w->dataset[p];
}

static Err look_row(Report *r, Work *w, int64_t i, const json_t *data)
{
    (void)i;
    r->tally.rows[dataset_of(r, w, data)][name_of(r->tally.sources, data, "source")]++;
    return OK;
}

static Err look_pair(Report *r, Work *w, int64_t i, const json_t *data)
{
    (void)i;
    r->tally.pairs[dataset_of(r, w, data)][name_of(r->tally.sources, data, "source")]++;
    return OK;
}

// Lengths are in tokens when every answer has them.
static void choose_unit(ReportTally *t, Work *w)
{
    t->tokens = true;
    for (int64_t i = 0; i < w->samples; i++) t->tokens = t->tokens && w->tokens[i] >= 0;
    for (int64_t i = 0; i < w->samples; i++) {
        if (t->tokens) w->length[i] = w->tokens[i];
        t->length_sum[w->source[i]] += (double)w->length[i];
    }
}

// ---- histograms ------------------------------------------------------------------------------------------------------

static double value(const Work *w, bool scores, int64_t i) { return scores ? w->score[i] : (double)w->length[i]; }

// At most 24 bins of a step of 1, 2 or 5 times a power of ten.
static void scale(ReportHist *h, double lo, double hi, double least)
{
    h->step = hi > lo ? fmax(least, report_nice((hi - lo) / 9)) : fmax(least, report_nice(fmax(1e-6, fabs(lo) / 10)));
    h->lo = h->step * floor(lo / h->step + 1e-9);
    h->bins = 1 + (int)floor((hi - h->lo) / h->step + 1e-9);
    if (h->bins > REPORT_BINS) h->bins = REPORT_BINS;
}

static void fill(ReportHist *h, const Work *w, bool scores)
{
    double lo = INFINITY, hi = -INFINITY;
    for (int64_t i = 0; i < w->samples; i++) {
        double x = value(w, scores, i);
        if (!isnan(x)) lo = fmin(lo, x), hi = fmax(hi, x);
    }
    if (lo > hi) return;
    scale(h, lo, hi, scores ? 0 : 1);
    for (int64_t i = 0; i < w->samples; i++) {
        double x = value(w, scores, i);
        if (isnan(x)) continue;
        int b = (int)floor((x - h->lo) / h->step + 1e-9);
        h->count[w->source[i]][b < 0 ? 0 : b < h->bins ? b : h->bins - 1]++;
    }
}

// ---- answers to read -------------------------------------------------------------------------------------------------

typedef struct Ends {
    int64_t best, worst, n;  // samples; n: scored
} Ends;

static Err find_ends(const Work *w, Ends **out)
{
    TRY(MEM_ARRAY(out, w->prompts));
    for (int64_t i = 0; i < w->samples; i++) {
        if (isnan(w->score[i]) || w->prompt[i] < 0) continue;
        Ends *e = &(*out)[w->prompt[i]];
        if (e->n == 0 || w->score[i] > w->score[e->best]) e->best = i;
        if (e->n == 0 || w->score[i] < w->score[e->worst]) e->worst = i;
        e->n++;
    }
    return OK;
}

static void take_pick(Report *r, const Work *w, int64_t prompt, const Ends *e)
{
    ReportPick *p = &r->tally.pick[r->tally.picks++];
    const int64_t at[2] = {e->best, e->worst};
    p->prompt = record_id(life_set(r->life, LIFE_PROMPTS), prompt);
    for (int k = 0; k < 2; k++) {
        p->sample[k] = record_id(life_set(r->life, LIFE_SAMPLES), at[k]);
        p->score[k] = w->score[at[k]];
        p->outcome[k] = w->outcome[at[k]];
    }
}

static bool is_able(const Work *w, const Ends *e) { return e->n > 1 && w->score[e->best] > w->score[e->worst]; }

// The data sets take turns; each gives its prompts, whose best and worst answers differ in score, in the order of their ids.
static void pick(Report *r, const Work *w, const Ends *e)
{
    int64_t next[REPORT_NAMES] = {0};
    int sets = (int)json_array_size(r->tally.datasets), empty = 0;
    for (int d = 0; r->tally.picks < REPORT_PICKS && empty < sets; d = (d + 1) % sets) {
        int64_t i = next[d];
        while (i < w->prompts && (w->dataset[i] != d || !is_able(w, &e[i]))) i++;
        if (i < w->prompts) take_pick(r, w, i, &e[i]);
        empty = i < w->prompts ? 0 : empty + 1;
        next[d] = i + 1;
    }
}

// ---- all of it -------------------------------------------------------------------------------------------------------

static Err look_at_all(Report *r, Work *w)
{
    Ends *ends = NULL;
    TRY(each(r, w, LIFE_PROMPTS, look_prompt));
    TRY(each(r, w, LIFE_SAMPLES, look_sample));
    TRY(each(r, w, LIFE_SCORES, look_score));
    TRY(each(r, w, LIFE_VERDICTS, look_verdict));
    TRY(each(r, w, LIFE_ROWS, look_row));
    TRY(each(r, w, LIFE_PAIRS, look_pair));
    choose_unit(&r->tally, w);
    fill(&r->tally.score, w, true);
    fill(&r->tally.length, w, false);
    Err err = find_ends(w, &ends);
    if (err == OK) pick(r, w, ends);
    mem_free(ends);
    return err;
}

Err report_tally(Report *r)
{
    Work w = {.samples = record_count(life_set(r->life, LIFE_SAMPLES)),
              .prompts = record_count(life_set(r->life, LIFE_PROMPTS))};
    Err err = OK;
    for (int64_t i = 0; i < deck_count(r->deck, "sources"); i++) {
        char key[64];
        snprintf(key, sizeof key, "sources[%lld].name", (long long)i);
        report_name(r->tally.sources, deck_str(r->deck, key));
    }
    TRY_DONE(MEM_ARRAY(&w.score, w.samples));
    TRY_DONE(MEM_ARRAY(&w.length, w.samples));
    TRY_DONE(MEM_ARRAY(&w.tokens, w.samples));
    TRY_DONE(MEM_ARRAY(&w.prompt, w.samples));
    TRY_DONE(MEM_ARRAY(&w.source, w.samples));
    TRY_DONE(MEM_ARRAY(&w.outcome, w.samples));
    TRY_DONE(MEM_ARRAY(&w.dataset, w.prompts));
    TRY_DONE(look_at_all(r, &w));
done:
    mem_free(w.score);
    mem_free(w.length);
    mem_free(w.tokens);
    mem_free(w.prompt);
    mem_free(w.source);
    mem_free(w.outcome);
    mem_free(w.dataset);
    return err;
}
