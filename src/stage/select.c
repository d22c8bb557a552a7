// SPDX-License-Identifier: Apache-2.0
// imf select: prompt files to prompt records.
//
// Rank 0 reads the files, drops what cannot serve (duplicates, held-out prompts, rows without what their kind needs), draws
// by id where a limit is set, and writes records in id order. Invariant: neither the order of rows nor their number in a
// file decides which prompts are taken; a prompt that two files have belongs to the one that the recipe names first.
// Drawback: all prompts are in rank 0's memory at once.
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "par/par.h"
#include "stage/stage.h"
#include "text/prompt.h"
#include "text/record.h"

typedef struct Candidate {
    Id id, content;       // of the messages; of everything
    int32_t file;         // index in prompts[]
    double draw;          // in [0, 1): what limits choose by
    const char *dropped;  // reason, or NULL; static text
    json_t *data;         // owned
} Candidate;

typedef struct Selection {
    Candidate *c;
    int64_t n, cap;
    Id *held_out;  // sorted once complete
    int64_t held_outs, held_cap;
    uint64_t seed;
    const char *kind, *dataset;  // of the file being read, as the recipe says
    char file_name[256];         // names the data set where neither recipe nor row does
    int32_t file;
} Selection;

static const char duplicate[] = "duplicate", held_out[] = "held out", file_limit[] = "over prompts[].limit",
                  total_limit[] = "over select.max_prompts";

// --- reading ---------------------------------------------------------------------------------------------------------

static Err content_id(const json_t *data, Id *out)
{
    Str text = {0};
    Err err = json_canonical(data, &text);
    if (err == OK) *out = hash_bytes(str_text(&text), text.len);
    str_free(&text);
    return err;
}

static Err add_prompt(void *user, const json_t *row, const char *where)
{
    Selection *s = user;
    TRY(par_stop_check("select"));
    TRY(MEM_GROW(&s->c, s->n, &s->cap, s->n + 1));
    Candidate *c = &s->c[s->n];
    TRY(prompt_import(row, s->kind, s->dataset, where, &c->data, &c->id, &c->dropped));
    s->n++;
    c->file = s->file;
    c->draw = rng_uniform(rng_key_from_id(c->id), s->seed);
    if (!*json_string_value(json_object_get(c->data, "dataset")))
        CHECK(json_object_set_new(c->data, "dataset", json_string(s->file_name)) == 0, ERR_DATA, "%s: the file's name is not UTF-8",
              where);
    return content_id(c->data, &c->content);
}

static Err add_held_out(void *user, const json_t *row, const char *where)
{
    Selection *s = user;
    json_t *data;
    const char *unfit;
    TRY(MEM_GROW(&s->held_out, s->held_outs, &s->held_cap, s->held_outs + 1));
    TRY(prompt_import(row, "if", "", where, &data, &s->held_out[s->held_outs], &unfit));
    json_decref(data);
    s->held_outs++;
    return OK;
}

// The file's name without its last extension.
static void stem(const char *path, char out[256])
{
    snprintf(out, 256, "%s", io_basename(path));
    char *dot = strrchr(out, '.');
    if (dot && dot != out) *dot = 0;
}

// Value of list[i].key.
static const char *item_text(const Deck *d, const char *list, int64_t i, const char *key)
{
    char path[128];
    snprintf(path, sizeof path, "%s[%lld].%s", list, (long long)i, key);
    return deck_str(d, path);
}

static int64_t item_i64(const Deck *d, const char *list, int64_t i, const char *key)
{
    char path[128];
    snprintf(path, sizeof path, "%s[%lld].%s", list, (long long)i, key);
    return deck_i64(d, path);
}

static Err read_prompts(Selection *s, const Deck *d)
{
    const int64_t files = deck_count(d, "prompts");
    CHECK(files > 0, ERR_RECIPE, "the recipe names no prompts; add prompts: [{path: FILE.jsonl}]");
    for (int64_t i = 0; i < files; i++) {
        const char *path = item_text(d, "prompts", i, "path");
        stem(path, s->file_name);
        s->kind = item_text(d, "prompts", i, "kind");
        s->dataset = item_text(d, "prompts", i, "dataset");
        s->file = (int32_t)i;
        TRY(jsonl_each(path, add_prompt, s));
    }
    return OK;
}

