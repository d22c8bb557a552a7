// SPDX-License-Identifier: Apache-2.0
// imf eval: how good are the target, the SFT and the DPO model on prompts that no stage has seen?
//
// Each model answers each held-out prompt once; math and code answers are right or wrong by the judges, instruction answers
// get the share of checks met. The reward model that chose the pairs never decides: its mean is a separate column.
//
// Common random numbers: a prompt's draws are keyed by (set, prompt, decoding, seed) without the model, so that two models
// which agree on a token's distribution draw the same token; paired differences are then less noisy. Records of a model live
// in a set of their own (run_dir/eval/NAME), so models can be added to a run later, and a killed job goes on where it was.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "par/par.h"
#include "stage/eval_parts.h"
#include "text/prompt.h"
#include "text/record.h"

// ---- items -------------------------------------------------------------------------------------------------------------

static const char *set_text(const Deck *d, int64_t i, const char *key)
{
    char path[64];
    snprintf(path, sizeof path, "eval.sets[%lld].%s", (long long)i, key);
    return deck_str(d, path);
}

static void set_name(const char *path, const char *given, char out[64])
{
    snprintf(out, 64, "%s", *given ? given : io_basename(path));
    char *dot = strrchr(out, '.');
    if (!*given && dot && dot != out) *dot = 0;
}

typedef struct Reading {
    EvalItems *items;
    const Protocol *protocol;
    const char *set, *kind;
    SamplingParams params;
    uint64_t seed;
    int64_t unfit;
} Reading;

static Err item_id(const Reading *r, EvalItem *e)
{
    Hash *h;
    TRY(hash_new(&h));
    hash_add_text(h, r->set);
    hash_add_id(h, e->prompt);
    hash_add_f64(h, e->params.temperature);
    hash_add_f64(h, e->params.top_p);
    hash_add_i64(h, e->params.max_new_tokens);
    hash_add_i64(h, (int64_t)r->seed);
    if (*r->protocol->name) hash_add_text(h, r->protocol->name);
    e->id = hash_end(h);
    return OK;
}

static Err note_dropped(EvalItems *s, const char *set, const char *where, Id prompt, const char *reason)
{
    json_t *line = json_pack("{s:s, s:s*, s:o, s:s}", "set", set, "row", where, "prompt", json_id(prompt), "reason", reason);
    CHECK(line, ERR_UNAVAILABLE, "out of memory for JSON");
    Err err = json_canonical(line, &s->dropped);
    json_decref(line);
    return err == OK ? str_puts(&s->dropped, "\n") : err;
}

static Err add_item(void *user, const json_t *row, const char *where)
{
    Reading *r = user;
    EvalItems *s = r->items;
    const char *unfit;
    EvalItem e = {.set = r->set, .params = r->params, .fuseeval = r->protocol->fuseeval};
    TRY(protocol_import(r->protocol, row, r->kind, r->set, where, &e.data, &e.prompt, &unfit));
    if (unfit) {
        r->unfit++;
        json_decref(e.data);
        return note_dropped(s, r->set, where, e.prompt, unfit);
    }
    Err err = OK;
    TRY_DONE(json_get_text(e.data, "kind", where, &e.kind));
    TRY_DONE(item_id(r, &e));
    e.draw = rng_uniform(rng_key_from_id(e.prompt), r->seed);
    TRY_DONE(MEM_GROW(&s->item, s->n, &s->cap, s->n + 1));
    s->item[s->n++] = e;
    return OK;
done:
    json_decref(e.data);
    return err;
}

static int by_id(const void *pa, const void *pb)
{
    return id_compare(((const EvalItem *)pa)->id, ((const EvalItem *)pb)->id);
}

static int by_draw(const void *pa, const void *pb)
{
    const EvalItem *a = pa, *b = pb;
    return a->draw != b->draw ? (a->draw > b->draw) - (a->draw < b->draw) : id_compare(a->id, b->id);
}

static Err drop_item(EvalItems *s, EvalItem *e, const char *reason)
{
    Err err = note_dropped(s, e->set, NULL, e->prompt, reason);
    json_decref(e->data);
    return err;
}

// Of items first .. n-1: keeps one of those with the same id. Their order is that of ids afterwards.
static Err drop_duplicates(EvalItems *s, int64_t first)
{
    int64_t kept = first, n = s->n;
    Err err = OK;
    MEM_SORT(s->item + first, n - first, by_id);
    for (int64_t i = first; i < n; i++) {
        EvalItem *e = &s->item[i];
        if (kept == first || !id_equal(e->id, s->item[kept - 1].id)) s->item[kept++] = *e;
        else if (err == OK) err = drop_item(s, e, "duplicate");
        else json_decref(e->data);
    }
    s->n = kept;
    if (kept < n)
        log_warn("eval", "%s: %lld prompts occur twice; the first of them counts (listed in eval/dropped.jsonl)", s->item[first].set,
                 (long long)(n - kept));
    return err;
}

// Of items first .. n-1: keeps the `limit` (0: all) whose draws are lowest.
static Err apply_limit(EvalItems *s, int64_t first, int64_t limit)
{
    Err err = OK;
    if (!limit || s->n - first <= limit) return OK;
    MEM_SORT(s->item + first, s->n - first, by_draw);
    while (s->n > first + limit) {
        EvalItem *e = &s->item[--s->n];
        if (err == OK) err = drop_item(s, e, "over eval.sets[].limit");
        else json_decref(e->data);
    }
    return err;
}

