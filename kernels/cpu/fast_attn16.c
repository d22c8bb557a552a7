// SPDX-License-Identifier: Apache-2.0
// bf16 attention: products by the tiles of the bf16 gemm, softmax and its gradient in fp32.
//
// Method: as fast_attn.c, in blocks of BLOCK16 queries and keys. Forward: scores of a block, the online softmax of each row,
// probabilities rounded to bf16, times v. Backward: key blocks are the outer loop; a block of queries gives p and ds, rounded,
// and from them its parts of dv, dk and dq, which are gathered in fp32. Score tiles stop at the last key that any of 32 queries
// sees. Operands are packed once (Attn16); p and ds are packed block by block.
// Drawback: a long single sequence gives only N (backward: K) pieces to a team.
// Invariants: nothing depends on where a segment lies in its row, nor on its neighbours.
#include <math.h>

#include "kernels/cpu/attn.h"
#include "kernels/cpu/attn16.h"
#include "kernels/cpu/fast16.h"

enum { STEP = 32 };  // queries whose score tiles stop together; AMX works on 32 rows
_Static_assert(BLOCK16 % STEP == 0 && STEP % BF16_PANEL == 0, "rows of a step are whole panels of a");

// --- packing ---------------------------------------------------------------------------------------------------------

typedef struct Source {  // head `head` of x, whose units lie [block][heads] in `out`
    const Tensor *x;
    int64_t head, heads, unit;
    uint32_t *out;
    bool columns;
} Source;

static void pack_units(const Attn16 *g, const Source *x, int64_t s)
{
    const Segment *seg = &g->a.seg[s];
    int64_t D = g->a.D, block = attn_blocks_before(g->a.seg, s, BLOCK16);
    for (int64_t j = 0; j < seg->len; j += BLOCK16, block++) {
        Pack16 p = {.w = {row_bf16(x->x, seg->start + j) + x->head * D, DT_BF16, x->x->stride},
                    .rows = lesser(BLOCK16, seg->len - j), .cols = D, .packed = x->out + (block * x->heads + x->head) * x->unit};
        if (x->columns) NAME(pack16_t)(&p, 0, bf16_panels(D));
        else NAME(pack16)(&p, 0, bf16_panels(BLOCK16));
    }
}

void NAME(attn16_pack)(const void *args, int64_t from, int64_t to)
{
    const Attn16 *g = args;
    const AttnBwdArgs *a = &g->a;
    int64_t rows = unit_rows16(a->D), columns = unit_columns16(a->D);
    for (int64_t item = from; item < to; item++) {
        int64_t s = item / a->K, kv = item % a->K;
        pack_units(g, &(Source){&a->k, kv, a->K, rows, g->k, false}, s);
        pack_units(g, &(Source){&a->v, kv, a->K, columns, g->v, true}, s);
    }
}

static float dot_heads(const AttnBwdArgs *a, int64_t t, int64_t head)
{
    vf sum = vset(0);
    for (int64_t d = head * a->D; d < (head + 1) * a->D; d += VL) {
        int64_t n = (head + 1) * a->D - d;
        sum += vload_bf16(row_bf16(&a->dout, t) + d, n) * vload_bf16(row_bf16(&a->o, t) + d, n);
    }
    return vsum(sum);
}

void NAME(attn16_bwd_pack)(const void *args, int64_t from, int64_t to)
{
    const Attn16 *g = args;
    const AttnBwdArgs *a = &g->a;
    int64_t rows = unit_rows16(a->D), columns = unit_columns16(a->D), group = a->N / a->K;
    for (int64_t item = from; item < to; item++) {
        int64_t s = item / a->K, kv = item % a->K, first = a->seg[s].start;
        pack_units(g, &(Source){&a->k, kv, a->K, rows, g->k, false}, s);
        pack_units(g, &(Source){&a->v, kv, a->K, rows, g->v, false}, s);
        pack_units(g, &(Source){&a->k, kv, a->K, columns, g->kt, true}, s);
        for (int64_t n = kv * group; n < (kv + 1) * group; n++) {
            pack_units(g, &(Source){&a->q, n, a->N, columns, g->qt, true}, s);
            pack_units(g, &(Source){&a->dout, n, a->N, columns, g->dot, true}, s);
            for (int64_t t = first; t < first + a->seg[s].len; t++) g->delta[n * a->T + t] = dot_heads(a, t, n);
        }
    }
}

