// SPDX-License-Identifier: Apache-2.0
// Fast attention: online softmax over blocks of ATTN_BLOCK keys; the products by the small mm, MR queries (or keys) at a time.
//
// Method: keys (backward: values too) are packed transposed in blocks, so scores are a plain product q . kt; what the backward
// reads again and again (keys, queries, dout) is packed densely. Forward: a piece is a head and a block of queries; the key
// blocks of the prefix, then of the segment itself, are folded into a running sum and output, both relative to a reference
// score that is replaced only when a score exceeds it by SLACK. Backward: a piece is a head and a segment without prefix
// together with the segments that share it; the key blocks are the outer loop, so dq takes them in the same order as the
// forward did, and the head's dk, dv take own queries first, then the sharers in table order. Then the heads of a group are
// added in order.
// What the mask hides is left out tile by tile: of MR rows of scores only the vectors that hold a visible key are computed, and
// only visible keys are summed over.
// Drawback: the backward holds dk and dv once a query head.
// Invariants: nothing depends on where a segment lies in its row, nor on its neighbours, nor on the team.
#include <math.h>

#include "kernels/cpu/attn.h"
#include "kernels/cpu/fast.h"

static const float SLACK = 8;  // sums grow by up to e^8: far from overflow, and no digit is lost

// --- packing -----------------------------------------------------------------------------------------------------------

typedef float quad __attribute__((vector_size(16)));

static inline void transpose_quads(const float *x, int64_t ldx, float *out, int64_t ldo)
{
    quad a, b, c, d;
    memcpy(&a, x, sizeof a), memcpy(&b, x + ldx, sizeof b), memcpy(&c, x + 2 * ldx, sizeof c),
        memcpy(&d, x + 3 * ldx, sizeof d);
    quad ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    quad ef = __builtin_shufflevector(a, b, 2, 6, 3, 7), gh = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    a = __builtin_shufflevector(ab, cd, 0, 1, 4, 5), b = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    c = __builtin_shufflevector(ef, gh, 0, 1, 4, 5), d = __builtin_shufflevector(ef, gh, 2, 3, 6, 7);
    memcpy(out, &a, sizeof a), memcpy(out + ldo, &b, sizeof b), memcpy(out + 2 * ldo, &c, sizeof c),
        memcpy(out + 3 * ldo, &d, sizeof d);
}

// out[block][kv][D][ATTN_BLOCK] of one segment and kv head; columns beyond the segment are zero. D is a multiple of 4.
static void transpose(const Tensor *x, const Segment *seg, int64_t s, int64_t kv, int64_t K, int64_t D, float *out)
{
    int64_t block = attn_blocks_before(seg, s, ATTN_BLOCK);
    for (int64_t j = 0; j < seg[s].len; j += ATTN_BLOCK, block++) {
        const float *from = row_f32(x, seg[s].start + j) + kv * D;
        float *to = out + (block * K + kv) * D * ATTN_BLOCK;
        int64_t n = lesser(ATTN_BLOCK, seg[s].len - j), whole = n / 4 * 4;
        if (n < ATTN_BLOCK) memset(to, 0, (size_t)(D * ATTN_BLOCK) * sizeof(float));
        for (int64_t i = 0; i < whole; i += 4)
            for (int64_t d = 0; d < D; d += 4)
                transpose_quads(from + i * x->stride + d, x->stride, to + d * ATTN_BLOCK + i, ATTN_BLOCK);
        for (int64_t i = whole; i < n; i++)
            for (int64_t d = 0; d < D; d++) to[d * ATTN_BLOCK + i] = from[i * x->stride + d];
    }
}

// One segment's rows of one head into out[head][T][D].
static void gather(const Tensor *x, const Segment *seg, int64_t head, int64_t T, int64_t D, float *out)
{
    for (int64_t t = seg->start; t < seg->start + seg->len; t++)
        memcpy(out + (head * T + t) * D, row_f32(x, t) + head * D, (size_t)D * sizeof(float));
}

void NAME(attn_pack)(const void *args, int64_t from, int64_t to)
{
    const AttnArgs *a = args;
    for (int64_t item = from; item < to; item++)
        transpose(&a->k, a->seg, item / a->K, item % a->K, a->K, a->D, a->workspace);
}