static Err read_set(const Deck *d, EvalItems *items, int64_t i)
{
    char key[64];
    const char *path = set_text(d, i, "path");
    Reading r = {.items = items, .kind = set_text(d, i, "kind"), .seed = (uint64_t)deck_i64(d, "eval.seed")};
    const int64_t first = items->n;
    set_name(path, set_text(d, i, "name"), items->set[i]);
    r.set = items->set[i];
    TRY(protocol_find(set_text(d, i, "protocol"), &r.protocol));
    bool greedy = r.protocol->greedy;
    int64_t longest = deck_i64(d, "eval.max_new_tokens");
    if (r.protocol->max_new_tokens && !deck_given(d, "eval.max_new_tokens")) longest = r.protocol->max_new_tokens;
    r.params = (SamplingParams){.temperature = greedy ? 0 : deck_f64(d, "eval.temperature"),
                                .top_p = greedy ? 1 : deck_f64(d, "eval.top_p"),
                                .repetition_penalty = 1,
                                .max_new_tokens = longest};
    TRY(jsonl_each(path, add_item, &r));
    if (r.unfit) log_warn("eval", "%s: %lld rows have no gold answer, tests or checks and are left out (listed in eval/dropped.jsonl)", path,
                          (long long)r.unfit);
    CHECK(items->n > first, ERR_DATA, "%s holds no prompt that can be evaluated", path);
    snprintf(key, sizeof key, "eval.sets[%lld].limit", (long long)i);
    TRY(drop_duplicates(items, first));
    return apply_limit(items, first, deck_i64(d, key));
}

Err eval_items_load(const Deck *d, EvalItems *out)
{
    *out = (EvalItems){.sets = deck_count(d, "eval.sets")};
    CHECK(out->sets > 0, ERR_RECIPE, "the recipe names no held-out prompts; add eval: {sets: [{path: FILE.jsonl}]}");
    Err err = MEM_ARRAY(&out->set, out->sets);
    for (int64_t i = 0; i < out->sets && err == OK; i++) err = read_set(d, out, i);
    if (err == OK) MEM_SORT(out->item, out->n, by_id);
    else eval_items_free(out);
    return err;
}

void eval_items_free(EvalItems *s)
{
    for (int64_t i = 0; i < s->n; i++) json_decref(s->item[i].data);
    mem_free(s->item);
    mem_free(s->set);
    str_free(&s->dropped);
    *s = (EvalItems){0};
}

// ---- models ------------------------------------------------------------------------------------------------------------

// NAME, or NAME=DIR for any other model directory.
static Err parse_model(const Job *job, const char *text, EvalModel *m)
{
    const char *dir = strchr(text, '=');
    int n = (int)(dir ? dir - text : (long)strlen(text));
    CHECK(n > 0 && n < EVAL_NAME && !memchr(text, '/', (size_t)n), ERR_RECIPE,
          "eval.models: '%s' is no name of a model; say target, sft, dpo, sft_more or NAME=DIR", text);
    snprintf(m->name, sizeof m->name, "%.*s", n, text);
    snprintf(m->answers, sizeof m->answers, "eval/%s", m->name);
    snprintf(m->scores, sizeof m->scores, "eval/%s.scores", m->name);
    const char *target = "";
    if (dir) snprintf(m->dir, sizeof m->dir, "%s", dir + 1);
    else if (strcmp(m->name, "target")) snprintf(m->dir, sizeof m->dir, "%s/%s/model", job->run_dir, m->name);
    else {
        TRY(deck_need(job->deck, "target.path", &target));
        snprintf(m->dir, sizeof m->dir, "%s", target);
    }
    CHECK(io_is_dir(m->dir), ERR_NOINPUT, "eval.models names %s, but %s is not there; train it first or leave it out", m->name,
          m->dir);
    return OK;
}

static Err parse_models(const Job *job, EvalModel *m, int *models)
{
    char list[4096], *save = NULL;
    snprintf(list, sizeof list, "%s", deck_str(job->deck, "eval.models"));
    *models = 0;
    for (char *s = strtok_r(list, ",", &save); s; s = strtok_r(NULL, ",", &save)) {
        CHECK(*models < EVAL_MODELS, ERR_RECIPE, "eval.models names more than %d models", EVAL_MODELS);
        TRY(parse_model(job, s, &m[*models]));
        for (int i = 0; i < *models; i++)
            CHECK(strcmp(m[i].name, m[*models].name), ERR_RECIPE, "eval.models names %s twice", m[i].name);
        ++*models;
    }
    CHECK(*models > 0, ERR_RECIPE, "eval.models is empty; say for example target,sft,dpo");
    return OK;
}

static Err write_dropped(const Job *job, const Str *lines)
{
    char path[IO_PATH];
    TRY(io_join(path, job->run_dir, "eval"));
    TRY(io_mkdirs(path));
    TRY(io_join(path, job->run_dir, "eval/dropped.jsonl"));
    return io_write(path, str_text(lines), lines->len);
}

Err stage_eval(const Job *job)
{
    EvalModel *m;
    EvalItems items = {0};
    int models;
    Err err = OK;
    TRY(MEM_ARRAY(&m, EVAL_MODELS));
    TRY_DONE(par_agree(parse_models(job, m, &models)));
    TRY_DONE(par_agree(eval_items_load(job->deck, &items)));
    TRY_DONE(par_agree(par_rank() == 0 ? write_dropped(job, &items.dropped) : OK));
    for (int i = 0; i < models; i++) {
        TRY_DONE(par_stop_agree("eval"));
        TRY_DONE(eval_answer(job, m, i, &items));
        TRY_DONE(eval_score(job, &m[i], &items));
    }
    TRY_DONE(eval_summary(job, m, models, &items));
done:
    eval_items_free(&items);
    mem_free(m);
    return err;
}
