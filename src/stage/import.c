// SPDX-License-Identifier: Apache-2.0
// Two passes over the user's file by rank 0: the first keeps hashes only (about 100 bytes a row), numbers the answers of a
// (prompt, source) by the hashes of their text and row unless rows say k, and looks for contradictions; the second writes records.
// So the order of the rows changes no record.
#include "stage/import.h"

#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "par/par.h"
#include "stage/stage.h"
#include "text/prompt.h"
#include "text/record.h"

typedef struct Row {
    Id prompt, content, source, text, whole;  // content: of the prompt record; whole: of the row
    Id sample;
    int64_t k, line;   // k < 0: the row does not say it
    int64_t copy;      // of the rows of one sample, which are equal, the first (0) is kept
    bool first;        // of its prompt
} Row;

enum { PROMPTS, SAMPLES, SCORES, VERDICTS, DROPPED, SETS };
static const char *const sets[SETS] = {SET_PROMPTS, SET_SAMPLES, SET_SCORES, SET_VERDICTS, SET_DROPPED_SAMPLES};

typedef struct Import {
    char dataset[256];      // where rows name none
    Row *row;
    int64_t n, cap, at;
    bool present[SETS];     // some row has it
    RecordWriter *to[SETS];
} Import;

static Err hash_of(const json_t *v, Id *out)
{
    Str text = {0};
    Err err = json_canonical(v, &text);
    if (err == OK) *out = hash_bytes(str_text(&text), text.len);
    str_free(&text);
    return err;
}

static Err read_prompt(const Import *im, const json_t *o, const char *where, json_t **data, Id *id)
{
    const char *unfit, *kind = json_string_value(json_object_get(o, "kind"));
    const char *name = json_string_value(json_object_get(o, "dataset"));
    json_t *bare = json_copy((json_t *)o);  // without what would read as a gold answer
    json_object_del(bare, "answer");
    Err err = prompt_import(bare, kind ? kind : "auto", name ? name : im->dataset, where, data, id, &unfit);
    json_decref(bare);
    return err;
}

static Err collect(void *user, const json_t *o, const char *where)
{
    Import *im = user;
    const char *source, *answer;
    json_t *data;
    TRY(MEM_GROW(&im->row, im->n, &im->cap, im->n + 1));
    Row *r = &im->row[im->n];
    *r = (Row){.k = -1, .line = im->n};
    TRY(json_get_text(o, "source", where, &source));
    TRY(json_get_text(o, "answer", where, &answer));
    if (json_object_get(o, "k")) TRY(json_get_i64(o, "k", where, &r->k));
    TRY(read_prompt(im, o, where, &data, &r->prompt));
    Err err = hash_of(data, &r->content);
    json_decref(data);
    TRY(err);
    TRY(hash_of(o, &r->whole));
    r->source = hash_text(source);
    r->text = hash_text(answer);
    im->n++;
    im->present[SCORES] |= json_object_get(o, "score") != NULL;
    im->present[VERDICTS] |= json_object_get(o, "verdict") != NULL;
    return OK;
}

static int by_answer(const void *pa, const void *pb)
{
    const Row *a = pa, *b = pb;
    int order = id_compare(a->prompt, b->prompt);
    if (order == 0) order = id_compare(a->source, b->source);
    if (order == 0) order = id_compare(a->text, b->text);
    if (order == 0) order = (a->k > b->k) - (a->k < b->k);
    if (order == 0) order = id_compare(a->whole, b->whole);
    return order ? order : (a->line > b->line) - (a->line < b->line);
}

static int by_line(const void *pa, const void *pb)
{
    const Row *a = pa, *b = pb;
    return (a->line > b->line) - (a->line < b->line);
}

static int by_sample(const void *pa, const void *pb)
{
    const Row *a = pa, *b = pb;
    int order = id_compare(a->sample, b->sample);
    return order ? order : by_line(a, b);
}

static Id sample_id(const Row *r)
{
    struct {
        Id prompt, source, text;
        int64_t k;
    } parts = {r->prompt, r->source, r->text, r->k};
    return hash_bytes(&parts, sizeof parts);
}

