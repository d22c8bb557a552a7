// SPDX-License-Identifier: Apache-2.0
// Rows, pairs and the list of what was dropped: each rank writes those of its share of the prompts. Then rank 0 writes the
// exports in the shape of the published data from the ended sets, in id order.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "par/par.h"
#include "stage/pair_parts.h"
#include "text/published.h"

const char *const pair_sets[PAIR_SETS] = {SET_DROPPED, SET_SFT, SET_PAIRS};
enum { DROPPED, SFT, PAIRS };

typedef struct Writing {
    PairData *d;
    RecordWriter *to[PAIR_SETS];  // NULL: that set has ended before
    RecordSet *had[PAIR_SETS];    // what an interrupted job wrote
} Writing;

static Id id_of(const char *what, Id a, Id b)
{
    struct {
        Id what, a, b;
    } parts = {hash_text(what), a, b};
    return hash_bytes(&parts, sizeof parts);
}

static Err read_by_id(RecordSet *s, Id id, json_t **out)
{
    int64_t i = record_find(s, id);
    ASSERT(i >= 0);
    return record_read(s, i, out);
}

static const char *kind_name(int8_t kind) { return kind == PAIR_IF ? "if" : kind == PAIR_MATH ? "math" : "code"; }

static void copy_field(json_t *to, const char *key, const json_t *from, const char *from_key)
{
    json_t *v = json_object_get(from, from_key);
    json_object_set_new(to, key, v ? json_incref(v) : json_null());
}

// sample, answer, ids (and whose tokenizer's), score of one answer.
static Err add_answer(PairData *d, const PairAnswer *a, json_t *to)
{
    json_t *sample;
    TRY(read_by_id(d->samples, a->id, &sample));
    json_object_set_new(to, "sample", json_id(a->id));
    json_object_set_new(to, "score", json_real(a->score));
    copy_field(to, "answer", sample, "text");
    copy_field(to, "ids", sample, "ids");
    copy_field(to, "tokenizer", sample, "tokenizer");
    copy_field(to, "finish", sample, "finish");
    json_decref(sample);
    return OK;
}

// What rows and pairs have in common.
static Err start_row(PairData *d, const PairPrompt *p, const PairAnswer *a, json_t **out)
{
    json_t *prompt;
    TRY(read_by_id(d->prompts, p->id, &prompt));
    *out = json_object();
    json_object_set_new(*out, "prompt", json_id(p->id));
    copy_field(*out, "messages", prompt, "messages");
    json_object_set_new(*out, "source", json_string(d->sources.name[a->source]));
    json_object_set_new(*out, "kind", json_string(kind_name(p->kind)));
    json_object_set_new(*out, "dataset", json_string(d->datasets.name[p->dataset]));
    json_decref(prompt);
    return OK;
}

static Err write_sft(Writing *w, const PairPrompt *p)
{
    const PairAnswer *a = &w->d->a[p->best];
    json_t *row;
    Err err = OK;
    TRY(start_row(w->d, p, a, &row));
    TRY_DONE(add_answer(w->d, a, row));
    TRY_DONE(record_write(w->to[SFT], id_of("sft", p->id, a->id), row, NULL));
done:
    json_decref(row);
    return err;
}

static Err write_pair(Writing *w, const PairChoice *c)
{
    const PairAnswer *good = &w->d->a[c->chosen], *bad = &w->d->a[c->rejected];
    json_t *row, *chosen = json_object(), *rejected = json_object();
    Err err = start_row(w->d, &w->d->p[c->prompt], good, &row);
    if (err == OK) {
        json_object_set(row, "chosen", chosen);
        json_object_set(row, "rejected", rejected);
        json_object_set_new(row, "margin", json_real(c->margin));
        TRY_DONE(add_answer(w->d, good, chosen));
        TRY_DONE(add_answer(w->d, bad, rejected));
        TRY_DONE(record_write(w->to[PAIRS], id_of("pair", good->id, bad->id), row, NULL));
    }
done:
    if (row) json_decref(row);
    json_decref(chosen);
    json_decref(rejected);
    return err;
}

static Err write_dropped(Writing *w, const char *what, Id id, const PairPrompt *p, const char *reason)
{
    json_t *row = json_object();
    json_object_set_new(row, "what", json_string(what));
    json_object_set_new(row, "id", json_id(id));
    json_object_set_new(row, "reason", json_string(reason));
    json_object_set_new(row, "kind", json_string(kind_name(p->kind)));
    json_object_set_new(row, "dataset", json_string(w->d->datasets.name[p->dataset]));
    Err err = record_write(w->to[DROPPED], id_of(what, id, hash_text(reason)), row, NULL);
    json_decref(row);
    return err;
}