// --- blocks ------------------------------------------------------------------------------------------------------------

typedef struct Keys {
    int64_t kv, number;  // head; block number
    Mask mask;
} Keys;

typedef struct Head {  // a block of queries of one head
    int64_t head, token, n, pos;  // first token, how many, position of the first
} Head;

static Head head_at(const Segment *seg, int64_t i, int64_t head)
{
    return (Head){head, seg->start + i, lesser(BLOCK16, seg->len - i), seg->pos0 + i};
}

static Keys keys_at(const AttnBwdArgs *a, int64_t s, int64_t j, int64_t kv)
{
    const Segment *seg = &a->seg[s];
    return (Keys){kv, attn_blocks_before(a->seg, s, BLOCK16) + j / BLOCK16,
                  {seg->pos0 + j, lesser(BLOCK16, seg->len - j), a->window}};
}

static inline bool any_visible(const Keys *k, const Head *q)
{
    Range r = attn_visible(&k->mask, q->pos, q->n);
    return r.from < r.to;
}

// c[n][keys] = x . block^T as far as the mask lets any query of a step see; the rest of c is left alone.
static void scores(const Attn16 *g, const Tensor *x, const Head *q, const Keys *k, const uint32_t *packed, float *c)
{
    int64_t D = g->a.D, unit = unit_rows16(D);
    for (int64_t i = 0; i < q->n; i += STEP) {
        int64_t rows = lesser(STEP, q->n - i), last = attn_visible(&k->mask, q->pos + i, rows).to;
        if (last == 0) continue;
        Tile16 t = {.rows = rows, .panels = bf16_panels(last), .pairs = D / 2, .a_row = x->stride / 2, .a_pair = 1,
                    .a_panel = BF16_PANEL * x->stride / 2, .b = packed + (k->number * g->a.K + k->kv) * unit,
                    .b_panel = bf16_pairs(D) * BF16_PANEL, .c = c + i * TILE16_COLUMNS, .first = true};
        t.a = (const uint32_t *)(const void *)(row_bf16(x, q->token + i) + q->head * D);
        g->tile(&t);
    }
}

static inline float softcapped(float s, float cap) { return cap > 0 ? cap * tanhf(s / cap) : s; }

// x = softcap(scale x) on `own`; -inf on the rest of the block.
static inline void score_row(const AttnBwdArgs *a, float *x, Range own)
{
    for (int64_t j = 0; j < own.from; j++) x[j] = -INFINITY;
    for (int64_t j = own.to; j < BLOCK16; j++) x[j] = -INFINITY;
    for (int64_t j = 0; j < BLOCK16; j += VL) vstore(x + j, vload(x + j, VL) * vset(a->scale), VL);
    for (int64_t j = own.from; j < own.to && a->softcap > 0; j++) x[j] = softcapped(x[j], a->softcap);
}

// --- forward -----------------------------------------------------------------------------------------------------------

// What a block of queries gathers; o and s have TILE16_COLUMNS columns.
typedef struct Gather {
    _Alignas(64) float s[BLOCK16 * TILE16_COLUMNS];
    _Alignas(64) float o[HALVES16][BLOCK16 * TILE16_COLUMNS];
    _Alignas(64) uint16_t p[BLOCK16 * BLOCK16];
    float max[BLOCK16], sum[BLOCK16];
    bool begun;
} Gather;

static inline void rescale(Gather *w, int64_t i, int64_t D, vf by)
{
    for (int64_t h = 0; h < halves16(D); h++) {
        float *o = w->o[h] + i * TILE16_COLUMNS;
        int64_t width = lesser(TILE16_COLUMNS, D - h * TILE16_COLUMNS);
        for (int64_t d = 0; d < width; d += VL) vstore(o + d, vload(o + d, VL) * by, VL);
    }
}

