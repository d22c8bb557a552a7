// SPDX-License-Identifier: Apache-2.0
// Records to arrays. Every rank reads a contiguous share of each set and all ranks gather the compact rows (about 100 bytes
// an answer), so that the rules can run on every rank without another message. Answers stay on disk.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/rng.h"
#include "par/par.h"
#include "stage/pair_parts.h"

typedef struct Score {
    Id sample;
    double score;
    bool scored;
} Score;

typedef struct Judged {
    Id sample;
    int8_t verdict;
    bool weak;
} Judged;

// ---- names -----------------------------------------------------------------------------------------------------------

Err pair_name_number(PairNames *t, const char *name, int64_t *number)
{
    for (*number = 0; *number < t->n; ++*number)
        if (!strcmp(t->name[*number], name)) return OK;
    TRY(MEM_GROW(&t->name, t->n, &t->cap, t->n + 1));
    return mem_strdup(&t->name[t->n++], name);
}

void pair_names_free(PairNames *t)
{
    io_list_free(t->name, t->n);
    *t = (PairNames){0};
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static Err join_names(const PairNames *t, Str *out)
{
    for (int64_t i = 0; i < t->n; i++) TRY(str_add(out, t->name[i], (int64_t)strlen(t->name[i]) + 1));
    return OK;
}

// Adds every rank's names to `all`, new ones in alphabetical order; map: local number -> number in `all`.
static Err unite_names(const PairNames *mine, PairNames *all, int64_t **map)
{
    Str text = {0};
    char *every = NULL;
    PairNames fresh = {0};
    int64_t bytes = 0, number;
    Err err = OK;
    *map = NULL;
    TRY_DONE(join_names(mine, &text));
    TRY_DONE(par_allgather(str_text(&text), text.len, &every, &bytes, NULL));
    for (int64_t at = 0; at < bytes; at += (int64_t)strlen(every + at) + 1)
        TRY_DONE(pair_name_number(&fresh, every + at, &number));
    MEM_SORT(fresh.name, fresh.n, compare_names);
    for (int64_t i = 0; i < fresh.n; i++) TRY_DONE(pair_name_number(all, fresh.name[i], &number));
    TRY_DONE(MEM_ARRAY(map, mine->n));
    for (int64_t i = 0; i < mine->n; i++) TRY_DONE(pair_name_number(all, mine->name[i], &(*map)[i]));
done:
    str_free(&text);
    mem_free(every);
    pair_names_free(&fresh);
    return err;
}

// ---- one record ------------------------------------------------------------------------------------------------------

static Err read_prompt(const json_t *o, const char *where, PairNames *names, PairPrompt *p)
{
    static const char *const kinds[] = {"if", "math", "code"};
    const char *kind, *dataset = json_string_value(json_object_get(o, "dataset"));
    int64_t number;
    TRY(json_get_text(o, "kind", where, &kind));
    for (p->kind = 0; p->kind < 3 && strcmp(kinds[p->kind], kind); p->kind++) {}
    CHECK(p->kind < 3, ERR_DATA, "%s: kind '%s' is none of if, math, code", where, kind);
    TRY(pair_name_number(names, dataset ? dataset : "", &number));
    p->dataset = (int32_t)number;
    return OK;
}

static Err read_sample(const json_t *o, const char *where, PairNames *names, PairAnswer *a)
{
    const char *source, *text;
    int64_t number;
    TRY(json_get_id(o, "prompt", where, &a->prompt));
    TRY(json_get_text(o, "source", where, &source));
    TRY(json_get_text(o, "text", where, &text));
    TRY(json_get_i64(o, "k", where, &a->k));
    TRY(pair_name_number(names, source, &number));
    a->source = (int32_t)number;
    a->text = hash_text(text);
    a->verdict = PAIR_UNJUDGED;
    const char *finish = json_string_value(json_object_get(o, "finish"));
    a->cut = finish && !strcmp(finish, "length");
    return OK;
}

static Err read_score(const json_t *o, const char *where, Score *s)
{
    TRY(json_get_id(o, "sample", where, &s->sample));
    s->scored = !json_object_get(o, "unscored");
    return s->scored ? json_get_f64(o, "score", where, &s->score) : OK;
}

static Err read_verdict(const json_t *o, const char *where, Judged *j)
{
    static const char *const outcomes[] = {"wrong", "right", "undecided"};
    const char *outcome, *trust = json_string_value(json_object_get(o, "trust"));
    TRY(json_get_id(o, "sample", where, &j->sample));
    TRY(json_get_text(o, "outcome", where, &outcome));
    for (j->verdict = 0; j->verdict < 3 && strcmp(outcomes[j->verdict], outcome); j->verdict++) {}
    CHECK(j->verdict < 3, ERR_DATA, "%s: outcome '%s' is none of right, wrong, undecided", where, outcome);
    j->weak = trust && !strcmp(trust, "weak");
    return OK;
}

// ---- a share of a set ------------------------------------------------------------------------------------------------

typedef enum Kind { PROMPT, SAMPLE, SCORE, VERDICT } Kind;

static Err read_row(RecordSet *s, int64_t i, Kind kind, PairNames *names, void *row)
{
    json_t *o;
    char where[ID_TEXT + 16] = "record ";
    id_print(record_id(s, i), where + strlen(where));
    TRY(record_read(s, i, &o));
    Err err = kind == PROMPT   ? read_prompt(o, where, names, row)
              : kind == SAMPLE ? read_sample(o, where, names, row)
              : kind == SCORE  ? read_score(o, where, row)
                               : read_verdict(o, where, row);
    json_decref(o);
    return err;
}

// This rank's share, in id order.
static Err read_share(RecordSet *s, Kind kind, PairNames *names, int64_t size, char **rows, int64_t *n)
{
    int64_t from = record_count(s) * par_rank() / par_size(), to = record_count(s) * (par_rank() + 1) / par_size();
    *n = to - from;
    TRY(mem_alloc(rows, *n, size));
    for (int64_t i = from; i < to; i++) {
        TRY(par_stop_check("pair"));
        TRY(read_row(s, i, kind, names, *rows + (i - from) * size));
    }
    return OK;
}

// All rows on every rank, in id order. Names of prompts and samples are united into `all`.
static Err gather(RecordSet *s, Kind kind, PairNames *all, int64_t size, void *out, int64_t *n)
{
    PairNames mine = {0};
    int64_t *map = NULL, share = 0, from = record_count(s) * par_rank() / par_size();
    char *rows = NULL;
    Err err = OK;
    TRY_DONE(par_agree(read_share(s, kind, &mine, size, &rows, &share)));
    if (all) TRY_DONE(unite_names(&mine, all, &map));
    for (int64_t i = 0; i < share; i++) {
        PairPrompt *p = (PairPrompt *)(rows + i * size);
        PairAnswer *a = (PairAnswer *)(rows + i * size);
        if (kind == PROMPT) p->id = record_id(s, from + i), p->dataset = (int32_t)map[p->dataset];
        if (kind == SAMPLE) a->id = record_id(s, from + i), a->source = (int32_t)map[a->source];
    }
    TRY_DONE(par_allgather(rows, share * size, out, n, NULL));
    *n /= size;
done:
    pair_names_free(&mine);
    mem_free(map);
    mem_free(rows);
    return err;
}

static int compare_to_answer(const void *key, const void *a) { return id_compare(*(const Id *)key, ((const PairAnswer *)a)->id); }

// Answers are still in the order of their ids.
static PairAnswer *find_answer(const PairData *d, Id sample)
{
    return d->answers ? bsearch(&sample, d->a, (size_t)d->answers, sizeof *d->a, compare_to_answer) : NULL;
}

static Err join_scores(PairData *d)
{
    Score *s = NULL;
    int64_t n;
    TRY(gather(d->scores, SCORE, NULL, sizeof *s, &s, &n));
    for (int64_t i = 0; i < n; i++) {
        PairAnswer *a = find_answer(d, s[i].sample);
        if (a) a->score = s[i].score, a->scored = s[i].scored;
    }
    mem_free(s);
    return OK;
}

static Err join_verdicts(PairData *d)
{
    Judged *j = NULL;
    int64_t n;
    for (int64_t i = 0; i < d->n_prompts && !d->verdicts; i++)
        CHECK(d->p[i].kind == PAIR_IF, ERR_NOINPUT,
              "math and code answers have no finished verdicts; run 'imf verify' with this recipe first");
    if (!d->verdicts) return OK;
    TRY(gather(d->verdicts, VERDICT, NULL, sizeof *j, &j, &n));
    for (int64_t i = 0; i < n; i++) {
        PairAnswer *a = find_answer(d, j[i].sample);
        if (a) a->verdict = j[i].verdict, a->weak = j[i].weak;
    }
    mem_free(j);
    return OK;
}

// The recipe's sources come first, in its order.
static Err recipe_sources(const Deck *deck, PairNames *t)
{
    int64_t number;
    for (int64_t i = 0; i < deck_count(deck, "sources"); i++) {
        char key[64];
        snprintf(key, sizeof key, "sources[%lld].name", (long long)i);
        const char *name = deck_str(deck, key);
        snprintf(key, sizeof key, "sources[%lld].path", (long long)i);
        TRY(pair_name_number(t, *name ? name : io_basename(deck_str(deck, key)), &number));
    }
    return OK;
}

Err pair_load(PairData *d, const Deck *deck)
{
    uint64_t seed = (uint64_t)deck_i64(deck, "seed");
    TRY(recipe_sources(deck, &d->sources));
    TRY(gather(d->prompts, PROMPT, &d->datasets, sizeof *d->p, &d->p, &d->n_prompts));
    TRY(gather(d->samples, SAMPLE, &d->sources, sizeof *d->a, &d->a, &d->answers));
    TRY(join_scores(d));
    TRY(join_verdicts(d));
    for (int64_t i = 0; i < d->n_prompts; i++) {
        RngKey key = rng_key_from_id(d->p[i].id);
        d->p[i].draw = (uint64_t)rng_u32(key, 2 * seed) << 32 | rng_u32(key, 2 * seed + 1);
    }
    TRY(MEM_ARRAY(&d->c, d->answers));
    return pair_order(d->a, d->answers, d->p, d->n_prompts);
}

// A run whose prompts have nothing to judge may have no verdicts.
Err pair_open(PairData *d, const char *run_dir)
{
    bool judged = record_done(run_dir, SET_VERDICTS, &d->digest[3], NULL);
    TRY(record_require(&d->prompts, run_dir, SET_PROMPTS, "select", &d->digest[0]));
    TRY(record_require(&d->samples, run_dir, SET_SAMPLES, "sample", &d->digest[1]));
    TRY(record_require(&d->scores, run_dir, SET_SCORES, "score", &d->digest[2]));
    TRY(par_bcast(&judged, sizeof judged, 0));
    TRY(par_bcast(&d->digest[3], sizeof d->digest[3], 0));
    return judged ? record_open(&d->verdicts, run_dir, SET_VERDICTS) : OK;
}

void pair_free(PairData *d)
{
    record_free(d->prompts);
    record_free(d->samples);
    record_free(d->scores);
    record_free(d->verdicts);
    pair_names_free(&d->sources);
    pair_names_free(&d->datasets);
    mem_free(d->a);
    mem_free(d->p);
    mem_free(d->c);
    *d = (PairData){0};
}