static Err read_held_out(Selection *s, const Deck *d)
{
    static const char *const lists[] = {"select.exclude", "eval.sets"};
    for (int l = 0; l < 2; l++)
        for (int64_t i = 0; i < deck_count(d, lists[l]); i++)
            TRY(jsonl_each(item_text(d, lists[l], i, "path"), add_held_out, s));
    MEM_SORT(s->held_out, s->held_outs, id_compare_qsort);
    return OK;
}

// --- choosing --------------------------------------------------------------------------------------------------------

// By id; of one id first the row that is kept.
static int by_id(const void *pa, const void *pb)
{
    const Candidate *a = pa, *b = pb;
    int order = id_compare(a->id, b->id);
    if (order == 0) order = (a->dropped != NULL) - (b->dropped != NULL);
    if (order == 0) order = a->file - b->file;
    return order ? order : id_compare(a->content, b->content);
}

static int by_draw(const void *pa, const void *pb)
{
    const Candidate *a = *(Candidate *const *)pa, *b = *(Candidate *const *)pb;
    if (a->draw != b->draw) return a->draw < b->draw ? -1 : 1;
    return id_compare(a->id, b->id);
}

static void drop_held_out_and_duplicates(Selection *s)
{
    for (int64_t i = 0; i < s->n; i++) {
        Candidate *c = &s->c[i];
        if (c->dropped) continue;
        if (i > 0 && id_equal(c->id, c[-1].id)) c->dropped = duplicate;
        else if (s->held_outs && bsearch(&c->id, s->held_out, (size_t)s->held_outs, sizeof c->id, id_compare_qsort))
            c->dropped = held_out;
    }
}

// Keeps the `limit` prompts (0: all) of a file (-1: of all) whose draws are lowest.
static Err apply_limit(Selection *s, int32_t file, int64_t limit, const char *reason)
{
    Candidate **of;
    int64_t n = 0;
    if (limit == 0) return OK;
    TRY(MEM_ARRAY(&of, s->n));
    for (int64_t i = 0; i < s->n; i++)
        if (!s->c[i].dropped && (file < 0 || s->c[i].file == file)) of[n++] = &s->c[i];
    MEM_SORT(of, n, by_draw);
    for (int64_t i = limit; i < n; i++) of[i]->dropped = reason;
    mem_free(of);
    return OK;
}

static Err choose(Selection *s, const Deck *d)
{
    MEM_SORT(s->c, s->n, by_id);
    drop_held_out_and_duplicates(s);
    for (int32_t i = 0; i < deck_count(d, "prompts"); i++)
        TRY(apply_limit(s, i, item_i64(d, "prompts", i, "limit"), file_limit));
    return apply_limit(s, -1, deck_i64(d, "select.max_prompts"), total_limit);
}

// --- writing ---------------------------------------------------------------------------------------------------------

static Err write_dropped(RecordWriter *w, const Candidate *c, int64_t copy)
{
    char text[ID_TEXT];
    Hash *h;
    id_print(c->id, text);
    TRY(hash_new(&h));
    hash_add_id(h, c->id);
    hash_add_id(h, c->content);
    hash_add_i64(h, copy);
    Id id = hash_end(h);
    json_t *data = json_pack("{s:s, s:s, s:s, s:O}", "what", "prompt", "id", text, "reason", c->dropped, "dataset",
                             json_object_get(c->data, "dataset"));
    CHECK(data, ERR_UNAVAILABLE, "out of memory for JSON");
    Err err = record_write(w, id, data, NULL);
    json_decref(data);
    return err;
}

// had: what an interrupted job wrote.
static Err write_set(const Selection *s, const char *run_dir, const char *set, const json_t *header, const RecordSet *had,
                     bool dropped)
{
    RecordWriter *w;
    Err err = OK;
    TRY(record_create(&w, run_dir, set, header));
    record_skip(w, had);
    int64_t copy = 0;
    for (int64_t i = 0; i < s->n && err == OK; i++) {
        const Candidate *c = &s->c[i];
        copy = i > 0 && id_equal(c->id, c[-1].id) && id_equal(c->content, c[-1].content) ? copy + 1 : 0;
        if (dropped && c->dropped) err = write_dropped(w, c, copy);
        if (!dropped && !c->dropped) err = record_write(w, c->id, c->data, NULL);
    }
    Err closed = record_close(w);
    return err != OK ? err : closed;
}