// --- forward -----------------------------------------------------------------------------------------------------------

static inline vf softcapped(vf x, float cap) { return cap > 0 ? vset(cap) * vtanh(x * vset(1 / cap)) : x; }

// Lanes j .. j + VL that lie in the range.
static inline vi inside(Range r, int64_t j) { return (vlane() >= (int32_t)(r.from - j)) & (vlane() < (int32_t)(r.to - j)); }

// The vectors that hold the range.
static inline Range vectors(Range r) { return (Range){r.from / VL * VL, (r.to + VL - 1) / VL * VL}; }

// What a block of queries gathers.
typedef struct Sums {
    _Alignas(64) float s[MR * ATTN_BLOCK];
    _Alignas(64) float o[ATTN_QUERIES * MAX_D];
    vf sum[ATTN_QUERIES];     // lane by lane
    float top[ATTN_QUERIES];  // reference
} Sums;

// Moves row i's reference to the largest of its new scores.
static void raise(Sums *g, int64_t i, float top, int64_t D)
{
    float *o = g->o + i * D;
    if (g->top[i] > -INFINITY) {  // else nothing was gathered yet
        vf old = vexp(vset(g->top[i] - top));
        g->sum[i] *= old;
        for (int64_t d = 0; d < D; d += VL) vstore(o + d, vload(o + d, D - d) * old, D - d);
    }
    g->top[i] = top;
}

// Row i's scores x over the vectors of `wide` become probabilities relative to its reference, 0 where not visible (all is
// visible: `masked` is false).
static inline __attribute__((always_inline)) void fold_scores(const AttnArgs *a, Sums *g, int64_t i, float *x, Range wide,
                                                              Range own, bool masked)
{
    const vf none = vset(-INFINITY), scale = vset(a->scale);
    vf top = none;
    for (int64_t j = wide.from; j < wide.to; j += VL) {
        vf y = softcapped(vload(x + j, VL) * scale, a->softcap);
        vstore(x + j, y, VL);
        top = vmax(masked ? vselect(inside(own, j), y, none) : y, top);
    }
    if (vany(top > vset(g->top[i] + SLACK))) raise(g, i, vmax_lanes(top), a->D);
    vf sum = g->sum[i], reference = vset(g->top[i]);
    for (int64_t j = wide.from; j < wide.to; j += VL) {
        vf p = vexp_near(vmax(vset(-87.0f), vload(x + j, VL) - reference));
        if (masked) p = vselect(inside(own, j), p, vset(0));
        sum += p;
        vstore(x + j, p, VL);
    }
    g->sum[i] = sum;
}

static inline void fold_row(const AttnArgs *a, Sums *g, int64_t i, float *x, Range wide, Range own)
{
    if (own.from == wide.from && own.to == wide.to) fold_scores(a, g, i, x, wide, own, false);
    else fold_scores(a, g, i, x, wide, own, true);
}

// Rows [i, i + n) of the queries against the keys of a block.
static void fold_tile(const AttnArgs *a, Sums *g, const Queries *q, int64_t head, int64_t i, int64_t n, const float *kt,
                      const float *v, const Mask *m)
{
    int64_t D = a->D, ldv = a->v.stride;
    Range keys = attn_visible(m, q->pos + i, n), wide = vectors(keys);
    if (keys.from == keys.to) return;
    Mat query = {row_f32(&a->q, q->token + i) + head * D, a->q.stride, 1};
    mm(n, wide.to - wide.from, D, query, kt + wide.from, ATTN_BLOCK, g->s + wide.from, ATTN_BLOCK, false);
    for (int64_t r = 0; r < n; r++) fold_row(a, g, i + r, g->s + r * ATTN_BLOCK, wide, attn_visible(m, q->pos + i + r, 1));
    mm(n, D, keys.to - keys.from, (Mat){g->s + keys.from, ATTN_BLOCK, 1}, v + keys.from * ldv, ldv, g->o + i * D, D, true);
}

