// SPDX-License-Identifier: Apache-2.0
// imf pair: scores and verdicts to SFT rows and preference pairs. The rules are in pair_rules.h; this file runs them and
// says what came out: for each kind and source the share of samples that verify and of prompts with a valid pair of their
// own, and for each kind how many prompts went where and why the others did not (listed by id in dropped/).
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "par/par.h"
#include "stage/pair_parts.h"

static const char *const kind_names[] = {"if", "math", "code"};

static PairRules rules_of(const Deck *d)
{
    return (PairRules){
        .sft_fraction = deck_f64(d, "pair.sft_fraction"),
        .margin_min = deck_f64(d, "pair.margin_min"),
        .margin_max = deck_f64(d, "pair.margin_max"),
        .math_dpo_fraction = deck_f64(d, "pair.math_dpo_fraction"),
        .code_dpo_fraction = deck_f64(d, "pair.code_dpo_fraction"),
        .window_code = deck_bool(d, "pair.window_code"),
        .code_overlap = deck_bool(d, "pair.code_overlap"),
        .one_per_prompt = deck_bool(d, "pair.one_per_prompt"),
        .allow_weak = deck_bool(d, "pair.allow_weak"),
        .allow_cut = deck_bool(d, "pair.allow_cut"),
    };
}

// What an output depends on: the pair section, the seed, the sources' order, and the digests of what is read.
static Err make_header(const PairData *p, const Deck *deck, json_t **out)
{
    static const char *const sets[] = {SET_PROMPTS, SET_SAMPLES, SET_SCORES, SET_VERDICTS};
    Id recipe;
    TRY(deck_hash_of(deck, "seed pair sources", &recipe));
    json_t *inputs = json_object();
    for (int i = 0; i < 4; i++) json_object_set_new(inputs, sets[i], json_id(p->digest[i]));
    *out = json_pack("{s:o,s:o}", "recipe", json_id(recipe), "inputs", inputs);
    ASSERT(*out);
    return OK;
}

// ---- what came out ---------------------------------------------------------------------------------------------------

typedef struct SourceCount {
    int64_t samples, right, wrong, undecided, unscored, weak, prompts, with_pair;
} SourceCount;

static void count_answers(const PairAnswer *a, int64_t from, int64_t to, SourceCount *c)
{
    for (int64_t i = from; i < to; i++) {
        c->samples++;
        c->right += a[i].verdict == PAIR_RIGHT;
        c->wrong += a[i].verdict == PAIR_WRONG;
        c->undecided += a[i].verdict == PAIR_UNDECIDED;
        c->unscored += !a[i].scored;
        c->weak += a[i].weak;
    }
}

static SourceCount count_source(const PairData *d, const PairRules *r, int kind, int source)
{
    SourceCount c = {0};
    PairChoice pair;
    for (int64_t i = 0; i < d->n_prompts; i++) {
        const PairPrompt *p = &d->p[i];
        int64_t from = p->first, end = p->first + p->n;
        if (p->kind != kind) continue;
        while (from < end && d->a[from].source != source) from++;
        int64_t to = from;
        while (to < end && d->a[to].source == source) to++;
        if (from == to) continue;
        count_answers(d->a, from, to, &c);
        c.prompts++;
        c.with_pair += pair_of_source(r, (PairKind)kind, d->a, from, to, &pair, NULL);
    }
    return c;
}

static double percent(int64_t part, int64_t of) { return of ? 100.0 * (double)part / (double)of : 0; }

static json_t *say_source(const char *kind, const char *source, const SourceCount *c)
{
    char judged[160] = "";
    if (c->right + c->wrong + c->undecided > 0)
        snprintf(judged, sizeof judged, "%" PRId64 " right (%.1f %%), %" PRId64 " wrong, %" PRId64 " undecided, ", c->right,
                 percent(c->right, c->samples), c->wrong, c->undecided);
    log_info("pair", "%s, %s: %" PRId64 " samples: %s%" PRId64 " unscored; %" PRId64 " of %" PRId64
             " prompts with a valid pair of this source (%.1f %%)", kind, source, c->samples, judged, c->unscored, c->with_pair,
             c->prompts, percent(c->with_pair, c->prompts));
    return json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "kind", kind, "source", source, "samples", (json_int_t)c->samples,
                     "right", (json_int_t)c->right, "wrong", (json_int_t)c->wrong, "undecided", (json_int_t)c->undecided,
                     "unscored", (json_int_t)c->unscored, "weak", (json_int_t)c->weak, "prompts", (json_int_t)c->prompts,
                     "with_pair", (json_int_t)c->with_pair);
}

static void count_reason(json_t *reasons, const char *reason)
{
    if (!reason) return;
    json_int_t n = json_integer_value(json_object_get(reasons, reason));
    json_object_set_new(reasons, reason, json_integer(n + 1));
}

static Err reasons_text(json_t *reasons, Str *out)
{
    const char *reason;
    json_t *n;
    str_clear(out);
    json_object_foreach(reasons, reason, n)
        TRY(str_printf(out, "%s%" JSON_INTEGER_FORMAT " %s", out->len ? ", " : "", json_integer_value(n), reason));
    return OK;
}

