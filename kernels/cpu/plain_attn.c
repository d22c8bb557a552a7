// SPDX-License-Identifier: Apache-2.0
// Plain forms of attention. Each score is computed where it is needed, in double; nothing is kept but the log-sum-exp.
#include <math.h>
#include <stddef.h>

#include "kernels/cpu/attn.h"
#include "kernels/cpu/attn16.h"
#include "kernels/cpu/plain.h"

// A query's view of one segment's keys.
typedef struct View {
    const AttnBwdArgs *a;  // the forward fills the fields it has
    int64_t n, kv;         // heads
} View;

static const float *head_row(const Tensor *t, int64_t token, int64_t head, int64_t D) { return row_f32(t, token) + head * D; }

static double dot(const float *x, const float *y, int64_t D)
{
    double sum = 0;
    for (int64_t d = 0; d < D; d++) sum += (double)x[d] * y[d];
    return sum;
}

static double softcapped(double s, double cap) { return cap > 0 ? cap * tanh(s / cap) : s; }

static bool sees(const AttnBwdArgs *a, int64_t query_pos, int64_t key_pos)
{
    return key_pos <= query_pos && (a->window <= 0 || key_pos > query_pos - a->window);
}

static double score(const View *w, int64_t query, int64_t key)
{
    const AttnBwdArgs *a = w->a;
    double s = dot(head_row(&a->q, query, w->n, a->D), head_row(&a->k, key, w->kv, a->D), a->D);
    return softcapped(s * (double)a->scale, (double)a->softcap);
}

// The segments whose keys segment s sees: its prefix (or -1), then itself.
static int parts(const AttnBwdArgs *a, int64_t s, int64_t out[2])
{
    int n = 0;
    if (a->seg[s].prefix >= 0) out[n++] = a->seg[s].prefix;
    out[n++] = s;
    return n;
}

static double query_lse(const View *w, int64_t s, int64_t i)
{
    const AttnBwdArgs *a = w->a;
    int64_t part[2], query = a->seg[s].start + i, pos = a->seg[s].pos0 + i;
    int n = parts(a, s, part);
    double max = -INFINITY, sum = 0;
    for (int p = 0; p < n; p++)
        for (int64_t j = 0; j < a->seg[part[p]].len; j++) {
            if (!sees(a, pos, a->seg[part[p]].pos0 + j)) continue;
            double x = score(w, query, a->seg[part[p]].start + j);
            double top = x > max ? x : max;
            sum = sum * exp(max - top) + exp(x - top);
            max = top;
        }
    return max + log(sum);
}

static void query_fwd(const View *w, int64_t s, int64_t i, float *o, float *lse)
{
    const AttnBwdArgs *a = w->a;
    int64_t part[2], query = a->seg[s].start + i, pos = a->seg[s].pos0 + i;
    int n = parts(a, s, part);
    double total = query_lse(w, s, i);
    if (lse) *lse = (float)total;
    double acc[MAX_D] = {0};
    for (int p = 0; p < n; p++)
        for (int64_t j = 0; j < a->seg[part[p]].len; j++) {
            if (!sees(a, pos, a->seg[part[p]].pos0 + j)) continue;
            int64_t key = a->seg[part[p]].start + j;
            double prob = exp(score(w, query, key) - total);
            for (int64_t d = 0; d < a->D; d++) acc[d] += prob * head_row(&a->v, key, w->kv, a->D)[d];
        }
    for (int64_t d = 0; d < a->D; d++) o[d] = (float)acc[d];
}

void plain_attn_fwd(const void *args, int64_t from, int64_t to)
{
    const AttnArgs *a = args;
    AttnBwdArgs b = {.q = a->q, .k = a->k, .v = a->v, .seg = a->seg, .T = a->T, .S = a->S, .N = a->N, .K = a->K, .D = a->D,
                     .scale = a->scale, .softcap = a->softcap, .window = a->window};
    int64_t blocks = attn_blocks_before(a->seg, a->S, ATTN_QUERIES);
    for (int64_t item = from; item < to; item++) {
        int64_t n = item / blocks;
        Queries q = attn_queries(a->seg, item % blocks);
        View w = {.a = &b, .n = n, .kv = n / (a->N / a->K)};
        for (int64_t t = q.token; t < q.token + q.n; t++) {
            query_fwd(&w, q.segment, t - a->seg[q.segment].start, row_f32(&a->o, t) + n * a->D,
                      a->lse ? &a->lse[n * a->T + t] : NULL);
        }
    }
}