static void fold_segment(const AttnArgs *a, Sums *g, const Queries *q, int64_t head, int64_t s)
{
    const Segment *keys = &a->seg[s];
    int64_t block = attn_blocks_before(a->seg, s, ATTN_BLOCK), kv = head / (a->N / a->K);
    for (int64_t j = 0; j < keys->len; j += ATTN_BLOCK, block++) {
        Mask m = {keys->pos0 + j, lesser(ATTN_BLOCK, keys->len - j), a->window};
        const float *kt = (const float *)a->workspace + (block * a->K + kv) * a->D * ATTN_BLOCK;
        const float *v = row_f32(&a->v, keys->start + j) + kv * a->D;
        for (int64_t i = 0; i < q->n; i += MR) fold_tile(a, g, q, head, i, lesser(MR, q->n - i), kt, v, &m);
    }
}

static void write_queries(const AttnArgs *a, const Sums *g, const Queries *q, int64_t head)
{
    for (int64_t i = 0; i < q->n; i++) {
        float *o = row_f32(&a->o, q->token + i) + head * a->D, sum = vsum(g->sum[i]);
        vf inverse = vset(1 / sum);
        for (int64_t d = 0; d < a->D; d += VL) vstore(o + d, vload(g->o + i * a->D + d, a->D - d) * inverse, a->D - d);
        if (a->lse) a->lse[head * a->T + q->token + i] = g->top[i] + logf(sum);
    }
}

void NAME(attn_fwd)(const void *args, int64_t from, int64_t to)
{
    const AttnArgs *a = args;
    int64_t blocks = attn_blocks_before(a->seg, a->S, ATTN_QUERIES);
    Sums g;
    for (int64_t item = from; item < to; item++) {
        int64_t head = item / blocks;
        Queries q = attn_queries(a->seg, item % blocks);
        for (int64_t i = 0; i < q.n; i++) g.top[i] = -INFINITY, g.sum[i] = vset(0);
        memset(g.o, 0, (size_t)(q.n * a->D) * sizeof(float));
        if (a->seg[q.segment].prefix >= 0) fold_segment(a, &g, &q, head, a->seg[q.segment].prefix);
        fold_segment(a, &g, &q, head, q.segment);
        write_queries(a, &g, &q, head);
    }
}

// --- backward ----------------------------------------------------------------------------------------------------------

// Parts of the workspace: keys and values transposed; keys by kv head; queries, dout, and the head's dk and dv, [N][T][D];
// dout . o, [N][T].
typedef struct Space {
    float *kt, *vt, *k, *q, *dout, *dk, *dv, *delta;
} Space;

static inline Space space(const AttnBwdArgs *a)
{
    int64_t blocks = attn_blocks(a->T, a->S) * ATTN_BLOCK * a->D * a->K, head = a->T * a->N * a->D;
    float *p = a->workspace, *q = p + 2 * blocks + a->T * a->K * a->D;
    return (Space){p, p + blocks, p + 2 * blocks, q, q + head, q + 2 * head, q + 3 * head, q + 4 * head};
}

void NAME(attn_bwd_pack)(const void *args, int64_t from, int64_t to)
{
    const AttnBwdArgs *a = args;
    Space p = space(a);
    for (int64_t item = from; item < to; item++) {
        int64_t s = item / a->K, kv = item % a->K;
        transpose(&a->k, a->seg, s, kv, a->K, a->D, p.kt);
        transpose(&a->v, a->seg, s, kv, a->K, a->D, p.vt);
        gather(&a->k, &a->seg[s], kv, a->T, a->D, p.k);
    }
}

// A block of keys of one head, what it gathers, and where it lies.
typedef struct Keys {
    const float *kt, *vt, *k;
    float *dk, *dv;
    Mask mask;
} Keys;

// Probabilities and score gradients of a block of queries and a block of keys.
typedef struct Grads {
    _Alignas(64) float p[ATTN_QUERIES * ATTN_BLOCK], ds[ATTN_QUERIES * ATTN_BLOCK];
} Grads;

