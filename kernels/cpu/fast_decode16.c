// SPDX-License-Identifier: Apache-2.0
// Decode attention on bf16 pages: as fast_decode.c, the products by tiles of the bf16 gemm.
//
// Keys lie in a page as the packed matrix of their block, values as that of its transpose (Attn16's units), so nothing is
// packed here. Weights are rounded to bf16; scores, sums and outputs are gathered in fp32.
// Drawback: a slot's own pages give tiles of N / K rows.
#include <math.h>

#include "kernels/cpu/attn16.h"
#include "kernels/cpu/fast16.h"

enum { ROWS = DECODE_GROUP * MAX_GROUP, SPARE = 32 };  // a tile may touch the rows up to the next multiple of 32

// Rows of one kv head, slot after slot; s and o have TILE16_COLUMNS columns.
typedef struct Gather {
    _Alignas(64) uint16_t q[ROWS * MAX_D];  // [rows][D]
    _Alignas(64) uint16_t p[ROWS * KV_PAGE];
    _Alignas(64) float s[(ROWS + SPARE) * TILE16_COLUMNS];
    _Alignas(64) float o[HALVES16][(ROWS + SPARE) * TILE16_COLUMNS];
    float max[ROWS], sum[ROWS];
} Gather;

static void start_row(const DecodeAttnArgs *a, Gather *w, int64_t row, const uint16_t *q)
{
    w->max[row] = -INFINITY;
    w->sum[row] = 0;
    for (int64_t h = 0; h < halves16(a->D); h++) memset(w->o[h] + row * TILE16_COLUMNS, 0, TILE16_COLUMNS * sizeof(float));
    memcpy(w->q + row * a->D, q, (size_t)a->D * sizeof *q);
}

static void rescale(Gather *w, int64_t row, int64_t D, vf by)
{
    for (int64_t d = 0; d < D; d += VL) {
        float *o = w->o[d / TILE16_COLUMNS] + row * TILE16_COLUMNS + d % TILE16_COLUMNS;
        vstore(o, vload(o, VL) * by, VL);
    }
}

// Scores of a row become rounded weights relative to the row's maximum; keys outside [from, to) get none.
static void weigh_row(const DecodeAttnArgs *a, Gather *w, int64_t row, int64_t from, int64_t to)
{
    float *x = w->s + row * TILE16_COLUMNS;
    for (int64_t j = 0; j < from; j++) x[j] = -INFINITY;
    for (int64_t j = to; j < KV_PAGE; j++) x[j] = -INFINITY;
    vf top = vset(-INFINITY), sum = vset(0);
    for (int64_t j = 0; j < KV_PAGE; j += VL) vstore(x + j, vload(x + j, VL) * vset(a->scale), VL);
    for (int64_t j = from; j < to && a->softcap > 0; j++) x[j] = a->softcap * tanhf(x[j] / a->softcap);
    for (int64_t j = 0; j < KV_PAGE; j += VL) top = vmax(vload(x + j, VL), top);
    float max = vmax_lanes(top);
    max = max > w->max[row] ? max : w->max[row];
    vf old = vexp(vset(w->max[row] - max));
    for (int64_t j = 0; j < KV_PAGE; j += VL) {
        vf p = vexp(vload(x + j, VL) - vset(max));
        sum += p;
        vstore_bf16(w->p + row * KV_PAGE + j, p, VL);
    }
    w->sum[row] = w->sum[row] * old[0] + vsum(sum);
    if (max != w->max[row]) rescale(w, row, a->D, old);
    w->max[row] = max;
}

// o += p . v; `to` keys of the page
static void add_values(const Decode16 *g, Gather *w, int64_t first, int64_t n, const uint32_t *values, int64_t to)
{
    int64_t panels = bf16_panels(g->a->D), line = bf16_pairs(KV_PAGE) * BF16_PANEL;
    for (int64_t h = 0; h < halves16(g->a->D); h++) {
        Tile16 t = {.rows = n, .panels = lesser(TILE16_PANELS, panels - h * TILE16_PANELS), .pairs = (to + 1) / 2,
                    .a = (const uint32_t *)(const void *)w->p + first * KV_PAGE / 2, .a_row = KV_PAGE / 2, .a_pair = 1,
                    .a_panel = BF16_PANEL * KV_PAGE / 2, .b = values + h * TILE16_PANELS * line, .b_panel = line,
                    .c = w->o[h] + first * TILE16_COLUMNS};
        g->tile(&t);
    }
}

