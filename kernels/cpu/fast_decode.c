// SPDX-License-Identifier: Apache-2.0
// Fast decode attention: a piece is a group of slots with the same prefix, and a kv head.
//
// Method: online softmax over pages. A page of the prefix is folded into all rows (slots x query heads) of the group at once,
// two small products and a softmax a row; then each slot's own pages into its rows. A row's bits do not depend on the rows
// beside it, because mm's do not. With a window the slots of a group see different parts of the prefix and are taken one by
// one. Drawback: the last page's places that are not filled are computed too, up to a multiple of VL.
#include <math.h>

#include "kernels/cpu/fast.h"

enum { ROWS = DECODE_GROUP * MAX_GROUP };

// Rows of one kv head, slot after slot.
typedef struct Gather {
    _Alignas(64) float q[ROWS * MAX_D];  // scaled; [rows][D], as o
    _Alignas(64) float s[ROWS * KV_PAGE];
    _Alignas(64) float o[ROWS * MAX_D];
    float max[ROWS], sum[ROWS];
} Gather;

static void start_row(const DecodeAttnArgs *a, Gather *w, int64_t row, const float *q)
{
    w->max[row] = -INFINITY;
    w->sum[row] = 0;
    memset(w->o + row * a->D, 0, (size_t)a->D * sizeof(float));
    for (int64_t d = 0; d < a->D; d++) w->q[row * a->D + d] = q[d] * a->scale;
}

// Scores of a row become weights relative to the row's maximum; what was gathered before is scaled to it. Keys outside
// [from, to) get no weight; width: places that were computed.
static void weigh_row(const DecodeAttnArgs *a, Gather *w, int64_t row, int64_t from, int64_t to, int64_t width)
{
    float *x = w->s + row * KV_PAGE, *o = w->o + row * a->D;
    for (int64_t j = 0; j < from; j++) x[j] = -INFINITY;
    for (int64_t j = to; j < width; j++) x[j] = -INFINITY;
    for (int64_t j = from; j < to && a->softcap > 0; j++) x[j] = a->softcap * tanhf(x[j] / a->softcap);
    vf top = vset(w->max[row]);
    for (int64_t j = 0; j < width; j += VL) top = vmax(top, vload(x + j, VL));
    const float max = vmax_lanes(top);
    vf sum = vset(0), old = vexp(vset(w->max[row] - max));
    for (int64_t j = 0; j < width; j += VL) {
        vf p = vexp(vload(x + j, VL) - vset(max));
        sum += p;
        vstore(x + j, p, VL);
    }
    w->sum[row] = w->sum[row] * old[0] + vsum(sum);
    w->max[row] = max;
    for (int64_t d = 0; d < a->D; d += VL) vstore(o + d, vload(o + d, a->D - d) * old, a->D - d);
}

// Folds keys [from, to) of a page into rows first .. first + n - 1.
static void fold_page(const DecodeAttnArgs *a, Gather *w, int64_t first, int64_t n, int32_t page, int64_t kv, int64_t from,
                      int64_t to)
{
    int64_t D = a->D, width = (to + VL - 1) / VL * VL;
    const float *keys = (const float *)a->pages + ((int64_t)page * 2 * a->K + kv) * KV_PAGE * D, *values = keys + a->K * KV_PAGE * D;
    float *s = w->s + first * KV_PAGE;
    mm(n, width, D, (Mat){w->q + first * D, D, 1}, keys, KV_PAGE, s, KV_PAGE, false);
    for (int64_t row = first; row < first + n; row++) weigh_row(a, w, row, from, to, width);
    mm(n, D, to - from, (Mat){s + from, KV_PAGE, 1}, values + from * D, D, w->o + first * D, D, true);
}

// count tokens in a table of pages; skip: the first ones that are outside the window.
static void fold_pages(const DecodeAttnArgs *a, Gather *w, int64_t first, int64_t n, const int32_t *page, int64_t kv,
                       int64_t count, int64_t skip)
{
    if (skip < 0) skip = 0;
    if (skip >= count) return;
    for (int64_t j = skip / KV_PAGE * KV_PAGE; j < count; j += KV_PAGE)
        fold_page(a, w, first, n, page[j / KV_PAGE], kv, skip > j ? skip - j : 0, lesser(KV_PAGE, count - j));
}

static void end_row(const DecodeAttnArgs *a, const Gather *w, int64_t row, float *o)
{
    for (int64_t d = 0; d < a->D; d++) o[d] = w->sum[row] > 0 ? w->o[row * a->D + d] / w->sum[row] : 0;
}

// n slots with the same prefix; one alone where there is a window.
static void attend(const DecodeAttnArgs *a, Gather *w, const int32_t *slot, int64_t n, int64_t kv)
{
    int64_t heads = a->N / a->K, prefix = a->prefix_len[slot[0]], seen = prefix + a->own_len[slot[0]];
    int64_t skip = a->window > 0 && seen > a->window ? seen - a->window : 0;
    for (int64_t r = 0; r < n * heads; r++)
        start_row(a, w, r, row_f32(&a->q, slot[r / heads]) + (kv * heads + r % heads) * a->D);
    fold_pages(a, w, 0, n * heads, a->prefix_page + slot[0] * a->max_prefix_pages, kv, prefix, skip);
    for (int64_t i = 0; i < n; i++)
        fold_pages(a, w, i * heads, heads, a->own_page + slot[i] * a->max_own_pages, kv, a->own_len[slot[i]], skip - prefix);
    for (int64_t r = 0; r < n * heads; r++) end_row(a, w, r, row_f32(&a->o, slot[r / heads]) + (kv * heads + r % heads) * a->D);
}

void NAME(attn_decode)(const void *args, int64_t from, int64_t to)
{
    const DecodeAttnArgs *a = args;
    Gather w;
    for (int64_t item = from; item < to; item++) {
        const int64_t first = a->group[item / a->K], end = a->group[item / a->K + 1];
        if (a->window > 0)
            for (int64_t i = first; i < end; i++) attend(a, &w, a->order + i, 1, item % a->K);
        else attend(a, &w, a->order + first, end - first, item % a->K);
    }
}
