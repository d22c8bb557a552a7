// Method: no sort. Tokens are thrown into bins of an eighth of a logit below the maximum; a running sum over bins finds the
// bin in which the cut (top-k: a count, top-p: a mass) falls, and a heap over that one bin finds the cut itself. So a
// call is a handful of linear passes, whatever V is. Drawback: equal logits all over the vocabulary make the heap do a
// full sort.
//
// Invariant: every sum is formed in an order that V alone decides; exp is our own, so the bits do not hang on libm.
#include "decode/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/mem.h"

enum { LANES = 16, CHUNK = 4096, BINS = 256, BINS_PER_LOGIT = 8 };
static const double greedy_below = 1e-5;  // vLLM's _SAMPLING_EPS

typedef struct Candidate {
    float x;
    int32_t id;
} Candidate;

struct Sampler {
    int64_t V, padded;  // padded: V rounded up to LANES
    float *x;           // [padded] logits as they go through the steps; -inf behind V
    float *w;           // [padded] exp(x - max), 0 = dropped
    Candidate *heap;    // [V]
    double bin[BINS];
};

Err sampler_new(Sampler **out, int64_t V)
{
    Err err = OK;
    Sampler *s = NULL;
    TRY_DONE(MEM_ARRAY(&s, 1));
    s->V = V;
    s->padded = (V + LANES - 1) / LANES * LANES;
    TRY_DONE(MEM_ARRAY(&s->x, s->padded));
    TRY_DONE(MEM_ARRAY(&s->w, s->padded));
    TRY_DONE(MEM_ARRAY(&s->heap, V));
    *out = s;
    return OK;
done:
    sampler_free(s);
    return err;
}

void sampler_free(Sampler *s)
{
    if (!s) return;
    mem_free(s->x);
    mem_free(s->w);
    mem_free(s->heap);
    mem_free(s);
}

Err sampler_check(const SamplingParams *p)
{
    CHECK(p->temperature >= 0 && p->temperature <= 100, ERR_RECIPE, "temperature %g is outside 0..100", p->temperature);
    CHECK(p->top_p > 0 && p->top_p <= 1, ERR_RECIPE, "top_p %g is outside (0, 1]", p->top_p);
    CHECK(p->top_k >= 0, ERR_RECIPE, "top_k %d is negative (0 switches it off)", (int)p->top_k);
    CHECK(p->repetition_penalty > 0 && p->repetition_penalty <= 100, ERR_RECIPE,
          "repetition_penalty %g is outside (0, 100]", p->repetition_penalty);
    CHECK(p->max_new_tokens >= 1, ERR_RECIPE, "max_new_tokens %lld is below 1", (long long)p->max_new_tokens);
    return OK;
}

// Copies the logits behind which -inf is kept; *max is the largest. False: a NaN, an inf, or nothing finite.
static bool load(Sampler *s, const float *logits, float *max)
{
    memcpy(s->x, logits, (size_t)s->V * sizeof *logits);
    for (int64_t i = s->V; i < s->padded; i++) s->x[i] = -INFINITY;
    float m[LANES];
    int32_t nan[LANES] = {0};
    for (int j = 0; j < LANES; j++) m[j] = -INFINITY;
    for (int64_t i = 0; i < s->padded; i += LANES)
        for (int j = 0; j < LANES; j++) {
            m[j] = s->x[i + j] > m[j] ? s->x[i + j] : m[j];
            nan[j] |= s->x[i + j] != s->x[i + j];
        }
    int32_t any = 0;
    *max = -INFINITY;
    for (int j = 0; j < LANES; j++) {
        any |= nan[j];
        if (m[j] > *max) *max = m[j];
    }
    return !any && isfinite(*max);
}

// e^d for d <= 0, relative error below 2e-7; 0 below -87. 2^n * polynomial(r), |r| <= ln 2 / 2 (Taylor to degree 7).
static inline float exp_below(float d)
{
    float x = d < -87.0f ? -87.0f : d;
    float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // rounds to the nearest integer
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;    // ln 2 in two parts (Cody and Waite)
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t bits = ((int32_t)n + 127) * (1 << 23);
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return d < -87.0f ? 0.0f : p * scale;
}

// w = exp(x - max); returns the sum: lanes in fp32 over a chunk, chunks in double.
static double exp_all(Sampler *s, float max)
{
    double sum = 0;
    for (int64_t c = 0; c < s->padded; c += CHUNK) {
        int64_t end = c + CHUNK < s->padded ? c + CHUNK : s->padded;
        float lane[LANES] = {0};
        for (int64_t i = c; i < end; i += LANES) {
            float e[LANES];
            for (int j = 0; j < LANES; j++) e[j] = exp_below(s->x[i + j] - max);
            for (int j = 0; j < LANES; j++) lane[j] += e[j];
            memcpy(s->w + i, e, sizeof e);
        }
        for (int j = 0; j < LANES; j++) sum += (double)lane[j];
    }
    return sum;
}

static bool penalise(Sampler *s, const uint8_t *seen, double penalty)
{
    if (!seen || penalty == 1.0) return false;
    float p = (float)penalty;
    for (int64_t i = 0; i < s->V; i++)
        if (seen[i]) s->x[i] = s->x[i] > 0 ? s->x[i] / p : s->x[i] * p;
    return true;
}