static void report(const Selection *s)
{
    int64_t kept = 0, unfit = 0, count[4] = {0};
    const char *const reason[4] = {duplicate, held_out, file_limit, total_limit};
    for (int64_t i = 0; i < s->n; i++) {
        const char *why = s->c[i].dropped;
        int r = 0;
        while (r < 4 && why != reason[r]) r++;
        if (!why) kept++;
        else if (r == 4) unfit++;
        else count[r]++;
    }
    log_info("select", "%lld prompts of %lld rows; dropped: %lld duplicates, %lld held out, %lld without gold or tests, %lld over "
             "limits (listed in " SET_DROPPED_PROMPTS "/)", (long long)kept, (long long)s->n, (long long)count[0],
             (long long)count[1], (long long)unfit, (long long)(count[2] + count[3]));
}

static Err check_some(const Selection *s)
{
    for (int64_t i = 0; i < s->n; i++)
        if (!s->c[i].dropped) return OK;
    FAIL(ERR_DATA, "no prompt is left of %lld rows; imf show on " SET_DROPPED_PROMPTS "/ lists why", (long long)s->n);
}

// Rank 0.
static Err select_all(const Job *job, const json_t *header, const RecordSet *had, const RecordSet *had_dropped)
{
    Selection s = {.seed = (uint64_t)deck_i64(job->deck, "seed")};
    Err err = OK;
    TRY_DONE(read_prompts(&s, job->deck));
    TRY_DONE(read_held_out(&s, job->deck));
    TRY_DONE(choose(&s, job->deck));
    TRY_DONE(write_set(&s, job->run_dir, SET_DROPPED_PROMPTS, header, had_dropped, true));
    report(&s);
    TRY_DONE(check_some(&s));
    TRY_DONE(write_set(&s, job->run_dir, SET_PROMPTS, header, had, false));
done:
    for (int64_t i = 0; i < s.n; i++) json_decref(s.c[i].data);
    mem_free(s.c);
    mem_free(s.held_out);
    return err;
}

// What the prompts are made from: the files' contents and the keys that choose.
static Err make_header(const Deck *d, json_t **out)
{
    static const char *const lists[] = {"prompts", "select.exclude", "eval.sets"};
    char text[ID_TEXT];
    Hash *h;
    Id id;
    TRY(hash_new(&h));
    hash_add_i64(h, deck_i64(d, "seed"));
    hash_add_i64(h, deck_i64(d, "select.max_prompts"));
    Err err = OK;
    for (int l = 0; l < 3 && err == OK; l++)
        for (int64_t i = 0; i < deck_count(d, lists[l]) && err == OK; i++) {
            err = hash_file(item_text(d, lists[l], i, "path"), &id);
            hash_add_id(h, id);
            if (l > 0) continue;
            hash_add_text(h, item_text(d, lists[l], i, "kind"));
            hash_add_text(h, item_text(d, lists[l], i, "dataset"));
            hash_add_i64(h, item_i64(d, lists[l], i, "limit"));
        }
    id_print(hash_end(h), text);
    TRY(err);
    *out = json_pack("{s:s}", "recipe", text);
    CHECK(*out, ERR_UNAVAILABLE, "out of memory for JSON");
    return OK;
}

// Collective.
static Err select_rest(const Job *job, const json_t *header)
{
    RecordSet *had = NULL, *had_dropped = NULL;
    Err err = OK;
    TRY_DONE(record_open(&had, job->run_dir, SET_PROMPTS));
    TRY_DONE(record_open(&had_dropped, job->run_dir, SET_DROPPED_PROMPTS));
    par_stop_watch();
    TRY_DONE(par_agree(par_rank() == 0 ? select_all(job, header, had, had_dropped) : OK));
done:
    record_free(had);
    record_free(had_dropped);
    return err;
}

Err stage_select(const Job *job)
{
    json_t *header = NULL;
    Id digest, dropped;
    bool done;
    char text[ID_TEXT];
    Err err = OK;
    TRY_DONE(par_agree(make_header(job->deck, &header)));
    TRY_DONE(record_begin(job->run_dir, SET_PROMPTS, header, &done));
    if (!done) TRY_DONE(select_rest(job, header));
    TRY_DONE(record_finish(job->run_dir, SET_PROMPTS, &digest));
    TRY_DONE(record_finish(job->run_dir, SET_DROPPED_PROMPTS, &dropped));  // after: a job killed in between can be run again
    id_print(digest, text);
    log_info("select", "%s%s", done ? "done before; digest " : "digest ", text);
done:
    json_decref(header);
    return err;
}
