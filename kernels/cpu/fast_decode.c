// Fast decode attention: a piece is a slot and a kv head; the query heads that share it read each page once.
//
// Method: online softmax over pages, the prefix's first, then the slot's own. A score is a dot product in lanes of VL;
// values are added by the small mm. Drawback: n samples of one prompt each read the prefix's pages.
#include <math.h>

#include "kernels/cpu/fast.h"

typedef struct Gather {
    _Alignas(64) float s[MAX_GROUP * KV_PAGE];
    _Alignas(64) float o[MAX_GROUP * MAX_D];
    float max[MAX_GROUP], sum[MAX_GROUP];
} Gather;

static inline float dot(const float *x, const float *y, int64_t D)
{
    vf sum = vset(0);
    for (int64_t d = 0; d < D; d += VL) sum += vload(x + d, D - d) * vload(y + d, D - d);
    return vsum(sum);
}

// Folds keys [from, to) of a page into head g.
static void fold_head(const DecodeAttnArgs *a, Gather *w, int64_t g, const float *q, const float *keys, int64_t from, int64_t to)
{
    float *x = w->s + g * KV_PAGE, *o = w->o + g * a->D, max = w->max[g];
    for (int64_t j = 0; j < KV_PAGE; j++) x[j] = -INFINITY;
    for (int64_t j = from; j < to; j++) {
        x[j] = dot(q, keys + j * a->D, a->D) * a->scale;
        if (a->softcap > 0) x[j] = a->softcap * tanhf(x[j] / a->softcap);
        if (x[j] > max) max = x[j];
    }
    vf sum = vset(0), old = vexp(vset(w->max[g] - max));
    for (int64_t j = 0; j < KV_PAGE; j += VL) {
        vf p = vexp(vload(x + j, VL) - vset(max));
        sum += p;
        vstore(x + j, p, VL);
    }
    w->sum[g] = w->sum[g] * old[0] + vsum(sum);
    w->max[g] = max;
    for (int64_t d = 0; d < a->D; d += VL) vstore(o + d, vload(o + d, a->D - d) * old, a->D - d);
}

// n tokens in a table of pages; first: position of the first. Keys at positions < start are outside the window.
static void fold_pages(const DecodeAttnArgs *a, Gather *w, int64_t slot, int64_t kv, const int32_t *page, int64_t n,
                       int64_t first, int64_t start)
{
    int64_t group = a->N / a->K, D = a->D;
    for (int64_t j = 0; j < n; j += KV_PAGE) {
        int64_t to = lesser(KV_PAGE, n - j), from = start > first + j ? start - first - j : 0;
        if (from >= to) continue;
        const float *keys = a->pages + ((int64_t)page[j / KV_PAGE] * 2 * a->K + kv) * KV_PAGE * D;
        const float *values = keys + a->K * KV_PAGE * D;
        for (int64_t g = 0; g < group; g++) fold_head(a, w, g, row_f32(&a->q, slot) + (kv * group + g) * D, keys, from, to);
        mm(group, D, to - from, (Mat){w->s + from, KV_PAGE, 1}, values + from * D, D, w->o, D, true);
    }
}

void NAME(attn_decode)(const void *args, int64_t from, int64_t to)
{
    const DecodeAttnArgs *a = args;
    int64_t group = a->N / a->K, D = a->D;
    Gather w;
    for (int64_t item = from; item < to; item++) {
        int64_t slot = item / a->K, kv = item % a->K, prefix = a->prefix_len[slot], keys = prefix + a->own_len[slot];
        int64_t start = a->window > 0 && keys > a->window ? keys - a->window : 0;
        for (int64_t g = 0; g < group; g++) w.max[g] = -INFINITY, w.sum[g] = 0;
        memset(w.o, 0, (size_t)(group * D) * sizeof(float));
        fold_pages(a, &w, slot, kv, a->prefix_page + slot * a->max_prefix_pages, prefix, 0, start);
        fold_pages(a, &w, slot, kv, a->own_page + slot * a->max_own_pages, a->own_len[slot], prefix, start);
        float *o = row_f32(&a->o, slot) + kv * group * D;
        for (int64_t g = 0; g < group; g++)
            for (int64_t d = 0; d < D; d++) o[g * D + d] = keys > 0 ? w.o[g * D + d] / w.sum[g] : 0;
    }
}