// Equal rows are one sample; rows that say different things of one sample are an error.
static Err find_copies(Import *im, const char *path, int64_t *copies)
{
    MEM_SORT(im->row, im->n, by_sample);
    for (int64_t i = 1; i < im->n; i++) {
        Row *r = &im->row[i];
        if (!id_equal(r->sample, r[-1].sample)) continue;
        CHECK(id_equal(r->whole, r[-1].whole), ERR_DATA,
              "%s: rows %lld and %lld are the same answer (prompt, source, k, text) and say different things of it", path,
              (long long)r[-1].line + 1, (long long)r->line + 1);
        r->copy = r[-1].copy + 1;
        ++*copies;
    }
    return OK;
}

static Err number_answers(Import *im, const char *path, int64_t *copies)
{
    int64_t k = 0;
    MEM_SORT(im->row, im->n, by_answer);
    for (int64_t i = 0; i < im->n; i++) {
        Row *r = &im->row[i];
        r->first = i == 0 || !id_equal(r->prompt, r[-1].prompt);
        CHECK(r->first || id_equal(r->content, r[-1].content), ERR_DATA,
              "%s: rows %lld and %lld have the same prompt with different kind, dataset, gold, tests or checks", path,
              (long long)r[-1].line + 1, (long long)r->line + 1);
        k = r->first || !id_equal(r->source, r[-1].source) ? 0 : k + 1;
        if (r->k < 0) r->k = k;
        r->sample = sample_id(r);
    }
    TRY(find_copies(im, path, copies));
    MEM_SORT(im->row, im->n, by_line);
    return OK;
}

// Writes what json_pack made.
static Err put(RecordWriter *w, Id id, json_t *data)
{
    ASSERT(data);
    Err err = record_write(w, id, data, NULL);
    json_decref(data);
    return err;
}

static Err put_score(Import *im, const json_t *o, const char *where, const Row *r, Id sample)
{
    double score;
    if (!im->present[SCORES]) return OK;
    if (!json_object_get(o, "score"))
        return put(im->to[SCORES], sample, json_pack("{s:o,s:o,s:s}", "sample", json_id(sample), "prompt", json_id(r->prompt),
                                                     "unscored", "the row has no score"));
    TRY(json_get_f64(o, "score", where, &score));
    return put(im->to[SCORES], sample, json_pack("{s:o,s:o,s:f}", "sample", json_id(sample), "prompt", json_id(r->prompt), "score",
                                                 score));
}

// "right", "wrong", "undecided", true, false, or nothing.
static Err put_verdict(Import *im, const json_t *o, const char *where, const Row *r, Id sample)
{
    const json_t *v = json_object_get(o, "verdict");
    const char *outcome = json_is_true(v) ? "right" : json_is_false(v) ? "wrong" : json_string_value(v);
    if (!v) return OK;
    CHECK(outcome && (!strcmp(outcome, "right") || !strcmp(outcome, "wrong") || !strcmp(outcome, "undecided")), ERR_DATA,
          "%s: \"verdict\" must be true, false, \"right\", \"wrong\" or \"undecided\"", where);
    return put(im->to[VERDICTS], sample, json_pack("{s:o,s:o,s:s,s:s,s:s}", "sample", json_id(sample), "prompt", json_id(r->prompt),
                                                   "outcome", outcome, "trust", "strong", "reason", "given by the user"));
}

static Err put_copy(Import *im, const json_t *o, const Row *r)
{
    struct {
        Id sample;
        int64_t copy;
    } parts = {r->sample, r->copy};
    return put(im->to[DROPPED], hash_bytes(&parts, sizeof parts),
               json_pack("{s:s,s:o,s:O,s:s}", "what", "row", "id", json_id(r->sample), "source", json_object_get(o, "source"),
                         "reason", "duplicate"));
}

