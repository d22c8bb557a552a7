// SPDX-License-Identifier: Apache-2.0
// Packing: as many chains as the step fills rows, at most those of the recipe, take the examples, largest first, each the one
// with the fewest tokens so far; a chain packs its own by first-fit decreasing. The layout of a row depends on its examples
// alone. Ranks own whole chains, so their work differs by little. (Counted on 400 steps of 4 pairs of a preference set, two
// chains, row_tokens from the mean: work over the largest chain's 1.54 with whole rows dealt in turn, 1.86 so; 1.89 is the
// most that any deal of 4 pairs gives. 16 pairs: 1.73, 1.97.)
//
// A position that predicts nothing behind the last target is not computed: an SFT example of n tokens takes its tokens
// up to the one that predicts the last target, a pair takes (prompt - 1) + chosen + rejected.
// Drawback: within a step only; a small step leaves its last row short. There is no padding, so that costs nothing.
#include "train/batch.h"

#include <string.h>

#include "base/mem.h"

static int32_t used_tokens(const Example *e)  // SFT: tokens up to the one that predicts the last target
{
    int32_t n = e->n - 1;
    while (n > 0 && !e->mask[n]) n--;
    return n;
}

int64_t pack_tokens(const Example *e)
{
    if (e->answers == 1) return used_tokens(e);
    return (int64_t)e->n - 1;  // (prompt - 1) + chosen + rejected
}

typedef struct Item {
    int64_t tokens;
    int32_t index;
    int32_t chain, row;
} Item;

static int by_size(const void *a, const void *b)
{
    const Item *x = a, *y = b;
    if (x->tokens != y->tokens) return x->tokens > y->tokens ? -1 : 1;
    return x->index - y->index;
}

static int by_row(const void *a, const void *b)
{
    const Item *x = a, *y = b;
    if (x->row != y->row) return x->row - y->row;
    return x->index - y->index;
}

// Puts every item of a chain into the first of rows [first, ..) that still has room; returns the end of the rows.
static int32_t first_fit(Item *item, int32_t n, int32_t chain, int64_t row_tokens, int64_t *room, int32_t first)
{
    int32_t rows = first;
    for (int32_t i = 0; i < n; i++) {
        int32_t r = first;
        if (item[i].chain != chain) continue;
        while (r < rows && room[r] < item[i].tokens) r++;
        if (r == rows) room[rows++] = row_tokens;
        room[r] -= item[i].tokens;
        item[i].row = r;
    }
    return rows;
}

// Each item to the chain with the fewest tokens so far, of equal ones the first.
static void deal(Item *item, int32_t n, int32_t chains, int64_t *load)
{
    memset(load, 0, (size_t)chains * sizeof *load);
    for (int32_t i = 0; i < n; i++) {
        int32_t least = 0;
        for (int32_t c = 1; c < chains; c++)
            if (load[c] < load[least]) least = c;
        load[least] += item[i].tokens;
        item[i].chain = least;
    }
}

static Err row_alloc(Arena *a, PackedRow *row, int64_t tokens, int64_t segments)
{
    TRY(ARENA_ARRAY(a, &row->token, tokens));
    TRY(ARENA_ARRAY(a, &row->pos, tokens));
    TRY(ARENA_ARRAY(a, &row->target, tokens));
    TRY(ARENA_ARRAY(a, &row->example, tokens));
    TRY(ARENA_ARRAY(a, &row->side, tokens));
    TRY(ARENA_ARRAY(a, &row->seg, segments));
    return OK;
}

// Appends one segment of n tokens; target[i] = -1 where mask says so.
static void add_segment(PackedRow *row, const int32_t *token, const int32_t *target, int32_t n, int32_t prefix, int32_t pos0,
                        int32_t example, int32_t side)
{
    row->seg[row->S++] = (Segment){.start = row->T, .len = n, .prefix = prefix, .pos0 = pos0};
    for (int32_t i = 0; i < n; i++, row->T++) {
        row->token[row->T] = token[i];
        row->pos[row->T] = pos0 + i;
        row->target[row->T] = target ? target[i] : -1;
        row->example[row->T] = target && target[i] >= 0 ? example : -1;
        row->side[row->T] = side;
    }
}

static Err add_sft(Arena *a, PackedRow *row, const Example *e, int32_t index)
{
    int32_t n = used_tokens(e), *target;
    TRY(ARENA_ARRAY(a, &target, n));
    for (int32_t i = 0; i < n; i++) target[i] = e->mask[i + 1] ? e->id_tokens[i + 1] : -1;
    add_segment(row, e->id_tokens, target, n, -1, 0, index, 0);
    return OK;
}

static Err add_pair(Arena *a, PackedRow *row, const Example *e, int32_t index)
{
    int32_t head = e->prompt - 1, prefix = -1, *token;
    if (head > 0) {
        prefix = row->S;
        add_segment(row, e->id_tokens, NULL, head, -1, 0, index, 0);
    }
    const int32_t *answer[2] = {e->id_tokens + e->prompt, e->id_tokens + e->prompt + e->chosen};
    int32_t n[2] = {e->chosen, e->n - e->prompt - e->chosen};
    for (int32_t side = 0; side < 2; side++) {  // the prompt's last token, then the answer without its last
        TRY(ARENA_ARRAY(a, &token, n[side]));
        token[0] = e->id_tokens[head];
        memcpy(token + 1, answer[side], (size_t)(n[side] - 1) * sizeof *token);
        add_segment(row, token, answer[side], n[side], prefix, head, index, side);
    }
    return OK;
}