// Folds keys [from, to) of a page into rows first .. first + n - 1.
static void fold_page(const Decode16 *g, Gather *w, int64_t first, int64_t n, int32_t page, int64_t kv, int64_t from, int64_t to)
{
    const DecodeAttnArgs *a = g->a;
    int64_t D = a->D, rows = unit_rows16(D), columns = unit_columns16(D);
    const uint32_t *keys = (const uint32_t *)a->pages + page * a->K * (rows + columns), *values = keys + a->K * rows + kv * columns;
    Tile16 t = {.rows = n, .panels = bf16_panels(to), .pairs = D / 2, .a = (const uint32_t *)(const void *)w->q + first * D / 2,
                .a_row = D / 2, .a_pair = 1, .a_panel = BF16_PANEL * D / 2, .b = keys + kv * rows,
                .b_panel = bf16_pairs(D) * BF16_PANEL, .c = w->s + first * TILE16_COLUMNS, .first = true};
    g->tile(&t);
    for (int64_t row = first; row < first + n; row++) weigh_row(a, w, row, from, to);
    add_values(g, w, first, n, values, to);
}

// count tokens in a table of pages; skip: the first ones that are outside the window. Rows in portions that a tile takes.
static void fold_pages(const Decode16 *g, Gather *w, int64_t first, int64_t n, const int32_t *page, int64_t kv, int64_t count,
                       int64_t skip)
{
    if (skip < 0) skip = 0;
    if (skip >= count) return;
    for (int64_t j = skip / KV_PAGE * KV_PAGE; j < count; j += KV_PAGE)
        for (int64_t i = 0; i < n; i += TILE16_ROWS)
            fold_page(g, w, first + i, lesser(TILE16_ROWS, n - i), page[j / KV_PAGE], kv, skip > j ? skip - j : 0,
                      lesser(KV_PAGE, count - j));
}

static void end_row(const DecodeAttnArgs *a, const Gather *w, int64_t row, uint16_t *o)
{
    vf by = vset(w->sum[row] > 0 ? 1 / w->sum[row] : 0);
    for (int64_t d = 0; d < a->D; d += VL)
        vstore_bf16(o + d, vload(w->o[d / TILE16_COLUMNS] + row * TILE16_COLUMNS + d % TILE16_COLUMNS, VL) * by, a->D - d);
}

// n slots with the same prefix; one alone where there is a window.
static void attend(const Decode16 *g, Gather *w, const int32_t *slot, int64_t n, int64_t kv)
{
    const DecodeAttnArgs *a = g->a;
    int64_t heads = a->N / a->K, prefix = a->prefix_len[slot[0]], seen = prefix + a->own_len[slot[0]];
    int64_t skip = a->window > 0 && seen > a->window ? seen - a->window : 0;
    for (int64_t r = 0; r < n * heads; r++)
        start_row(a, w, r, row_bf16(&a->q, slot[r / heads]) + (kv * heads + r % heads) * a->D);
    fold_pages(g, w, 0, n * heads, a->prefix_page + slot[0] * a->max_prefix_pages, kv, prefix, skip);
    for (int64_t i = 0; i < n; i++)
        fold_pages(g, w, i * heads, heads, a->own_page + slot[i] * a->max_own_pages, kv, a->own_len[slot[i]], skip - prefix);
    for (int64_t r = 0; r < n * heads; r++)
        end_row(a, w, r, row_bf16(&a->o, slot[r / heads]) + (kv * heads + r % heads) * a->D);
}

void NAME(attn16_decode)(const void *args, int64_t from, int64_t to)
{
    const Decode16 *g = args;
    const DecodeAttnArgs *a = g->a;
    Gather w;
    for (int64_t item = from; item < to; item++) {
        const int64_t first = a->group[item / a->K], end = a->group[item / a->K + 1];
        if (a->window > 0)
            for (int64_t i = first; i < end; i++) attend(g, &w, a->order + i, 1, item % a->K);
        else attend(g, &w, a->order + first, end - first, item % a->K);
    }
}
