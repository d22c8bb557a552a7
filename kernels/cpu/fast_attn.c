// Fast attention: online softmax over blocks of ATTN_BLOCK keys and BQ queries, products by the small mm.
//
// Method: keys (backward: values too) of each segment are packed transposed in blocks that are counted from the
// segment's start, so scores are a plain product q . kt. Forward: for a block of queries the key blocks of the prefix,
// then of the segment itself, are folded into a running maximum, sum and output. Backward: a piece is a kv head and a
// segment without prefix together with the segments that share it; the key blocks are the outer loop, so dq takes them
// in the same order as the forward did, and dk, dv take own queries first, then the sharers in table order.
// Drawback: a single long sequence gives only N (backward: K) pieces to a team.
// Invariants: nothing depends on where a segment lies in its row, nor on its neighbours.
#include <math.h>

#include "kernels/cpu/fast.h"

enum { BQ = 48 };

static inline int64_t blocks_before(const Segment *seg, int64_t s)
{
    int64_t n = 0;
    for (int64_t i = 0; i < s; i++) n += (seg[i].len + ATTN_BLOCK - 1) / ATTN_BLOCK;
    return n;
}

// out[block][kv][D][ATTN_BLOCK] of one segment and kv head; columns beyond the segment are zero.
static void transpose(const Tensor *x, const Segment *seg, int64_t s, int64_t kv, int64_t K, int64_t D, float *out)
{
    int64_t block = blocks_before(seg, s);
    for (int64_t j = 0; j < seg[s].len; j += ATTN_BLOCK, block++) {
        float *to = out + (block * K + kv) * D * ATTN_BLOCK;
        int64_t n = lesser(ATTN_BLOCK, seg[s].len - j);
        if (n < ATTN_BLOCK) memset(to, 0, (size_t)(D * ATTN_BLOCK) * sizeof(float));
        for (int64_t i = 0; i < n; i++) {
            const float *row = row_f32(x, seg[s].start + j + i) + kv * D;
            for (int64_t d = 0; d < D; d++) to[d * ATTN_BLOCK + i] = row[d];
        }
    }
}

void NAME(attn_pack)(const void *args, int64_t from, int64_t to)
{
    const AttnArgs *a = args;
    for (int64_t item = from; item < to; item++)
        transpose(&a->k, a->seg, item / a->K, item % a->K, a->K, a->D, a->workspace);
}

// The positions of a block of keys and what the mask needs.
typedef struct Mask {
    int64_t first, n, window;  // position of the first key, keys, window (0 none)
} Mask;

// Keys [*from, *to) of the block are visible to a query at `pos`.
static inline void visible(const Mask *m, int64_t pos, int64_t *from, int64_t *to)
{
    *to = lesser(m->n, pos - m->first + 1);
    *from = m->window > 0 && pos - m->window + 1 > m->first ? lesser(pos - m->window + 1 - m->first, m->n) : 0;
    if (*to < *from) *to = *from;
}

// Does any query at positions [pos, pos + n) see a key of the block?
static inline bool any_visible(const Mask *m, int64_t pos, int64_t n)
{
    return m->first <= pos + n - 1 && (m->window <= 0 || m->first + m->n - 1 > pos - m->window);
}

static inline float softcapped(float s, float cap) { return cap > 0 ? cap * tanhf(s / cap) : s; }

// x = softcap(scale x); outside [from, to): -inf.
static inline void score_row(float *x, float scale, float cap, int64_t from, int64_t to)
{
    for (int64_t j = 0; j < ATTN_BLOCK; j += VL) vstore(x + j, vload(x + j, VL) * vset(scale), VL);
    if (cap > 0)
        for (int64_t j = from; j < to; j++) x[j] = softcapped(x[j], cap);
    for (int64_t j = 0; j < from; j++) x[j] = -INFINITY;
    for (int64_t j = to; j < ATTN_BLOCK; j++) x[j] = -INFINITY;
}

// What a block of queries gathers.
typedef struct Gather {
    _Alignas(64) float s[BQ * ATTN_BLOCK];
    _Alignas(64) float o[BQ * MAX_D];
    float max[BQ], sum[BQ];
} Gather;

// Scores to probabilities relative to the new maximum; rescales what was gathered before.
static inline void fold_row(Gather *g, int64_t i, int64_t D)
{
    float *x = g->s + i * ATTN_BLOCK, *o = g->o + i * D;
    vf top = vload(x, VL), sum = vset(0);
    for (int64_t j = VL; j < ATTN_BLOCK; j += VL) top = vmax(vload(x + j, VL), top);
    float max = vmax_lanes(top);
    max = max > g->max[i] ? max : g->max[i];
    float old = vexp(vset(g->max[i] - max))[0];
    for (int64_t j = 0; j < ATTN_BLOCK; j += VL) {
        vf p = vexp(vload(x + j, VL) - vset(max));
        sum += p;
        vstore(x + j, p, VL);
    }
    g->sum[i] = g->sum[i] * old + vsum(sum);
    for (int64_t d = 0; max != g->max[i] && d < D; d += VL) vstore(o + d, vload(o + d, D - d) * vset(old), D - d);
    g->max[i] = max;
}