// Scores to rounded probabilities relative to the new maximum.
static inline void fold_row(Gather *w, int64_t i, int64_t D)
{
    float *x = w->s + i * TILE16_COLUMNS;
    vf top = vload(x, VL), sum = vset(0);
    for (int64_t j = VL; j < BLOCK16; j += VL) top = vmax(vload(x + j, VL), top);
    float max = vmax_lanes(top);
    max = max > w->max[i] ? max : w->max[i];
    vf old = vexp(vset(w->max[i] - max));
    for (int64_t j = 0; j < BLOCK16; j += VL) {
        vf p = vexp(vload(x + j, VL) - vset(max));
        sum += p;
        vstore_bf16(w->p + i * BLOCK16 + j, p, VL);
    }
    w->sum[i] = w->sum[i] * old[0] + vsum(sum);
    if (w->begun && max != w->max[i]) rescale(w, i, D, old);
    w->max[i] = max;
}

// o += p . v
static void add_values(const Attn16 *g, Gather *w, int64_t n, const Keys *k)
{
    int64_t panels = bf16_panels(g->a.D);
    for (int64_t h = 0; h < halves16(g->a.D); h++) {
        Tile16 t = {.rows = n, .panels = lesser(TILE16_PANELS, panels - h * TILE16_PANELS), .pairs = (k->mask.n + 1) / 2,
                    .a = (const uint32_t *)(const void *)w->p, .a_row = BLOCK16 / 2, .a_pair = 1,
                    .a_panel = BF16_PANEL * BLOCK16 / 2,
                    .b_panel = bf16_pairs(k->mask.n) * BF16_PANEL, .c = w->o[h], .first = !w->begun};
        t.b = g->v + (k->number * g->a.K + k->kv) * unit_columns16(g->a.D) + h * TILE16_PANELS * t.b_panel;
        g->tile(&t);
    }
    w->begun = true;
}

static void fold_block(const Attn16 *g, Gather *w, const Head *q, const Keys *k)
{
    scores(g, &g->a.q, q, k, g->k, w->s);
    for (int64_t i = 0; i < q->n; i++) {
        Range own = attn_visible(&k->mask, q->pos + i, 1);
        if (own.from == own.to) {
            memset(w->p + i * BLOCK16, 0, BLOCK16 * sizeof *w->p);
            continue;
        }
        score_row(&g->a, w->s + i * TILE16_COLUMNS, own);
        fold_row(w, i, g->a.D);
    }
    add_values(g, w, q->n, k);
}

static void fold_segment(const Attn16 *g, Gather *w, const Head *q, int64_t s)
{
    for (int64_t j = 0; j < g->a.seg[s].len; j += BLOCK16) {
        Keys k = keys_at(&g->a, s, j, q->head / (g->a.N / g->a.K));
        if (any_visible(&k, q)) fold_block(g, w, q, &k);
    }
}

static void write_queries(const Attn16 *g, const Gather *w, const Head *q)
{
    int64_t D = g->a.D;
    for (int64_t i = 0; i < q->n; i++) {
        uint16_t *o = row_bf16(&g->o, q->token + i) + q->head * D;
        vf by = vset(1 / w->sum[i]);
        for (int64_t d = 0; d < D; d += VL)
            vstore_bf16(o + d, vload(w->o[d / TILE16_COLUMNS] + i * TILE16_COLUMNS + d % TILE16_COLUMNS, VL) * by, D - d);
        if (g->lse) g->lse[q->head * g->a.T + q->token + i] = w->max[i] + logf(w->sum[i]);
    }
}

void NAME(attn16_fwd)(const void *args, int64_t from, int64_t to)
{
    const Attn16 *g = args;
    Gather w;
    for (int64_t item = from; item < to; item++) {
        int64_t s = item / g->a.N;
        const Segment *seg = &g->a.seg[s];
        for (int64_t i = 0; i < seg->len; i += BLOCK16) {
            Head q = head_at(seg, i, item % g->a.N);
            for (int64_t r = 0; r < q.n; r++) w.max[r] = -INFINITY, w.sum[r] = 0;
            w.begun = false;
            if (seg->prefix >= 0) fold_segment(g, &w, &q, seg->prefix);
            fold_segment(g, &w, &q, s);
            write_queries(g, &w, &q);
        }
    }
}

// --- backward ------------------------------------------------------------------------------------------------------------

