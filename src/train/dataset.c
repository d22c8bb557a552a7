// SPDX-License-Identifier: Apache-2.0
// Rendering: each rank renders its rows into a byte stream (a fixed head, then ids and mask), streams are gathered, every
// rank unpacks all of them.
#include "train/dataset.h"

#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "par/par.h"
#include "text/record.h"
#include "train/records.h"

typedef enum Fate { KEPT, CUT, TOO_LONG, IDENTICAL, DUPLICATE } Fate;

static const char *const fate_text[] = {"kept", "cut to max_length", "longer than max_length",
                                        "chosen and rejected are the same", "duplicate"};

typedef struct Head {  // of one rendered row in the stream; followed by ids[n], mask[n] and `where` bytes of its place
    Id id, group;
    int32_t fate, n, answers, prompt, chosen, tokens, where;
} Head;

typedef struct Render {
    const DataSpec *spec;
    Str out;          // the stream
    Ids ids, mask;    // scratch of one row
} Render;

static Err emit(Render *r, const Row *row, Head *h)
{
    h->id = row->id;
    h->group = row->group;
    h->where = h->fate == KEPT ? 0 : (int32_t)strlen(row->where);  // only what is listed needs its place
    if (h->fate != KEPT && h->fate != CUT) h->n = 0;
    TRY(str_add(&r->out, (const char *)h, (int64_t)sizeof *h));
    TRY(str_add(&r->out, (const char *)r->ids.id, h->n * (int64_t)sizeof(int32_t)));
    for (int32_t i = 0; i < h->n; i++) {
        char bit = (char)r->mask.id[i];
        TRY(str_add(&r->out, &bit, 1));
    }
    return str_add(&r->out, row->where, h->where);
}

static Err mask_from(Render *r, int64_t answer)
{
    r->mask.n = 0;
    for (int64_t i = 0; i < r->ids.n; i++) TRY(ids_push(&r->mask, i >= answer));
    return OK;
}

static bool any_target(const Ids *mask, int64_t n)
{
    for (int64_t i = 1; i < n; i++)
        if (mask->id[i]) return true;
    return false;
}

// R-TRUNC1: an answer that was cut by length gets no stop token (unless nothing else would be left of it).
static Err render_answer(Render *r, const Row *row, int k, Ids *out, int64_t *answer)
{
    const DataSpec *s = r->spec;
    TRY(chat_example(s->chat, s->tok, row->m, row->n, row->answer[k], row->ids[k].n ? &row->ids[k] : NULL, out, answer));
    if (row->unfinished[k] && out->n > *answer + 1) out->n--;
    return OK;
}

static Err render_sft(Render *r, const Row *row, Head *h)
{
    const DataSpec *s = r->spec;
    int64_t answer = 0;
    if (row->answers == 0) {
        TRY(chat_masked(s->chat, s->tok, row->m, row->n, &r->ids, &r->mask));
    } else {
        TRY(render_answer(r, row, 0, &r->ids, &answer));
        TRY(mask_from(r, answer));
    }
    CHECK(any_target(&r->mask, r->ids.n), ERR_DATA, "the rendered example has no target token");
    h->n = h->tokens = (int32_t)r->ids.n;
    if (r->ids.n > s->max_length) {
        bool cut = s->keep_start && any_target(&r->mask, s->max_length);
        h->fate = cut ? CUT : TOO_LONG;
        h->n = (int32_t)s->max_length;
    }
    return OK;
}