static void fold_block(const AttnArgs *a, Gather *g, int64_t query, int64_t n, int64_t pos, int64_t head, int64_t key,
                       const float *kt, const Mask *m)
{
    int64_t D = a->D, kv = head / (a->N / a->K), from, to;
    mm(n, ATTN_BLOCK, D, (Mat){row_f32(&a->q, query) + head * D, a->q.stride, 1}, kt, ATTN_BLOCK, g->s, ATTN_BLOCK, false);
    for (int64_t i = 0; i < n; i++) {
        visible(m, pos + i, &from, &to);
        if (from == to) {
            memset(g->s + i * ATTN_BLOCK, 0, ATTN_BLOCK * sizeof(float));
            continue;
        }
        score_row(g->s + i * ATTN_BLOCK, a->scale, a->softcap, from, to);
        fold_row(g, i, D);
    }
    mm(n, D, m->n, (Mat){g->s, ATTN_BLOCK, 1}, row_f32(&a->v, key) + kv * D, a->v.stride, g->o, D, true);
}

static void fold_segment(const AttnArgs *a, Gather *g, int64_t query, int64_t n, int64_t pos, int64_t head, int64_t s)
{
    const Segment *keys = &a->seg[s];
    int64_t block = blocks_before(a->seg, s), kv = head / (a->N / a->K);
    for (int64_t j = 0; j < keys->len; j += ATTN_BLOCK, block++) {
        Mask m = {keys->pos0 + j, lesser(ATTN_BLOCK, keys->len - j), a->window};
        const float *kt = (const float *)a->workspace + (block * a->K + kv) * a->D * ATTN_BLOCK;
        if (any_visible(&m, pos, n)) fold_block(a, g, query, n, pos, head, keys->start + j, kt, &m);
    }
}

static void write_queries(const AttnArgs *a, const Gather *g, int64_t query, int64_t n, int64_t head)
{
    for (int64_t i = 0; i < n; i++) {
        float *o = row_f32(&a->o, query + i) + head * a->D;
        vf inverse = vset(1 / g->sum[i]);
        for (int64_t d = 0; d < a->D; d += VL) vstore(o + d, vload(g->o + i * a->D + d, a->D - d) * inverse, a->D - d);
        if (a->lse) a->lse[head * a->T + query + i] = g->max[i] + logf(g->sum[i]);
    }
}

void NAME(attn_fwd)(const void *args, int64_t from, int64_t to)
{
    const AttnArgs *a = args;
    Gather g;
    for (int64_t item = from; item < to; item++) {
        int64_t s = item / a->N, head = item % a->N;
        const Segment *seg = &a->seg[s];
        for (int64_t i = 0; i < seg->len; i += BQ) {
            int64_t n = lesser(BQ, seg->len - i), query = seg->start + i, pos = seg->pos0 + i;
            for (int64_t r = 0; r < n; r++) g.max[r] = -INFINITY, g.sum[r] = 0;
            memset(g.o, 0, (size_t)(n * a->D) * sizeof(float));
            if (seg->prefix >= 0) fold_segment(a, &g, query, n, pos, head, seg->prefix);
            fold_segment(a, &g, query, n, pos, head, s);
            write_queries(a, &g, query, n, head);
        }
    }
}

// --- backward --------------------------------------------------------------------------------------------------------

// Parts of the workspace: keys transposed, values transposed, delta[N][T] = dout . o.
typedef struct Packed {
    float *kt, *vt, *delta;
} Packed;

static inline Packed packed(const AttnBwdArgs *a)
{
    int64_t n = attn_blocks(a->T, a->S) * ATTN_BLOCK * a->D * a->K;
    float *p = a->workspace;
    return (Packed){p, p + n, p + 2 * n};
}

void NAME(attn_bwd_pack)(const void *args, int64_t from, int64_t to)
{
    const AttnBwdArgs *a = args;
    Packed p = packed(a);
    int64_t group = a->N / a->K, D = a->D;
    for (int64_t item = from; item < to; item++) {
        int64_t s = item / a->K, kv = item % a->K;
        transpose(&a->k, a->seg, s, kv, a->K, D, p.kt);
        transpose(&a->v, a->seg, s, kv, a->K, D, p.vt);
        for (int64_t t = a->seg[s].start; t < a->seg[s].start + a->seg[s].len; t++)
            for (int64_t n = kv * group; n < (kv + 1) * group; n++) {
                vf sum = vset(0);
                for (int64_t d = 0; d < D; d += VL)
                    sum += vload(row_f32(&a->dout, t) + n * D + d, D - d) * vload(row_f32(&a->o, t) + n * D + d, D - d);
                p.delta[n * a->T + t] = vsum(sum);
            }
    }
}