static bool heat(Sampler *s, double temperature)
{
    if (temperature == 1.0) return false;
    float t = (float)temperature;
    for (int64_t i = 0; i < s->padded; i += LANES)
        for (int j = 0; j < LANES; j++) s->x[i + j] = s->x[i + j] / t;
    return true;
}

static int32_t argmax(const Sampler *s)
{
    int32_t best = 0;
    for (int64_t i = 1; i < s->V; i++)
        if (s->x[i] > s->x[best]) best = (int32_t)i;
    return best;
}

// The order of the cut: larger logit first, then the higher id.
static bool before(Candidate a, Candidate b) { return a.x > b.x || (a.x == b.x && a.id > b.id); }

static void sift(Candidate *h, int64_t n, int64_t i)
{
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child >= n) return;
        if (child + 1 < n && before(h[child + 1], h[child])) child++;
        if (!before(h[child], h[i])) return;
        Candidate swap = h[i];
        h[i] = h[child];
        h[child] = swap;
        i = child;
    }
}

static inline int bin_of(float x, float max)
{
    float d = (max - x) * BINS_PER_LOGIT;
    return d < (float)(BINS - 1) ? (int)d : BINS - 1;
}

// Makes a heap of the tokens of one bin; returns their number.
static int64_t heap_of_bin(Sampler *s, float max, int bin)
{
    int64_t n = 0;
    for (int64_t i = 0; i < s->V; i++)
        if (bin_of(s->x[i], max) == bin) s->heap[n++] = (Candidate){s->x[i], (int32_t)i};
    for (int64_t i = n / 2 - 1; i >= 0; i--) sift(s->heap, n, i);
    return n;
}

// The last token that stays when tokens are taken in order while what was taken before is < want. A token counts 1, or its
// weight when `mass`.
static Candidate find_cut(Sampler *s, float max, bool mass, double want)
{
    memset(s->bin, 0, sizeof s->bin);
    for (int64_t i = 0; i < s->V; i++) s->bin[bin_of(s->x[i], max)] += mass ? (double)s->w[i] : 1.0;
    double taken = 0;
    int b = 0;
    while (b < BINS - 1 && taken + s->bin[b] < want) taken += s->bin[b++];
    int64_t n = heap_of_bin(s, max, b);
    while (n == 0) n = heap_of_bin(s, max, --b);  // rounding of the last sum ran past the end
    for (;;) {
        Candidate top = s->heap[0];
        taken += mass ? (double)s->w[top.id] : 1.0;
        if (--n == 0 || taken >= want) return top;
        s->heap[0] = s->heap[n];
        sift(s->heap, n, 0);
    }
}

static void keep_top_k(Sampler *s, float max, int64_t k)
{
    float kth = find_cut(s, max, false, (double)k).x;
    for (int64_t i = 0; i < s->V; i++)
        if (s->x[i] < kth) s->x[i] = -INFINITY;
}

static void keep_top_p(Sampler *s, float max, double wanted_mass)
{
    Candidate last = find_cut(s, max, true, wanted_mass);
    for (int64_t i = 0; i < s->V; i++)
        if (before(last, (Candidate){s->x[i], (int32_t)i})) s->w[i] = 0;
}

// Steps 2 to 4 on penalised logits. `fresh`: w already holds exp(x - max) with the sum `total`.
static void filter(Sampler *s, const SamplingParams *p, float max, bool fresh, double total)
{
    if (heat(s, p->temperature)) {
        fresh = false;
        max = max / (float)p->temperature;
    }
    if (p->top_k > 0 && p->top_k < s->V) {
        keep_top_k(s, max, p->top_k);
        fresh = false;
    }
    if (!fresh) total = exp_all(s, max);
    if (p->top_p < 1.0) keep_top_p(s, max, p->top_p * total);
}

static float max_of(const Sampler *s) { return s->x[argmax(s)]; }

const float *sampler_weights(Sampler *s, const float *logits, const uint8_t *seen, const SamplingParams *p)
{
    float max;
    if (!load(s, logits, &max)) return NULL;
    if (penalise(s, seen, p->repetition_penalty)) max = max_of(s);
    filter(s, p, max, false, 0);
    return s->w;
}

static int32_t pick(const Sampler *s, double u)
{
    double total = 0, sum = 0;
    for (int64_t i = 0; i < s->V; i++) total += (double)s->w[i];
    int32_t last = 0;
    for (int64_t i = 0; i < s->V; i++) {
        if (s->w[i] == 0) continue;
        last = (int32_t)i;
        sum += (double)s->w[i];
        if (sum > u * total) break;
    }
    return last;
}

int32_t sampler_draw(Sampler *s, const float *logits, const uint8_t *seen, const SamplingParams *p, double u, float *logp)
{
    float max;
    if (!load(s, logits, &max)) return -1;
    double total = exp_all(s, max);
    double lse = (double)max + log(total);
    bool changed = penalise(s, seen, p->repetition_penalty);
    if (changed) max = max_of(s);
    int32_t token;
    if (p->temperature < greedy_below) {
        token = argmax(s);
    } else {
        filter(s, p, max, !changed, total);
        token = pick(s, u);
    }
    *logp = (float)((double)logits[token] - lse);
    return token;
}