// One query's scores p become probabilities, and dp (in ds) the gradient of the scores; both 0 where not visible.
static inline __attribute__((always_inline)) void grad_scores(const AttnBwdArgs *a, float *p, float *ds, float lse, float delta,
                                                              Range wide, Range own, bool masked)
{
    for (int64_t j = wide.from; j < wide.to; j += VL) {
        vf x = softcapped(vload(p + j, VL) * vset(a->scale), a->softcap), slope = vset(a->scale);
        if (a->softcap > 0) slope *= vset(1) - x * x * vset(1 / (a->softcap * a->softcap));
        vf y = vexp_near(vmax(vset(-87.0f), x - vset(lse))), d = y * (vload(ds + j, VL) - vset(delta)) * slope;
        vstore(p + j, masked ? vselect(inside(own, j), y, vset(0)) : y, VL);
        vstore(ds + j, masked ? vselect(inside(own, j), d, vset(0)) : d, VL);
    }
}

static inline void grad_row(const AttnBwdArgs *a, float *p, float *ds, float lse, float delta, Range wide, Range own)
{
    for (int64_t j = 0; j < wide.from; j += VL) vstore(p + j, vset(0), VL), vstore(ds + j, vset(0), VL);
    for (int64_t j = wide.to; j < ATTN_BLOCK; j += VL) vstore(p + j, vset(0), VL), vstore(ds + j, vset(0), VL);
    if (own.from == wide.from && own.to == wide.to) grad_scores(a, p, ds, lse, delta, wide, own, false);
    else grad_scores(a, p, ds, lse, delta, wide, own, true);
}

// Rows [i, i + n): p and ds of the block, and dq.
static void grad_tile(const AttnBwdArgs *a, Grads *g, const Keys *k, const Queries *q, int64_t head, int64_t i, int64_t n)
{
    int64_t D = a->D, at = head * a->T + q->token + i;
    float *p = g->p + i * ATTN_BLOCK, *ds = g->ds + i * ATTN_BLOCK;
    Range keys = attn_visible(&k->mask, q->pos + i, n), wide = vectors(keys);
    if (keys.from < keys.to) {
        int64_t w = wide.to - wide.from;
        mm(n, w, D, (Mat){space(a).q + at * D, D, 1}, k->kt + wide.from, ATTN_BLOCK, p + wide.from, ATTN_BLOCK, false);
        mm(n, w, D, (Mat){space(a).dout + at * D, D, 1}, k->vt + wide.from, ATTN_BLOCK, ds + wide.from, ATTN_BLOCK, false);
    }
    for (int64_t r = 0; r < n; r++)
        grad_row(a, p + r * ATTN_BLOCK, ds + r * ATTN_BLOCK, a->lse[at + r], space(a).delta[at + r], wide,
                 attn_visible(&k->mask, q->pos + i + r, 1));
    mm(n, D, keys.to - keys.from, (Mat){ds + keys.from, ATTN_BLOCK, 1}, k->k + keys.from * D, D,
       row_f32(&a->dq, q->token + i) + head * D, a->dq.stride, true);
}

static void grad_block(const AttnBwdArgs *a, Grads *g, const Keys *k, const Queries *q, int64_t head)
{
    Range some = attn_visible(&k->mask, q->pos, q->n);
    int64_t D = a->D, at = head * a->T + q->token;
    if (some.from == some.to) return;
    for (int64_t i = 0; i < q->n; i += MR) grad_tile(a, g, k, q, head, i, lesser(MR, q->n - i));
    for (int64_t j = 0; j < k->mask.n; j += MR) {
        int64_t n = lesser(MR, k->mask.n - j);
        Range r = attn_seeing(&k->mask, j, n, q->pos, q->n);
        int64_t first = r.from * ATTN_BLOCK + j, row = (at + r.from) * D;
        mm(n, D, r.to - r.from, (Mat){g->p + first, 1, ATTN_BLOCK}, space(a).dout + row, D, k->dv + j * D, D, true);
        mm(n, D, r.to - r.from, (Mat){g->ds + first, 1, ATTN_BLOCK}, space(a).q + row, D, k->dk + j * D, D, true);
    }
}