// One query's scores x to probabilities p, and dp to ds.
static inline void grad_row(const AttnBwdArgs *a, float *x, float *dp, float lse, float delta, int64_t from, int64_t to)
{
    float raw[ATTN_BLOCK];
    score_row(x, a->scale, a->softcap, from, to);
    if (a->softcap > 0) memcpy(raw, x, sizeof raw);
    for (int64_t j = 0; j < ATTN_BLOCK; j += VL) {
        vf p = vexp(vload(x + j, VL) - vset(lse));
        vstore(dp + j, p * (vload(dp + j, VL) - vset(delta)) * vset(a->scale), VL);
        vstore(x + j, p, VL);
    }
    if (a->softcap > 0)
        for (int64_t j = from; j < to; j++) dp[j] *= 1 - raw[j] / a->softcap * (raw[j] / a->softcap);
}

// A block of keys of one kv head, and where it lies.
typedef struct Keys {
    int64_t key, kv;  // first token, head
    const float *kt, *vt;
    Mask mask;
} Keys;

// Queries [query, query + n) of one head against one block of keys: adds to dq, dk, dv.
static void grad_block(const AttnBwdArgs *a, const Keys *k, int64_t query, int64_t n, int64_t pos, int64_t head)
{
    _Alignas(64) float p[BQ * ATTN_BLOCK], ds[BQ * ATTN_BLOCK];
    int64_t D = a->D, from, to, at = head * a->T + query;
    const float *q = row_f32(&a->q, query) + head * D, *dout = row_f32(&a->dout, query) + head * D;
    const float *delta = packed(a).delta + at;
    mm(n, ATTN_BLOCK, D, (Mat){q, a->q.stride, 1}, k->kt, ATTN_BLOCK, p, ATTN_BLOCK, false);
    mm(n, ATTN_BLOCK, D, (Mat){dout, a->dout.stride, 1}, k->vt, ATTN_BLOCK, ds, ATTN_BLOCK, false);
    for (int64_t i = 0; i < n; i++) {
        visible(&k->mask, pos + i, &from, &to);
        grad_row(a, p + i * ATTN_BLOCK, ds + i * ATTN_BLOCK, a->lse[at + i], delta[i], from, to);
    }
    int64_t keys = k->mask.n, kvd = k->kv * D;
    mm(keys, D, n, (Mat){p, 1, ATTN_BLOCK}, dout, a->dout.stride, row_f32(&a->dv, k->key) + kvd, a->dv.stride, true);
    mm(keys, D, n, (Mat){ds, 1, ATTN_BLOCK}, q, a->q.stride, row_f32(&a->dk, k->key) + kvd, a->dk.stride, true);
    mm(n, D, keys, (Mat){ds, ATTN_BLOCK, 1}, row_f32(&a->k, k->key) + kvd, a->k.stride, row_f32(&a->dq, query) + head * D,
       a->dq.stride, true);
}

static void grad_queries(const AttnBwdArgs *a, const Keys *k, int64_t s)
{
    const Segment *seg = &a->seg[s];
    int64_t group = a->N / a->K;
    for (int64_t head = k->kv * group; head < (k->kv + 1) * group; head++)
        for (int64_t i = 0; i < seg->len; i += BQ) {
            int64_t n = lesser(BQ, seg->len - i), pos = seg->pos0 + i;
            if (any_visible(&k->mask, pos, n)) grad_block(a, k, seg->start + i, n, pos, head);
        }
}

// The keys of segment s with its own queries and those of the segments that share it.
static void grad_keys(const AttnBwdArgs *a, int64_t s, int64_t kv)
{
    const Segment *seg = &a->seg[s];
    Packed p = packed(a);
    int64_t block = blocks_before(a->seg, s);
    for (int64_t j = 0; j < seg->len; j += ATTN_BLOCK, block++) {
        int64_t offset = (block * a->K + kv) * a->D * ATTN_BLOCK;
        Keys k = {.key = seg->start + j, .kv = kv, .kt = p.kt + offset, .vt = p.vt + offset,
                  .mask = {seg->pos0 + j, lesser(ATTN_BLOCK, seg->len - j), a->window}};
        grad_queries(a, &k, s);
        for (int64_t c = s + 1; c < a->S; c++)
            if (a->seg[c].prefix == s) grad_queries(a, &k, c);
    }
}

void NAME(attn_bwd)(const void *args, int64_t from, int64_t to)
{
    const AttnBwdArgs *a = args;
    for (int64_t item = from; item < to; item++) {
        int64_t s = item / a->K, kv = item % a->K;
        if (a->seg[s].prefix >= 0) continue;
        grad_keys(a, s, kv);
        for (int64_t c = s + 1; c < a->S; c++)
            if (a->seg[c].prefix == s) grad_keys(a, c, kv);
    }
}