// One block of keys: gathered gradients, and the current block of queries.
typedef struct Back {
    _Alignas(64) float dk[HALVES16][BLOCK16 * TILE16_COLUMNS], dv[HALVES16][BLOCK16 * TILE16_COLUMNS];
    _Alignas(64) float s[BLOCK16 * TILE16_COLUMNS], dp[BLOCK16 * TILE16_COLUMNS];
    _Alignas(64) uint16_t p[BLOCK16 * BLOCK16], ds[BLOCK16 * BLOCK16];
    _Alignas(64) uint32_t p_t[BLOCK16 * BLOCK16 / 2], ds_t[BLOCK16 * BLOCK16 / 2];
    bool begun;
} Back;

// One query's scores and dp to rounded p and ds.
static inline void grad_row(const AttnBwdArgs *a, Back *w, int64_t i, float lse, float delta, Range own)
{
    float *x = w->s + i * TILE16_COLUMNS, *dp = w->dp + i * TILE16_COLUMNS;
    score_row(a, x, own);
    for (int64_t j = 0; j < own.from; j++) dp[j] = 0;
    for (int64_t j = own.to; j < BLOCK16; j++) dp[j] = 0;
    for (int64_t j = 0; j < BLOCK16; j += VL) {
        vf raw = vload(x + j, VL), p = vexp(raw - vset(lse)), ds = p * (vload(dp + j, VL) - vset(delta)) * vset(a->scale);
        if (a->softcap > 0) {
            vf slope = vset(1) - raw * raw / vset(a->softcap * a->softcap);
            ds = vselect(p > vset(0), ds * slope, vset(0));  // raw is -inf where p is 0
        }
        vstore_bf16(w->p + i * BLOCK16 + j, p, VL);
        vstore_bf16(w->ds + i * BLOCK16 + j, ds, VL);
    }
}

// c[keys][D] (+)= x_t . b, k = queries.
static void add_keys(const Attn16 *g, const Back *w, const Head *q, const Keys *k, const uint32_t *x_t, const uint32_t *unit,
                     float (*c)[BLOCK16 * TILE16_COLUMNS])
{
    int64_t panels = bf16_panels(g->a.D), line = bf16_pairs(q->n) * BF16_PANEL;
    for (int64_t h = 0; h < halves16(g->a.D); h++) {
        Tile16 t = {.rows = k->mask.n, .panels = lesser(TILE16_PANELS, panels - h * TILE16_PANELS), .pairs = (q->n + 1) / 2,
                    .a = x_t, .a_row = 1, .a_pair = BF16_PANEL, .a_panel = line, .b = unit + h * TILE16_PANELS * line, .b_panel = line,
                    .c = c[h], .first = !w->begun};
        g->tile(&t);
    }
}

// dq += ds . k
static void add_queries(const Attn16 *g, const Back *w, const Head *q, int64_t number, const Keys *k)
{
    int64_t panels = bf16_panels(g->a.D), halves = halves16(g->a.D);
    for (int64_t h = 0; h < halves; h++) {
        Tile16 t = {.rows = q->n, .panels = lesser(TILE16_PANELS, panels - h * TILE16_PANELS), .pairs = (k->mask.n + 1) / 2,
                    .a = (const uint32_t *)(const void *)w->ds, .a_row = BLOCK16 / 2, .a_pair = 1,
                    .a_panel = BF16_PANEL * BLOCK16 / 2,
                    .b_panel = bf16_pairs(k->mask.n) * BF16_PANEL,
                    .c = g->dq + (((q->head * halves + h) * g->blocks + number) * BLOCK16) * TILE16_COLUMNS};
        t.b = g->kt + (k->number * g->a.K + k->kv) * unit_columns16(g->a.D) + h * TILE16_PANELS * t.b_panel;
        g->tile(&t);
    }
}

static void pack_t(uint16_t *x, int64_t n, uint32_t *out)
{
    Pack16 p = {.w = tensor_bf16(x, BLOCK16), .rows = n, .cols = BLOCK16, .packed = out};
    NAME(pack16_t)(&p, 0, bf16_panels(BLOCK16));
}