static void grad_queries(const AttnBwdArgs *a, const Keys *k, int64_t s, int64_t head)
{
    Grads g;
    const Segment *seg = &a->seg[s];
    for (int64_t i = 0; i < seg->len; i += ATTN_QUERIES) {
        Queries q = attn_queries_at(a->seg, s, i);
        grad_block(a, &g, k, &q, head);
    }
}

// The keys of segment s with its own queries and those of the segments that share it.
static void grad_keys(const AttnBwdArgs *a, int64_t s, int64_t head)
{
    const Segment *seg = &a->seg[s];
    Space p = space(a);
    int64_t block = attn_blocks_before(a->seg, s, ATTN_BLOCK), kv = head / (a->N / a->K);
    for (int64_t j = 0; j < seg->len; j += ATTN_BLOCK, block++) {
        int64_t turned = (block * a->K + kv) * a->D * ATTN_BLOCK, key = seg->start + j, own = (head * a->T + key) * a->D;
        Keys k = {.kt = p.kt + turned,
                  .vt = p.vt + turned,
                  .k = p.k + (kv * a->T + key) * a->D,
                  .dk = p.dk + own,
                  .dv = p.dv + own,
                  .mask = {seg->pos0 + j, lesser(ATTN_BLOCK, seg->len - j), a->window}};
        memset(k.dk, 0, (size_t)(k.mask.n * a->D) * sizeof(float));
        memset(k.dv, 0, (size_t)(k.mask.n * a->D) * sizeof(float));
        grad_queries(a, &k, s, head);
        for (int64_t c = s + 1; c < a->S; c++)
            if (a->seg[c].prefix == s) grad_queries(a, &k, c, head);
    }
}

static inline float dot(const float *x, const float *y, int64_t D)
{
    vf sum = vset(0);
    for (int64_t d = 0; d < D; d += VL) sum += vload(x + d, D - d) * vload(y + d, D - d);
    return vsum(sum);
}

static void prepare_segment(const AttnBwdArgs *a, const Segment *seg, int64_t head)
{
    gather(&a->q, seg, head, a->T, a->D, space(a).q);
    gather(&a->dout, seg, head, a->T, a->D, space(a).dout);
    for (int64_t t = seg->start; t < seg->start + seg->len; t++) {
        const float *dout = space(a).dout + (head * a->T + t) * a->D;
        space(a).delta[head * a->T + t] = dot(dout, row_f32(&a->o, t) + head * a->D, a->D);
        memset(row_f32(&a->dq, t) + head * a->D, 0, (size_t)a->D * sizeof(float));
    }
}

void NAME(attn_bwd)(const void *args, int64_t from, int64_t to)
{
    const AttnBwdArgs *a = args;
    for (int64_t item = from; item < to; item++) {
        int64_t head = item / a->S, s = item % a->S;
        if (a->seg[s].prefix >= 0) continue;
        for (int64_t c = s; c < a->S; c++)
            if (c == s || a->seg[c].prefix == s) prepare_segment(a, &a->seg[c], head);
        for (int64_t c = s; c < a->S; c++)
            if (c == s || a->seg[c].prefix == s) grad_keys(a, c, head);
    }
}

// dk, dv of one token and kv head: the heads of its group in order.
static void add_heads(const AttnBwdArgs *a, const float *x, int64_t t, int64_t kv, float *y)
{
    int64_t group = a->N / a->K, D = a->D;
    const float *first = x + (kv * group * a->T + t) * D;
    for (int64_t d = 0; d < D; d += VL) {
        vf sum = vload(first + d, D - d);
        for (int64_t n = 1; n < group; n++) sum += vload(first + n * a->T * D + d, D - d);
        vstore(y + d, sum, D - d);
    }
}

void NAME(attn_bwd_sum)(const void *args, int64_t from, int64_t to)
{
    const AttnBwdArgs *a = args;
    for (int64_t item = from; item < to; item++) {
        int64_t kv = item % a->K;
        const Segment *seg = &a->seg[item / a->K];
        for (int64_t t = seg->start; t < seg->start + seg->len; t++) {
            add_heads(a, space(a).dk, t, kv, row_f32(&a->dk, t) + kv * a->D);
            add_heads(a, space(a).dv, t, kv, row_f32(&a->dv, t) + kv * a->D);
        }
    }
}