// One query's part of dq, dk, dv: p = softmax, ds = p (dout.v - dout.o) times the derivative of scale and soft-cap.
static void query_bwd(const View *w, int64_t s, int64_t i)
{
    const AttnBwdArgs *a = w->a;
    int64_t part[2], D = a->D, query = a->seg[s].start + i, pos = a->seg[s].pos0 + i;
    int n = parts(a, s, part);
    const float *q = head_row(&a->q, query, w->n, D), *dout = head_row(&a->dout, query, w->n, D);
    float *dq = row_f32(&a->dq, query) + w->n * D;
    double delta = dot(dout, head_row(&a->o, query, w->n, D), D);
    for (int p = 0; p < n; p++)
        for (int64_t j = 0; j < a->seg[part[p]].len; j++) {
            if (!sees(a, pos, a->seg[part[p]].pos0 + j)) continue;
            int64_t key = a->seg[part[p]].start + j;
            const float *k = head_row(&a->k, key, w->kv, D), *v = head_row(&a->v, key, w->kv, D);
            float *dk = row_f32(&a->dk, key) + w->kv * D, *dv = row_f32(&a->dv, key) + w->kv * D;
            double x = score(w, query, key), prob = exp(x - (double)a->lse[w->n * a->T + query]);
            double ds = prob * (dot(dout, v, D) - delta) * (double)a->scale;
            if (a->softcap > 0) ds *= 1 - x / (double)a->softcap * x / (double)a->softcap;
            for (int64_t d = 0; d < D; d++) {
                dv[d] += (float)(prob * dout[d]);
                dq[d] += (float)(ds * k[d]);
                dk[d] += (float)(ds * q[d]);
            }
        }
}

static void segment_bwd(View *w, int64_t s)
{
    int64_t group = w->a->N / w->a->K;
    for (w->n = w->kv * group; w->n < (w->kv + 1) * group; w->n++)
        for (int64_t i = 0; i < w->a->seg[s].len; i++) query_bwd(w, s, i);
}

void plain_attn_bwd(const void *args, int64_t from, int64_t to)
{
    const AttnBwdArgs *a = args;
    for (int64_t item = from; item < to; item++) {
        int64_t s = item % a->S;
        View w = {.a = a, .kv = item / a->S};
        if (a->seg[s].prefix >= 0) continue;
        segment_bwd(&w, s);
        for (int64_t c = s + 1; c < a->S; c++)
            if (a->seg[c].prefix == s) segment_bwd(&w, c);
    }
}

// Element d of key or value (which = 0 or 1) number j that a slot sees: its prefix pages, then its own.
static double cached(const DecodeAttnArgs *a, int64_t slot, int64_t kv, int64_t j, int which, int64_t d)
{
    bool own = j >= a->prefix_len[slot];
    int64_t i = own ? j - a->prefix_len[slot] : j, place = i % KV_PAGE;
    int64_t page = own ? a->own_page[slot * a->max_own_pages + i / KV_PAGE] : a->prefix_page[slot * a->max_prefix_pages + i / KV_PAGE];
    if (a->q.dtype == DT_BF16) return (double)bf16_to_f32(*attn16_cached(a->pages, a->K, a->D, page, which, kv, place, d));
    const float *head = (const float *)a->pages + ((page * 2 + which) * a->K + kv) * KV_PAGE * a->D;
    return (double)(which ? head[place * a->D + d] : head[d * KV_PAGE + place]);
}

static double decode_score(const DecodeAttnArgs *a, int64_t slot, int64_t n, int64_t j)
{
    double sum = 0;
    for (int64_t d = 0; d < a->D; d++)
        sum += (double)tensor_get(&a->q, slot, n * a->D + d) * cached(a, slot, n / (a->N / a->K), j, 0, d);
    return softcapped(sum * (double)a->scale, (double)a->softcap);
}

static void decode_head(const DecodeAttnArgs *a, int64_t slot, int64_t n)
{
    int64_t kv = n / (a->N / a->K), keys = a->prefix_len[slot] + a->own_len[slot];
    int64_t first = a->window > 0 && keys > a->window ? keys - a->window : 0;
    double max = -INFINITY, sum = 0;
    for (int64_t j = first; j < keys; j++) {
        double x = decode_score(a, slot, n, j);
        if (x > max) max = x;
    }
    double acc[MAX_D] = {0};
    for (int64_t j = first; j < keys; j++) {
        double p = exp(decode_score(a, slot, n, j) - max);
        sum += p;
        for (int64_t d = 0; d < a->D; d++) acc[d] += p * cached(a, slot, kv, j, 1, d);
    }
    for (int64_t d = 0; d < a->D; d++) tensor_put(&a->o, slot, n * a->D + d, keys > 0 ? (float)(acc[d] / sum) : 0);
}

void plain_attn_decode(const void *args, int64_t from, int64_t to)
{
    const DecodeAttnArgs *a = args;
    int64_t group = a->N / a->K;
    for (int64_t item = from; item < to; item++)
        for (int64_t i = a->group[item / a->K]; i < a->group[item / a->K + 1]; i++)
            for (int64_t g = 0; g < group; g++) decode_head(a, a->order[i], item % a->K * group + g);
}
