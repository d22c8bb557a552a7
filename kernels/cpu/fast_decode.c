// Fast decode attention: a piece is a slot and a kv head; the query heads that share it read each page once.
//
// Method: online softmax over pages, the prefix's first, then the slot's own. VL keys are scored together: one vector of
// partial products a key, then a transposing tree of pairwise sums puts key i's score into lane i. Values are added by the
// small mm. Drawback: n samples of one prompt each read the prefix's pages.
#include <math.h>

#include "kernels/cpu/fast.h"

typedef struct Gather {
    _Alignas(64) float s[MAX_GROUP * KV_PAGE];
    _Alignas(64) float o[MAX_GROUP * MAX_D];
    float max[MAX_GROUP], sum[MAX_GROUP];
} Gather;

// Sums of neighbouring lanes: a's in the lower half, b's in the upper.
static inline vf pair_sums(vf a, vf b)
{
#if defined(__AVX512F__)
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif defined(__AVX2__)
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14) + __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
    return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}

// Partial products of one key: lane l sums d = l, l + VL, ...
static inline vf products(const float *q, const float *key, int64_t D)
{
    vf sum = vset(0);
    int64_t d = 0;
    for (; d + VL <= D; d += VL) sum += vload(q + d, VL) * vload(key + d, VL);
    if (d < D) sum += vload(q + d, D - d) * vload(key + d, D - d);
    return sum;
}

// Lane i: q . keys[i] for i < n; the other lanes repeat the last key.
static inline vf score(const float *q, const float *keys, int64_t n, int64_t D)
{
    vf s[VL];
    for (int64_t i = 0; i < VL; i++) s[i] = products(q, keys + lesser(i, n - 1) * D, D);
    for (int left = VL / 2; left > 0; left /= 2)
        for (int i = 0; i < left; i++) s[i] = pair_sums(s[2 * i], s[2 * i + 1]);
    return s[0];
}

// Folds keys [from, to) of a page into head g.
static void fold_head(const DecodeAttnArgs *a, Gather *w, int64_t g, const float *q, const float *keys, int64_t from, int64_t to)
{
    float *x = w->s + g * KV_PAGE, *o = w->o + g * a->D, max = w->max[g];
    for (int64_t j = 0; j < KV_PAGE; j += VL) vstore(x + j, vset(-INFINITY), VL);
    for (int64_t j = from; j < to; j += VL)
        vstore(x + j, score(q, keys + j * a->D, to - j, a->D) * vset(a->scale), lesser(VL, to - j));
    for (int64_t j = from; j < to && a->softcap > 0; j++) x[j] = a->softcap * tanhf(x[j] / a->softcap);
    vf top = vset(max);
    for (int64_t j = 0; j < KV_PAGE; j += VL) top = vmax(top, vload(x + j, VL));
    max = vmax_lanes(top);
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
