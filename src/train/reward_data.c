// SPDX-License-Identifier: Apache-2.0
// Two passes: parse all lines into rows (texts and labels, sorted by id), then render answers and list pairs.
#include "train/reward_data.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "par/par.h"
#include "text/record.h"
#include "train/rows.h"

enum { STREAM_HELD = 103, NAME_LIMIT = 256 };

typedef struct Label {
    const char *name;
    double value;
} Label;

typedef struct RawAnswer {
    const char *text;
    Label *label;
    int64_t labels;
    double score;
} RawAnswer;

typedef struct RawRow {
    Id id, group;
    Message *m;
    int64_t n;
    RawAnswer *answer;
    int64_t answers;
} RawRow;

typedef struct Import {
    RewardData *d;
    RawRow *row;
    int64_t n, cap, over_limit;
    Str dropped;  // lines for dropped.jsonl
} Import;

// --- parsing ---------------------------------------------------------------------------------------------------------------

static Err copy(Arena *a, const char *text, const char **out)
{
    char *p;
    TRY(arena_strndup(a, &p, text, (int64_t)strlen(text)));
    *out = p;
    return OK;
}

static Err parse_labels(const json_t *o, const char *where, Arena *a, RawAnswer *out)
{
    const char *name;
    json_t *v;
    double sum = 0;
    TRY(ARENA_ARRAY(a, &out->label, (int64_t)json_object_size(o) + 1));
    json_object_foreach((json_t *)o, name, v) {
        CHECK(json_is_number(v) && isfinite(json_number_value(v)), ERR_DATA, "%s: objective \"%s\" must be a number", where, name);
        Label *l = &out->label[out->labels++];
        TRY(copy(a, name, &l->name));
        sum += l->value = json_number_value(v);
    }
    out->score = out->labels ? sum / (double)out->labels : NAN;
    return OK;
}

static Err parse_answer(const json_t *o, const char *where, Arena *a, RawAnswer *out)
{
    const char *text;
    const json_t *score = json_object_get(o, "score");
    *out = (RawAnswer){0};
    TRY(json_get_text(o, "text", where, &text));
    TRY(copy(a, text, &out->text));
    TRY(parse_labels(json_object_get(o, "objectives"), where, a, out));
    if (json_is_number(score)) out->score = json_number_value(score);
    CHECK(isfinite(out->score), ERR_DATA, "%s: an answer wants \"objectives\" or \"score\"", where);
    return OK;
}

static Err parse_graded(const json_t *o, const json_t *answers, const char *where, Arena *a, RawRow *out)
{
    const json_t *prompt = json_object_get(o, "prompt");
    if (!prompt) prompt = json_object_get(o, "messages");
    CHECK(prompt, ERR_DATA, "%s: the row has no \"prompt\"", where);
    CHECK(json_is_array(answers), ERR_DATA, "%s: \"answers\" must be a list", where);
    TRY(rows_messages(prompt, where, a, &out->m, &out->n));
    TRY(ARENA_ARRAY(a, &out->answer, (int64_t)json_array_size(answers) + 1));
    for (size_t i = 0; i < json_array_size(answers); i++)
        TRY(parse_answer(json_array_get(answers, i), where, a, &out->answer[out->answers++]));
    return OK;
}

static Err parse_preference(const json_t *o, const char *where, Arena *a, RawRow *out)
{
    Row row;
    TRY(rows_parse(o, where, true, a, &row));
    TRY(ARENA_ARRAY(a, &out->answer, 2));
    out->m = row.m, out->n = row.n, out->answers = 2;
    for (int k = 0; k < 2; k++) out->answer[k] = (RawAnswer){.text = row.answer[k], .score = k ? 0 : 1};
    return OK;
}

static Err identify(RawRow *r)
{
    Hash *h;
    TRY(hash_new(&h));
    for (int64_t i = 0; i < r->n; i++) hash_add_text(h, r->m[i].role), hash_add_text(h, r->m[i].text);
    r->group = hash_end(h);
    TRY(hash_new(&h));
    hash_add_id(h, r->group);
    for (int64_t i = 0; i < r->answers; i++) {
        const RawAnswer *a = &r->answer[i];
        hash_add_text(h, a->text);
        hash_add_f64(h, a->score);
        for (int64_t k = 0; k < a->labels; k++) hash_add_text(h, a->label[k].name), hash_add_f64(h, a->label[k].value);
    }
    r->id = hash_end(h);
    return OK;
}