static Err join_pair(Render *r, const Ids *chosen, const Ids *rejected, int64_t at, Head *h)
{
    const DataSpec *s = r->spec;
    int64_t n[2] = {chosen->n - at, rejected->n - at}, longer = n[0] > n[1] ? n[0] : n[1];
    bool same = n[0] == n[1] && !memcmp(chosen->id + at, rejected->id + at, (size_t)n[0] * sizeof(int32_t));
    h->tokens = (int32_t)(at + longer);
    if (same) h->fate = IDENTICAL;
    if (same) return OK;
    if (at + longer > s->max_length) {
        h->fate = s->keep_start && at < s->max_length ? CUT : TOO_LONG;
        for (int k = 0; k < 2; k++)
            if (n[k] > s->max_length - at) n[k] = s->max_length - at;
    }
    if (h->fate == TOO_LONG) return OK;
    for (int64_t i = 0; i < at; i++) TRY(ids_push(&r->ids, chosen->id[i]));
    for (int64_t i = 0; i < n[0]; i++) TRY(ids_push(&r->ids, chosen->id[at + i]));
    for (int64_t i = 0; i < n[1]; i++) TRY(ids_push(&r->ids, rejected->id[at + i]));
    TRY(mask_from(r, at));
    h->prompt = (int32_t)at, h->chosen = (int32_t)n[0], h->n = (int32_t)r->ids.n;
    return OK;
}

static Err render_pair(Render *r, const Row *row, Head *h)
{
    Ids chosen = {0}, rejected = {0};
    int64_t at[2] = {0, 0};
    Err err = OK;
    TRY_DONE(render_answer(r, row, 0, &chosen, &at[0]));
    TRY_DONE(render_answer(r, row, 1, &rejected, &at[1]));
    CHECK_DONE(at[0] == at[1] && at[0] > 0 && !memcmp(chosen.id, rejected.id, (size_t)at[0] * sizeof(int32_t)), ERR_INTERNAL,
               "the prompt renders differently for the two answers");
    CHECK_DONE(chosen.n > at[0] && rejected.n > at[0], ERR_DATA, "an answer has no token");
    TRY_DONE(join_pair(r, &chosen, &rejected, at[0], h));
done:
    ids_free(&chosen);
    ids_free(&rejected);
    return err;
}

static Err render_row(Render *r, const Row *row)
{
    char id[ID_TEXT];
    Head h = {.fate = KEPT, .answers = r->spec->pairs ? 2 : 1};
    r->ids.n = r->mask.n = 0;
    Err err = (r->spec->pairs ? render_pair : render_sft)(r, row, &h);
    id_print(row->id, id);
    if (err != OK) return err_context(err, "%s%srow %s", row->where, *row->where ? ": " : "", id);
    return emit(r, row, &h);
}

static Err emit_duplicates(Render *r, const Rows *rows)
{
    for (int64_t i = 0; i < rows->duplicates; i++) {
        Head h = {.fate = DUPLICATE};
        TRY(emit(r, &rows->duplicate[i], &h));
    }
    return OK;
}

static Err render_file(Render *r)
{
    Arena arena = {0};
    Rows rows = {0};
    Err err = OK;
    TRY_DONE(rows_import(r->spec->path, r->spec->pairs, &arena, &rows));
    for (int64_t i = par_rank(); i < rows.n; i += par_size()) TRY_DONE(render_row(r, &rows.row[i]));
    if (par_rank() == 0) TRY_DONE(emit_duplicates(r, &rows));
done:
    rows_free(&rows);
    arena_free(&arena);
    return err;
}

static Err render_own(RowSource *s, Render *r)
{
    Arena arena = {0};
    Err err = OK;
    for (int64_t i = par_rank(); i < s->n; i += par_size()) {
        Row row;
        arena_reset(&arena);
        TRY_DONE(row_source_read(s, i, &arena, &row));
        TRY_DONE(render_row(r, &row));
    }
done:
    arena_free(&arena);
    return err;
}

static Err render_records(Render *r)  // collective
{
    RowSource s;
    Err err = row_source_open(&s, r->spec->run_dir, r->spec->set, r->spec->pairs, r->spec->tok);
    if (err == OK) err = par_agree(render_own(&s, r));
    row_source_close(&s);
    return err;
}

// --- all ranks' streams to a data set --------------------------------------------------------------------------------

typedef struct Item {
    Head head;
    const char *body;
} Item;

static int by_item(const void *a, const void *b)
{
    const Item *x = a, *y = b;
    int order = id_compare(x->head.id, y->head.id);
    return order ? order : x->head.fate - y->head.fate;
}