static void grad_block(const Attn16 *g, Back *w, const Head *q, int64_t number, const Keys *k)
{
    const AttnBwdArgs *a = &g->a;
    int64_t at = q->head * a->T + q->token, unit = (number * a->N + q->head) * unit_columns16(a->D);
    scores(g, &a->q, q, k, g->k, w->s);
    scores(g, &a->dout, q, k, g->v, w->dp);
    for (int64_t i = 0; i < q->n; i++)
        grad_row(a, w, i, a->lse[at + i], g->delta[at + i], attn_visible(&k->mask, q->pos + i, 1));
    pack_t(w->p, q->n, w->p_t);
    pack_t(w->ds, q->n, w->ds_t);
    add_keys(g, w, q, k, w->p_t, g->dot + unit, w->dv);
    add_keys(g, w, q, k, w->ds_t, g->qt + unit, w->dk);
    add_queries(g, w, q, number, k);
    w->begun = true;
}

static void grad_queries(const Attn16 *g, Back *w, const Keys *k, int64_t s)
{
    const Segment *seg = &g->a.seg[s];
    int64_t group = g->a.N / g->a.K, first = attn_blocks_before(g->a.seg, s, BLOCK16);
    for (int64_t head = k->kv * group; head < (k->kv + 1) * group; head++)
        for (int64_t i = 0; i < seg->len; i += BLOCK16) {
            Head q = head_at(seg, i, head);
            if (any_visible(k, &q)) grad_block(g, w, &q, first + i / BLOCK16, k);
        }
}

static void write_rows(const Tensor *to, int64_t token, int64_t n, int64_t head, int64_t D, const float *sum, int64_t half)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t d = 0; d < D; d += VL) {
            const float *x = sum + d / TILE16_COLUMNS * half + i * TILE16_COLUMNS + d % TILE16_COLUMNS;
            vstore_bf16(row_bf16(to, token + i) + head * D + d, vload(x, VL), D - d);
        }
}

// The keys of segment s with its own queries and those of the segments that share it.
static void grad_keys(const Attn16 *g, Back *w, int64_t s, int64_t kv)
{
    const AttnBwdArgs *a = &g->a;
    const Segment *seg = &a->seg[s];
    for (int64_t j = 0; j < seg->len; j += BLOCK16) {
        Keys k = keys_at(a, s, j, kv);
        w->begun = false;
        grad_queries(g, w, &k, s);
        for (int64_t c = s + 1; c < a->S; c++)
            if (a->seg[c].prefix == s) grad_queries(g, w, &k, c);
        write_rows(&a->dk, seg->start + j, k.mask.n, kv, a->D, w->dk[0], BLOCK16 * TILE16_COLUMNS);
        write_rows(&a->dv, seg->start + j, k.mask.n, kv, a->D, w->dv[0], BLOCK16 * TILE16_COLUMNS);
    }
}

// dq of segment s and the heads of kv: memory cleared, or its sums rounded to where they belong.
static void clear_or_write_dq(const Attn16 *g, int64_t s, int64_t kv, bool write)
{
    const AttnBwdArgs *a = &g->a;
    const Segment *seg = &a->seg[s];
    int64_t group = a->N / a->K, halves = halves16(a->D), half = g->blocks * BLOCK16 * TILE16_COLUMNS;
    int64_t at = attn_blocks_before(a->seg, s, BLOCK16) * BLOCK16 * TILE16_COLUMNS;
    int64_t size = (seg->len + BLOCK16 - 1) / BLOCK16 * BLOCK16 * TILE16_COLUMNS;
    for (int64_t n = kv * group; n < (kv + 1) * group; n++) {
        float *dq = g->dq + n * halves * half + at;
        if (write) write_rows(&a->dq, seg->start, seg->len, n, a->D, dq, half);
        for (int64_t h = 0; h < halves && !write; h++) memset(dq + h * half, 0, (size_t)size * sizeof *dq);
    }
}

void NAME(attn16_bwd)(const void *args, int64_t from, int64_t to)
{
    const Attn16 *g = args;
    Back w;
    for (int64_t item = from; item < to; item++) {
        int64_t root = item / g->a.K, kv = item % g->a.K;
        if (g->a.seg[root].prefix >= 0) continue;
        for (int64_t c = root; c < g->a.S; c++)
            if (c == root || g->a.seg[c].prefix == root) clear_or_write_dq(g, c, kv, false);
        for (int64_t c = root; c < g->a.S; c++)
            if (c == root || g->a.seg[c].prefix == root) grad_keys(g, &w, c, kv);
        for (int64_t c = root; c < g->a.S; c++)
            if (c == root || g->a.seg[c].prefix == root) clear_or_write_dq(g, c, kv, true);
    }
}