static Err import_row(void *user, const json_t *o, const char *where)
{
    Import *im = user;
    TRY(MEM_GROW(&im->row, im->n, &im->cap, im->n + 1));
    RawRow *r = &im->row[im->n];
    *r = (RawRow){0};
    const json_t *answers = json_object_get(o, "answers");
    TRY(answers ? parse_graded(o, answers, where, &im->d->arena, r) : parse_preference(o, where, &im->d->arena, r));
    TRY(identify(r));
    im->n++;
    return OK;
}

static int by_id(const void *a, const void *b) { return id_compare(((const RawRow *)a)->id, ((const RawRow *)b)->id); }

static Err note_row(Import *im, const RawRow *r, const char *reason)
{
    char text[ID_TEXT];
    id_print(r->id, text);
    return str_printf(&im->dropped, "{\"id\":\"%s\",\"reason\":\"%s\"}\n", text, reason);
}

// Rows from `first` on, in id order: keeps one of equal ones, then the first `limit` (0: all). Ids are hashes, so this is a
// draw that does not depend on the order of the file.
static Err keep_rows(Import *im, int64_t first, int64_t limit)
{
    int64_t n = im->n;
    MEM_SORT(im->row + first, n - first, by_id);
    im->n = first;
    for (int64_t i = first; i < n; i++) {
        const RawRow *r = &im->row[i];
        if (im->n > first && id_equal(r->id, im->row[im->n - 1].id)) {
            TRY(note_row(im, r, "duplicate"));
            im->d->duplicates++;
        } else if (limit && im->n - first >= limit) {
            TRY(note_row(im, r, "over reward_train.data[].limit"));
            im->over_limit++;
        } else {
            im->row[im->n++] = *r;
        }
    }
    return OK;
}

static Err import_files(const Deck *deck, Import *im)
{
    int64_t files = deck_count(deck, "reward_train.data");
    char key[64];
    CHECK(files > 0, ERR_RECIPE, "reward_train.data is empty: name at least one JSONL file of graded answers or preference rows");
    for (int64_t i = 0; i < files; i++) {
        const int64_t first = im->n;
        snprintf(key, sizeof key, "reward_train.data[%lld].path", (long long)i);
        TRY(jsonl_each(deck_str(deck, key), import_row, im));
        im->d->read += im->n - first;
        snprintf(key, sizeof key, "reward_train.data[%lld].limit", (long long)i);
        TRY(keep_rows(im, first, deck_i64(deck, key)));
    }
    CHECK(im->n > 0, ERR_DATA, "the files of reward_train.data have no rows");
    TRY(keep_rows(im, 0, 0));
    if (im->over_limit) log_info("reward", "%lld rows over a file's limit (listed in reward/dropped.jsonl)", (long long)im->over_limit);
    return OK;
}

// --- objectives ------------------------------------------------------------------------------------------------------------

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static int64_t find_name(const RewardData *d, const char *name)
{
    const char **at = bsearch(&name, d->name, (size_t)d->objectives, sizeof *d->name, by_name);
    return at ? at - d->name : -1;
}

// All names that occur, ascending; "preference" when there is none.
static Err collect_names(const Import *im, RewardData *d)
{
    TRY(ARENA_ARRAY(&d->arena, &d->name, NAME_LIMIT));
    for (int64_t i = 0; i < im->n; i++)
        for (int64_t a = 0; a < im->row[i].answers; a++)
            for (int64_t k = 0; k < im->row[i].answer[a].labels; k++) {
                const char *name = im->row[i].answer[a].label[k].name;
                if (find_name(d, name) >= 0) continue;
                CHECK(d->objectives < NAME_LIMIT, ERR_DATA, "more than %d objectives", NAME_LIMIT);
                d->name[d->objectives++] = name;
                MEM_SORT(d->name, d->objectives, by_name);
            }
    if (!d->objectives) d->name[d->objectives++] = "preference";
    return OK;
}

static Err labels_of(RewardData *d, const RawAnswer *a, const double **out)
{
    double *label;
    TRY(ARENA_ARRAY(&d->arena, &label, d->objectives));
    for (int64_t k = 0; k < d->objectives; k++) label[k] = NAN;
    for (int64_t k = 0; k < a->labels; k++) label[find_name(d, a->label[k].name)] = a->label[k].value;
    if (d->objectives == 1 && !strcmp(d->name[0], "preference") && !a->labels) label[0] = a->score;
    *out = label;
    return OK;
}

// --- answers and pairs -----------------------------------------------------------------------------------------------------

typedef struct Render {
    RewardData *d;
    const RewardHead *head;
    const ChatTemplate *chat;
    const Tokenizer *tok;
    int64_t max_length, cap, pair_cap;
    double min_gap;
    Str *dropped;  // lines for dropped.jsonl
    Ids ids;
    Hash *hash;
} Render;