static Err split_stream(const char *p, int64_t bytes, Item **out, int64_t *n)
{
    int64_t cap = 0;
    *n = 0;
    *out = NULL;
    for (int64_t at = 0; at < bytes;) {
        TRY(MEM_GROW(out, *n, &cap, *n + 1));
        Item *item = &(*out)[(*n)++];
        memcpy(&item->head, p + at, sizeof item->head);
        item->body = p + at + sizeof item->head;
        at += (int64_t)sizeof item->head + item->head.n * (int64_t)(sizeof(int32_t) + 1) + item->head.where;
    }
    return OK;
}

static Err keep_item(Dataset *d, const Item *item, Hash *hash)
{
    const Head *h = &item->head;
    int32_t *ids;
    uint8_t *mask;
    TRY(ARENA_ARRAY(&d->arena, &ids, h->n));
    TRY(ARENA_ARRAY(&d->arena, &mask, h->n));
    memcpy(ids, item->body, (size_t)h->n * sizeof *ids);
    memcpy(mask, item->body + (size_t)h->n * sizeof *ids, (size_t)h->n);
    hash_add_id(hash, h->id);
    hash_add_i64(hash, h->prompt);
    hash_add_i64(hash, h->chosen);
    hash_add(hash, ids, h->n * (int64_t)sizeof *ids);
    hash_add(hash, mask, h->n);
    d->group[d->n] = h->group;
    d->ex[d->n] = (Example){h->id, ids, mask, h->n, h->answers, h->prompt, h->chosen};
    int64_t tokens = pack_tokens(&d->ex[d->n++]);
    d->tokens += tokens;
    if (tokens > d->longest) d->longest = tokens;
    return OK;
}

static Err unpack(Dataset *d, const Item *item, int64_t n)
{
    Hash *hash;
    Err err = OK;
    TRY(ARENA_ARRAY(&d->arena, &d->ex, n));
    TRY(ARENA_ARRAY(&d->arena, &d->group, n));
    TRY(hash_new(&hash));
    d->read = n;
    for (int64_t i = 0; i < n && err == OK; i++) {
        int32_t fate = item[i].head.fate;
        d->cut += fate == CUT;
        d->too_long += fate == TOO_LONG;
        d->identical += fate == IDENTICAL;
        d->duplicates += fate == DUPLICATE;
        if (fate == KEPT || fate == CUT) err = keep_item(d, &item[i], hash);
    }
    d->hash = hash_end(hash);
    return err;
}

// {"id", "row": "file:line" of a user's file, "reason", "tokens"}
static Err put_dropped(const Item *item, Str *out)
{
    const Head *h = &item->head;
    char id[ID_TEXT];
    id_print(h->id, id);
    json_t *o = json_pack("{s:s, s:s%, s:s, s:i}", "id", id, "row", item->body + h->n * (int64_t)(sizeof(int32_t) + 1),
                          (size_t)h->where, "reason", fate_text[h->fate], "tokens", (int)h->tokens);
    CHECK(o, ERR_UNAVAILABLE, "out of memory for JSON");
    if (!h->where) json_object_del(o, "row");
    Err err = json_canonical(o, out);
    json_decref(o);
    TRY(err);
    return str_puts(out, "\n");
}

static Err list_dropped(const DataSpec *spec, const Item *item, int64_t n)
{
    char dir[IO_PATH], path[IO_PATH];
    Str text = {0};
    Err err = OK;
    TRY(io_join(dir, spec->run_dir, spec->stage));
    TRY(io_mkdirs(dir));
    TRY(io_join(path, dir, "dropped.jsonl"));
    for (int64_t i = 0; i < n; i++)
        if (item[i].head.fate != KEPT) TRY_DONE(put_dropped(&item[i], &text));
    TRY_DONE(io_write(path, str_text(&text), text.len));
done:
    str_free(&text);
    return err;
}