static Err check_example(const Example *e, int64_t row_tokens)
{
    char id[ID_TEXT];
    id_print(e->id, id);
    int64_t need = pack_tokens(e);
    CHECK(need > 0, ERR_DATA, "example %s has no target token", id);
    CHECK(e->answers == 1 || (e->prompt > 0 && e->chosen > 0 && e->n > e->prompt + e->chosen), ERR_DATA,
          "pair %s has an empty prompt or answer", id);
    CHECK(need <= row_tokens, ERR_RECIPE, "example %s takes %lld tokens, a row holds row_tokens: %lld; set row_tokens to %lld or more",
          id, (long long)need, (long long)row_tokens, (long long)need);
    return OK;
}

static Err fill_row(Arena *a, PackedRow *row, const Item *item, int32_t items, const Example *const *ex)
{
    int64_t tokens = 0;
    for (int32_t i = 0; i < items; i++) tokens += item[i].tokens;
    *row = (PackedRow){0};
    TRY(row_alloc(a, row, tokens, 3 * (int64_t)items));
    for (int32_t i = 0; i < items; i++) {
        const Example *e = ex[item[i].index];
        TRY((e->answers == 1 ? add_sft : add_pair)(a, row, e, item[i].index));
    }
    ASSERT(row->T == tokens);
    return OK;
}

Err pack_step(Arena *arena, const Example *const *ex, int32_t n, int64_t row_tokens, int64_t chains, PackedStep *out)
{
    Item *item;
    int64_t *room;
    TRY(ARENA_ARRAY(arena, &item, n));
    TRY(ARENA_ARRAY(arena, &room, n));
    for (int32_t i = 0; i < n; i++) {
        TRY(check_example(ex[i], row_tokens));
        item[i] = (Item){pack_tokens(ex[i]), i, 0, 0};
    }
    MEM_SORT(item, n, by_size);
    int32_t rows = first_fit(item, n, 0, row_tokens, room, 0);
    *out = (PackedStep){.chains = rows < chains ? rows : (int32_t)chains, .examples = n};
    TRY(ARENA_ARRAY(arena, &out->first, out->chains + 1));
    deal(item, n, out->chains, room);
    out->first[0] = 0;
    for (int32_t c = 0; c < out->chains; c++) out->first[c + 1] = first_fit(item, n, c, row_tokens, room, out->first[c]);
    out->rows = out->first[out->chains];
    MEM_SORT(item, n, by_row);
    TRY(ARENA_ARRAY(arena, &out->row, out->rows));
    for (int32_t r = 0, i = 0; r < out->rows; r++) {
        int32_t first = i;
        while (i < n && item[i].row == r) i++;
        TRY(fill_row(arena, &out->row[r], item + first, i - first, ex));
        for (int32_t t = 0; t < out->row[r].T; t++) out->targets += out->row[r].target[t] >= 0;
    }
    return OK;
}

// Copies one row behind the tokens and segments that the batch already has.
static void append_row(const PackedRow *r, int64_t T, int64_t S, int32_t *token, int32_t *pos, int32_t *target, Segment *seg)
{
    memcpy(token + T, r->token, (size_t)r->T * sizeof *token);
    memcpy(pos + T, r->pos, (size_t)r->T * sizeof *pos);
    memcpy(target + T, r->target, (size_t)r->T * sizeof *target);
    for (int32_t s = 0; s < r->S; s++) {
        seg[S + s] = r->seg[s];
        seg[S + s].start += (int32_t)T;
        if (seg[S + s].prefix >= 0) seg[S + s].prefix += (int32_t)S;
    }
}

typedef struct BatchArrays {
    int32_t *row, *token, *pos, *target;
    Segment *seg;
} BatchArrays;

static Err batch_alloc(Arena *arena, int32_t rows, int64_t T, int64_t S, BatchArrays *a)
{
    TRY(ARENA_ARRAY(arena, &a->row, rows + 1));
    TRY(ARENA_ARRAY(arena, &a->token, T));
    TRY(ARENA_ARRAY(arena, &a->pos, T));
    TRY(ARENA_ARRAY(arena, &a->target, T));
    return ARENA_ARRAY(arena, &a->seg, S);
}

Err pack_count(Arena *counting, const Batch *shape)
{
    BatchArrays a;
    return batch_alloc(counting, shape->rows, shape->T, shape->S, &a);
}

Err pack_batch(Arena *arena, const PackedStep *s, const int32_t *row_index, int32_t rows, Batch *out, int32_t **target)
{
    int64_t T = 0, S = 0;
    BatchArrays a;
    for (int32_t i = 0; i < rows; i++) T += s->row[row_index[i]].T, S += s->row[row_index[i]].S;
    ASSERT(T <= INT32_MAX);
    TRY(batch_alloc(arena, rows, T, S, &a));
    T = S = a.row[0] = 0;
    for (int32_t i = 0; i < rows; i++) {
        const PackedRow *r = &s->row[row_index[i]];
        append_row(r, T, S, a.token, a.pos, a.target, a.seg);
        T += r->T, S += r->S;
        a.row[i + 1] = (int32_t)T;
    }
    *target = a.target;
    *out = (Batch){.rows = rows, .T = T, .row = a.row, .token = a.token, .pos = a.pos, .seg = a.seg, .S = S};
    return OK;
}