static Err note_dropped(Render *r, Id id, int64_t answer, int64_t tokens)
{
    char text[ID_TEXT];
    id_print(id, text);
    r->d->too_long++;
    return str_printf(r->dropped, "{\"id\":\"%s\",\"answer\":%lld,\"reason\":\"longer than max_length\",\"tokens\":%lld}\n", text,
                      (long long)answer, (long long)tokens);
}

static Err add_answer(Render *r, const RawRow *row, int64_t i)
{
    RewardData *d = r->d;
    int64_t gating;
    int32_t *id;
    r->ids.n = 0;
    TRY(reward_render(r->head, r->chat, r->tok, row->m, row->n, row->answer[i].text, &r->ids, &gating));
    if (r->ids.n > r->max_length) return note_dropped(r, row->id, i, r->ids.n);
    TRY(ARENA_ARRAY(&d->arena, &id, r->ids.n));
    memcpy(id, r->ids.id, (size_t)r->ids.n * sizeof *id);
    TRY(MEM_GROW(&d->answer, d->answers, &r->cap, d->answers + 1));
    RewardAnswer *a = &d->answer[d->answers++];
    *a = (RewardAnswer){id, r->ids.n, gating, (int32_t)d->rows, NULL, row->answer[i].score};
    TRY(labels_of(d, &row->answer[i], &a->label));
    if (a->n > d->longest) d->longest = a->n;
    hash_add(r->hash, a->id, a->n * (int64_t)sizeof *a->id);
    hash_add(r->hash, a->label, d->objectives * (int64_t)sizeof *a->label);
    hash_add_f64(r->hash, a->score);
    return OK;
}

static Err add_pairs(Render *r, int64_t first)
{
    RewardData *d = r->d;
    for (int64_t i = first; i < d->answers; i++)
        for (int64_t j = first; j < d->answers; j++) {
            if (!(d->answer[i].score - d->answer[j].score > r->min_gap)) continue;
            TRY(MEM_GROW(&d->pair, d->pairs, &r->pair_cap, d->pairs + 1));
            d->pair[d->pairs++] = (RewardPair){(int32_t)i, (int32_t)j};
        }
    return OK;
}

static Err render_all(Render *r, const Import *im, uint64_t seed, double val_size)
{
    RewardData *d = r->d;
    TRY(ARENA_ARRAY(&d->arena, &d->held, im->n));
    for (int64_t i = 0; i < im->n; i++) {
        int64_t first = d->answers;
        RngKey key = rng_key_from_id(im->row[i].group);
        key.stream ^= STREAM_HELD;
        d->held[d->rows] = rng_uniform(key, seed) < val_size;
        for (int64_t k = 0; k < im->row[i].answers; k++) TRY(add_answer(r, &im->row[i], k));
        TRY(add_pairs(r, first));
        d->rows++;
    }
    return OK;
}

static Err write_dropped(const char *run_dir, const Str *text)
{
    char dir[IO_PATH], path[IO_PATH];
    if (par_rank() != 0) return OK;
    TRY(io_join(dir, run_dir, "reward"));
    TRY(io_mkdirs(dir));
    TRY(io_join(path, dir, "dropped.jsonl"));
    return io_write(path, str_text(text), text->len);
}

Err reward_data_load(const Deck *deck, const char *run_dir, const RewardHead *h, const ChatTemplate *c, const Tokenizer *t,
                     RewardData *out)
{
    *out = (RewardData){0};
    Import im = {.d = out};
    Render r = {.d = out, .head = h, .chat = c, .tok = t, .dropped = &im.dropped, .max_length = deck_i64(deck, "reward_train.max_length"),
                .min_gap = deck_f64(deck, "reward_train.min_gap")};
    Err err = OK;
    TRY(hash_new(&r.hash));
    TRY_DONE(import_files(deck, &im));
    TRY_DONE(collect_names(&im, out));
    TRY_DONE(render_all(&r, &im, (uint64_t)deck_i64(deck, "seed"), deck_f64(deck, "reward_train.val_size")));
    TRY_DONE(write_dropped(run_dir, &im.dropped));
    CHECK_DONE(out->pairs > 0, ERR_DATA, "no preference pair in reward_train.data: no two answers of a prompt differ by more than min_gap");
done:
    out->hash = hash_end(r.hash);
    str_free(&im.dropped);
    ids_free(&r.ids);
    mem_free(im.row);
    return err;
}

void reward_data_free(RewardData *d)
{
    mem_free(d->answer);
    mem_free(d->pair);
    arena_free(&d->arena);
    *d = (RewardData){0};
}