static Err collect(const DataSpec *spec, const Str *mine, Dataset *d)
{
    char *all = NULL;
    int64_t bytes, n = 0;
    Item *item = NULL;
    Err err = OK;
    TRY(par_allgather(mine->p, mine->len, &all, &bytes, NULL));
    TRY_DONE(split_stream(all, bytes, &item, &n));
    MEM_SORT(item, n, by_item);
    TRY_DONE(unpack(d, item, n));
    if (par_rank() == 0 && !spec->look) TRY_DONE(list_dropped(spec, item, n));
    CHECK_DONE(d->n > 0, ERR_DATA, "no training example is left of %lld rows (%lld too long, %lld with equal answers); see %s/%s/dropped.jsonl",
               (long long)d->read, (long long)d->too_long, (long long)d->identical, spec->run_dir, spec->stage);
done:
    mem_free(item);
    mem_free(all);
    return err;
}

Err dataset_load(const DataSpec *spec, Dataset *out)
{
    Render r = {.spec = spec};
    Err err = OK;
    *out = (Dataset){0};
    TRY_DONE(par_agree(chat_contract(spec->chat, spec->tok)));
    TRY_DONE(*spec->path ? par_agree(render_file(&r)) : render_records(&r));
    TRY_DONE(par_agree(collect(spec, &r.out, out)));
    if (!spec->look)
        log_info(spec->stage, "%lld %s of %lld rows: %lld too long (dropped), %lld cut, %lld duplicates, %lld with equal answers; %lld tokens, longest %lld",
                 (long long)out->n, spec->pairs ? "pairs" : "examples", (long long)out->read, (long long)out->too_long,
                 (long long)out->cut, (long long)out->duplicates, (long long)out->identical, (long long)out->tokens,
                 (long long)out->longest);
done:
    str_free(&r.out);
    ids_free(&r.ids);
    ids_free(&r.mask);
    return err;
}

void dataset_free(Dataset *d)
{
    arena_free(&d->arena);
    *d = (Dataset){0};
}

// --- split and order -----------------------------------------------------------------------------------------------

enum { STREAM_SPLIT = 101, STREAM_ORDER = 102 };

typedef struct Draw {
    uint64_t key;  // of the group
    Id group;
    int32_t index;
} Draw;

static int by_draw(const void *a, const void *b)
{
    const Draw *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    int order = id_compare(x->group, y->group);
    return order ? order : x->index - y->index;
}

Err dataset_split(Dataset *d, double val_size, uint64_t seed, Split *out)
{
    Draw *draw;
    bool *held;
    int64_t want = (int64_t)(val_size < 1 ? val_size * (double)d->n + 0.5 : val_size), taken = 0;
    *out = (Split){0};
    TRY(ARENA_ARRAY(&d->arena, &draw, d->n));
    TRY(ARENA_ARRAY(&d->arena, &held, d->n));
    TRY(ARENA_ARRAY(&d->arena, &out->train, d->n));
    TRY(ARENA_ARRAY(&d->arena, &out->val, d->n));
    for (int64_t i = 0; i < d->n; i++) {
        uint64_t key = (uint64_t)rng_u32(rng_key(d->group[i].hi ^ seed, STREAM_SPLIT), d->group[i].lo) << 32 |
                       rng_u32(rng_key(d->group[i].lo ^ seed, STREAM_SPLIT), d->group[i].hi);
        draw[i] = (Draw){key, d->group[i], (int32_t)i};
        held[i] = false;
    }
    MEM_SORT(draw, d->n, by_draw);
    while (taken < d->n && (taken < want || (taken && want && id_equal(draw[taken].group, draw[taken - 1].group))))
        held[draw[taken++].index] = true;
    for (int64_t i = 0; i < d->n; i++) {
        if (held[i]) out->val[out->n_val++] = (int32_t)i;
        else out->train[out->n_train++] = (int32_t)i;
    }
    CHECK(out->n_train > 0, ERR_RECIPE, "val_size %g leaves no training example of %lld", val_size, (long long)d->n);
    return OK;
}

void dataset_order(uint64_t seed, int64_t epoch, int64_t n, int64_t *order)
{
    rng_permutation(rng_key(seed, (uint64_t)STREAM_ORDER << 32 | (uint64_t)(epoch & 0xffffffff)), order, n);
}