static Err write_prompt(Writing *w, const PairPrompt *p)
{
    if (p->to_sft && w->to[SFT]) TRY(write_sft(w, p));
    for (int64_t i = 0; p->to_dpo && w->to[PAIRS] && i < p->pairs; i++) TRY(write_pair(w, &w->d->c[p->first_pair + i]));
    if (!w->to[DROPPED]) return OK;
    if (p->dropped) TRY(write_dropped(w, "prompt", p->id, p, p->dropped));
    for (int64_t i = p->first; i < p->first + p->n; i++) {
        const PairAnswer *a = &w->d->a[i];
        if (a->left_out || a->not_chosen) TRY(write_dropped(w, "sample", a->id, p, a->left_out ? a->left_out : a->not_chosen));
    }
    return OK;
}

static Err close_all(Writing *w, Err err)
{
    for (int i = 0; i < PAIR_SETS; i++) {
        Err closed = record_close(w->to[i]);
        if (err == OK) err = closed;
    }
    return err;
}

static Err write_share(Writing *w, const char *run_dir, const json_t *header, const bool done[PAIR_SETS])
{
    const PairData *d = w->d;
    int64_t from = d->n_prompts * par_rank() / par_size(), to = d->n_prompts * (par_rank() + 1) / par_size();
    Err err = OK;
    for (int i = 0; i < PAIR_SETS; i++) {
        if (done[i]) continue;
        TRY_DONE(record_create(&w->to[i], run_dir, pair_sets[i], header));
        record_skip(w->to[i], w->had[i]);
    }
    for (int64_t i = from; i < to; i++) {
        TRY_DONE(par_stop_check("pair"));
        TRY_DONE(write_prompt(w, &d->p[i]));
    }
done:
    return close_all(w, err);
}

// Collective.
static Err write_sets(PairData *d, const char *run_dir, const json_t *header, const bool done[PAIR_SETS])
{
    Writing w = {.d = d};
    Err err = OK;
    for (int i = 0; i < PAIR_SETS; i++) TRY_DONE(record_open(&w.had[i], run_dir, pair_sets[i]));
    par_stop_watch();
    TRY_DONE(par_agree(write_share(&w, run_dir, header, done)));
done:
    for (int i = 0; i < PAIR_SETS; i++) record_free(w.had[i]);
    return err;
}

// ---- exports ---------------------------------------------------------------------------------------------------------

static Err write_line(FILE *f, const char *path, const json_t *row, Str *line)
{
    str_clear(line);
    TRY(json_canonical(row, line));
    TRY(str_puts(line, "\n"));
    CHECK(fwrite(line->p, 1, (size_t)line->len, f) == (size_t)line->len, ERR_IO, "cannot write %s: %s%s", path, strerror(errno),
          io_advice(errno));
    return OK;
}

static Err export_lines(RecordSet *s, bool pairs, FILE *f, const char *path)
{
    Str line = {0};
    Err err = OK;
    for (int64_t i = 0; i < record_count(s) && err == OK; i++) {
        json_t *row, *out;
        TRY_DONE(record_read(s, i, &row));
        out = published_row(row, pairs);
        err = write_line(f, path, out, &line);
        json_decref(out);
        json_decref(row);
    }
done:
    str_free(&line);
    return err;
}

// Rank 0 alone: the file is there whole or not at all.
static Err export_file(RecordSet *s, bool pairs, const char *dir, const char *name)
{
    char path[IO_PATH], tmp[IO_PATH + 8];
    TRY(io_mkdirs(dir));
    TRY(io_join(path, dir, name));
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    FILE *f = fopen(tmp, "we");
    CHECK(f, ERR_CREATE, "cannot create %s: %s%s", tmp, strerror(errno), io_advice(errno));
    Err err = export_lines(s, pairs, f, tmp);
    int closed = fclose(f);
    TRY(err);
    CHECK(closed == 0 && rename(tmp, path) == 0, ERR_IO, "cannot write %s: %s%s", path, strerror(errno), io_advice(errno));
    return OK;
}

static Err export_set(const char *run_dir, const char *set, bool pairs, const char *name)
{
    RecordSet *s;
    char dir[IO_PATH];
    TRY(io_join(dir, run_dir, "export"));
    TRY(record_open(&s, run_dir, set));
    Err err = par_agree(par_rank() == 0 ? export_file(s, pairs, dir, name) : OK);
    record_free(s);
    return err;
}

Err pair_write(PairData *d, const Job *job, const json_t *header, const bool done[PAIR_SETS])
{
    Id digest;
    TRY(write_sets(d, job->run_dir, header, done));
    for (int i = 0; i < PAIR_SETS; i++) TRY(record_finish(job->run_dir, pair_sets[i], &digest));
    TRY(export_set(job->run_dir, SET_SFT, false, "sft.jsonl"));
    return export_set(job->run_dir, SET_PAIRS, true, "dpo.jsonl");
}