static Err say_kind(const PairData *d, int kind, json_t **out)
{
    int64_t prompts = 0, sft = 0, pairs = 0, with_pair = 0, dropped = 0;
    json_t *of_prompts = json_object(), *of_samples = json_object();
    Str text = {0};
    Err err = OK;
    for (int64_t i = 0; i < d->n_prompts; i++) {
        const PairPrompt *p = &d->p[i];
        if (p->kind != kind) continue;
        prompts++, sft += p->to_sft, pairs += p->to_dpo ? p->pairs : 0, with_pair += p->pairs > 0, dropped += p->dropped != NULL;
        count_reason(of_prompts, p->dropped);
        for (int64_t k = p->first; k < p->first + p->n; k++) {
            count_reason(of_samples, d->a[k].left_out);
            count_reason(of_samples, d->a[k].not_chosen);
        }
    }
    TRY_DONE(reasons_text(of_prompts, &text));
    log_info("pair", "%s: %" PRId64 " prompts, %" PRId64 " with a valid pair (%.1f %%): %" PRId64 " SFT rows, %" PRId64
             " pairs, %" PRId64 " prompts dropped%s%s", kind_names[kind], prompts, with_pair, percent(with_pair, prompts), sft,
             pairs, dropped, text.len ? ": " : "", str_text(&text));
    TRY_DONE(reasons_text(of_samples, &text));
    if (text.len) log_info("pair", "%s: samples left out: %s", kind_names[kind], str_text(&text));
    *out = json_pack("{s:s,s:I,s:I,s:I,s:I,s:O,s:O}", "kind", kind_names[kind], "prompts", (json_int_t)prompts, "with_pair",
                     (json_int_t)with_pair, "sft_rows", (json_int_t)sft, "pairs", (json_int_t)pairs, "dropped_prompts", of_prompts,
                     "left_out_samples", of_samples);
    ASSERT(*out);
done:
    str_free(&text);
    json_decref(of_prompts);
    json_decref(of_samples);
    return err;
}

static bool has_kind(const PairData *d, int kind)
{
    for (int64_t i = 0; i < d->n_prompts; i++)
        if (d->p[i].kind == kind) return true;
    return false;
}

// Rank 0: log lines and run_dir/pair.json, which the report reads.
static Err say_all(const PairData *d, const PairRules *r, const char *run_dir)
{
    json_t *kinds = json_array(), *sources = json_array(), *one = NULL;
    json_t *all = json_pack("{s:o,s:o}", "kinds", kinds, "sources", sources);
    char path[IO_PATH];
    Str text = {0};
    Err err = OK;
    for (int kind = 0; kind < 3; kind++) {
        if (!has_kind(d, kind)) continue;
        for (int s = 0; s < d->sources.n; s++) {
            SourceCount c = count_source(d, r, kind, s);
            if (c.samples) json_array_append_new(sources, say_source(kind_names[kind], d->sources.name[s], &c));
        }
        TRY_DONE(say_kind(d, kind, &one));
        json_array_append_new(kinds, one);
    }
    TRY_DONE(json_canonical(all, &text));
    TRY_DONE(str_puts(&text, "\n"));
    TRY_DONE(io_join(path, run_dir, "pair.json"));
    TRY_DONE(io_write(path, str_text(&text), text.len));
done:
    str_free(&text);
    json_decref(all);
    return err;
}

static Err make_pairs(PairData *d, const Job *job, const json_t *header, const bool done[PAIR_SETS])
{
    PairRules r = rules_of(job->deck);
    CHECK(r.margin_min <= r.margin_max, ERR_RECIPE, "pair.margin_min %g is above pair.margin_max %g", r.margin_min, r.margin_max);
    TRY(pair_load(d, job->deck));
    TRY(pair_choose(&r, d->a, d->p, d->n_prompts, d->c, &d->choices));
    TRY(pair_write(d, job, header, done));
    return par_agree(par_rank() == 0 ? say_all(d, &r, job->run_dir) : OK);
}

static void say_digests(const char *run_dir)
{
    for (int i = 0; par_rank() == 0 && i < PAIR_SETS; i++) {
        Id digest;
        int64_t n;
        char text[ID_TEXT];
        if (!record_done(run_dir, pair_sets[i], &digest, &n)) continue;
        id_print(digest, text);
        log_info("pair", "%s: %" PRId64 " records, digest %s", pair_sets[i], n, text);
    }
}

// Collective. The summary is written last of all.
static Err is_complete(const char *run_dir, bool last_set_done, bool *out)
{
    char path[IO_PATH];
    TRY(io_join(path, run_dir, "pair.json"));
    *out = last_set_done && io_exists(path);
    return par_bcast(out, sizeof *out, 0);
}

Err stage_pair(const Job *job)
{
    PairData d = {0};
    json_t *header = NULL;
    bool done[PAIR_SETS], complete;
    Err err = OK;
    TRY_DONE(pair_open(&d, job->run_dir));
    TRY_DONE(make_header(&d, job->deck, &header));
    for (int i = 0; i < PAIR_SETS; i++) TRY_DONE(record_begin(job->run_dir, pair_sets[i], header, &done[i]));
    TRY_DONE(is_complete(job->run_dir, done[PAIR_SETS - 1], &complete));
    if (!complete) TRY_DONE(make_pairs(&d, job, header, done));
    say_digests(job->run_dir);
done:
    json_decref(header);
    pair_free(&d);
    return err;
}