static Err write_row(void *user, const json_t *o, const char *where)
{
    Import *im = user;
    CHECK(im->at < im->n, ERR_IO, "%s: the file grew while it was read", where);
    const Row *r = &im->row[im->at++];
    Id sample = r->sample, id;
    json_t *data;
    const char *finish = "stop";
    if (r->copy) return put_copy(im, o, r);
    if (json_object_get(o, "finish")) TRY(json_get_text(o, "finish", where, &finish));
    CHECK(!strcmp(finish, "stop") || !strcmp(finish, "length"), ERR_DATA, "%s: \"finish\" must be \"stop\" or \"length\"", where);
    if (r->first) {
        TRY(read_prompt(im, o, where, &data, &id));
        CHECK(id_equal(id, r->prompt), ERR_IO, "%s: the file changed while it was read", where);
        TRY(put(im->to[PROMPTS], id, data));
    }
    TRY(put(im->to[SAMPLES], sample, json_pack("{s:o,s:O,s:I,s:n,s:O,s:n,s:s}", "prompt", json_id(r->prompt), "source",
                                               json_object_get(o, "source"), "k", (json_int_t)r->k, "seed", "text",
                                               json_object_get(o, "answer"), "ids", "finish", finish)));
    TRY(put_score(im, o, where, r, sample));
    return put_verdict(im, o, where, r, sample);
}

// Rank 0 alone. present: which sets there will be.
static Err import_file(const char *run_dir, const char *path, const json_t *header, bool present[SETS])
{
    Import im = {.present = {true, true}};
    int64_t copies = 0;
    Err err = OK;
    snprintf(im.dataset, sizeof im.dataset, "%s", io_basename(path));
    im.dataset[strcspn(im.dataset, ".")] = '\0';
    TRY_DONE(jsonl_each(path, collect, &im));
    CHECK_DONE(im.n > 0, ERR_DATA, "%s has no rows", path);
    TRY_DONE(number_answers(&im, path, &copies));
    im.present[DROPPED] = copies > 0;
    for (int i = 0; i < SETS; i++)
        if (im.present[i]) TRY_DONE(record_create(&im.to[i], run_dir, sets[i], header));
    TRY_DONE(jsonl_each(path, write_row, &im));
    memcpy(present, im.present, sizeof im.present);
    log_info("import", "%s: %lld answers%s%s; %lld duplicate rows (listed in " SET_DROPPED_SAMPLES "/)", path,
             (long long)(im.n - copies), im.present[SCORES] ? ", with scores" : "", im.present[VERDICTS] ? ", with verdicts" : "",
             (long long)copies);
done:
    for (int i = 0; i < SETS; i++) {
        Err closed = record_close(im.to[i]);
        if (err == OK) err = closed;
    }
    mem_free(im.row);
    return err;
}

// Rank 0 alone: what an interrupted import left.
static Err remove_broken(const char *run_dir)
{
    char dir[IO_PATH];
    for (int i = 0; i < SETS; i++) {
        TRY(io_join(dir, run_dir, sets[i]));
        TRY(io_remove_tree(dir));
    }
    return OK;
}

// Samples end last: they say that the import is complete.
static Err import_all(const char *run_dir, const char *path, const json_t *header)
{
    bool present[SETS] = {false};
    Id digest;
    TRY(par_agree(par_rank() == 0 ? remove_broken(run_dir) : OK));
    TRY(par_agree(par_rank() == 0 ? import_file(run_dir, path, header, present) : OK));
    TRY(par_bcast(present, sizeof present, 0));
    for (int i = SETS - 1; i >= 0; i--)
        if (present[i] && i != SAMPLES) TRY(record_finish(run_dir, sets[i], &digest));
    return record_finish(run_dir, SET_SAMPLES, &digest);
}

Err import_samples(const Deck *deck, const char *run_dir)
{
    const char *path = deck_str(deck, "samples.path");
    json_t *header;
    bool done = false;
    Id id = {0};
    if (!*path) return OK;
    TRY(par_agree(hash_file(path, &id)));
    header = json_pack("{s:o}", "recipe", json_id(id));
    Err err = record_begin(run_dir, SET_PROMPTS, header, &done);  // refuses to replace what select made
    if (err == OK) err = record_begin(run_dir, SET_SAMPLES, header, &done);
    if (err == OK && !done) err = import_all(run_dir, path, header);
    json_decref(header);
    return err;
}
