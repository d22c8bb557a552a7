// SPDX-License-Identifier: Apache-2.0
// Method: no sort. Tokens that may stay are listed (for top-p nearly all of the vocabulary is too light to matter) and thrown
// into bins of an eighth of a logit below the maximum; a running sum over bins finds the bin in which the cut (top-k: a
// count, top-p: a mass) falls, and a heap over that one bin finds the cut itself. So a call is a handful of linear passes,
// whatever V is. Drawback: equal logits all over the vocabulary make the heap do a full sort.
//
// Invariant: every sum is formed in an order that V alone decides (kernels/sample.h); exp is our own, so the bits do not hang on libm.
#include "decode/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/mem.h"
#include "base/profile.h"
#include "kernels/cuda/device.h"

enum { LANES = SAMPLE_LANES, CHUNK = SAMPLE_CHUNK, BINS = SAMPLE_BINS };

// Vectors of the compiler (gcc, clang): the same operations in the same order on every machine, so the same bits.
typedef float Four __attribute__((vector_size(16)));
typedef int32_t Bits __attribute__((vector_size(16)));
static inline Four four(float x) { return (Four){x, x, x, x}; }

static inline Four four_at(const float *p)
{
    Four x;
    memcpy(&x, p, sizeof x);
    return x;
}

typedef struct Candidate {
    float x, weight;
    int32_t id;
} Candidate;

struct Sampler {
    int64_t V, padded;  // padded: V rounded up to LANES
    float *x;           // [padded] logits as they go through the steps; -inf behind V
    float *w;           // [padded] exp(x - max), 0 = dropped
    Candidate *list;    // [V] in id order
    int64_t listed;
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
    TRY_DONE(MEM_ARRAY(&s->list, V));
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
    mem_free(s->list);
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

// Copies the logits; *max is the largest. False: a NaN, an inf, or nothing finite.
static bool load(Sampler *s, const float *logits, float *max)
{
    memcpy(s->x, logits, (size_t)s->V * sizeof *logits);
    for (int64_t i = s->V; i < s->padded; i++) s->x[i] = -INFINITY;
    Four top = four(-INFINITY);
    Bits nan = {0};
    for (int64_t i = 0; i < s->padded; i += 4) {
        Four x = four_at(s->x + i);
        Bits above = x > top;
        top = (Four)(((Bits)x & above) | ((Bits)top & ~above));
        nan |= x != x;
    }
    *max = -INFINITY;
    bool any = false;
    for (int j = 0; j < 4; j++) {
        any |= nan[j] != 0;
        if (top[j] > *max) *max = top[j];
    }
    return !any && isfinite(*max);
}

// sample_exp of four.
static inline Four exp_below(Four d)
{
    const Four least = four(-87.0f), round = four(12582912.0f);
    const Bits dead = d < least;
    const Four x = (Four)(((Bits)least & dead) | ((Bits)d & ~dead));
    const Four n = (x * four(1.44269504f) + round) - round;                          // rounds to the nearest integer
    const Four r = (x - n * four(0.693359375f)) + n * four(2.12194440e-4f);          // ln 2 in two parts (Cody and Waite)
    Four p = four(1.0f / 5040);
    p = p * r + four(1.0f / 720);
    p = p * r + four(1.0f / 120);
    p = p * r + four(1.0f / 24);
    p = p * r + four(1.0f / 6);
    p = p * r + four(0.5f);
    p = p * r + four(1.0f);
    p = p * r + four(1.0f);
    const Bits exponent = __builtin_convertvector(n, Bits) + 127;
    return (Four)((Bits)(p * (Four)(exponent << 23)) & ~dead);
}

// w = exp(x - max); returns the sum: lanes in fp32 over a chunk, chunks in double.
static double exp_all(Sampler *s, float max)
{
    double sum = 0;
    for (int64_t c = 0; c < s->padded; c += CHUNK) {
        int64_t end = c + CHUNK < s->padded ? c + CHUNK : s->padded;
        Four lane[LANES / 4] = {{0}};
        for (int64_t i = c; i < end; i += LANES)
            for (int j = 0; j < LANES / 4; j++) {
                Four x;
                memcpy(&x, s->x + i + 4 * j, sizeof x);
                x = exp_below(x - four(max));
                lane[j] += x;
                memcpy(s->w + i + 4 * j, &x, sizeof x);
            }
        for (int j = 0; j < LANES; j++) sum += (double)lane[j / 4][j % 4];
    }
    return sum;
}

static bool penalise(Sampler *s, const uint8_t *seen, double penalty)
{
    if (!seen || penalty == 1.0) return false;
    float p = (float)penalty;
    for (int64_t i = 0; i < s->V; i++)
        if (seen[i]) s->x[i] = sample_penalised(s->x[i], p);
    return true;
}

static bool heat(Sampler *s, double temperature)
{
    if (temperature == 1.0) return false;
    const Four t = four((float)temperature);
    for (int64_t i = 0; i < s->padded; i += 4) {
        Four x = four_at(s->x + i) / t;
        memcpy(s->x + i, &x, sizeof x);
    }
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

// Makes a heap of the listed tokens of one bin; returns their number.
static int64_t heap_of_bin(Sampler *s, float max, int bin)
{
    int64_t n = 0;
    for (int64_t i = 0; i < s->listed; i++)
        if (sample_bin(s->list[i].x, max) == bin) s->heap[n++] = s->list[i];
    for (int64_t i = n / 2 - 1; i >= 0; i--) sift(s->heap, n, i);
    return n;
}

// The last listed token that stays when tokens are taken in order while the weight of those taken before is < want.
static Candidate find_cut(Sampler *s, float max, double want)
{
    memset(s->bin, 0, sizeof s->bin);
    for (int64_t i = 0; i < s->listed; i++) s->bin[sample_bin(s->list[i].x, max)] += (double)s->list[i].weight;
    double taken = 0;
    int b = 0;
    while (b < BINS - 1 && taken + s->bin[b] < want) taken += s->bin[b++];
    int64_t n = heap_of_bin(s, max, b);
    while (n == 0) n = heap_of_bin(s, max, --b);  // rounding of the last sum ran past the end
    for (;;) {
        Candidate top = s->heap[0];
        taken += (double)top.weight;
        if (--n == 0 || taken >= want) return top;
        s->heap[0] = s->heap[n];
        sift(s->heap, n, 0);
    }
}

static void keep_top_k(Sampler *s, float max, int64_t k)
{
    for (int64_t i = 0; i < s->V; i++) s->list[i] = (Candidate){s->x[i], 1, (int32_t)i};
    s->listed = s->V;
    const float kth = find_cut(s, max, (double)k).x;
    for (int64_t i = 0; i < s->V; i++)
        if (s->x[i] < kth) s->x[i] = -INFINITY;
}

static void keep_top_p(Sampler *s, float max, double p, double total)
{
    const float light = sample_light(p, total, s->V);
    s->listed = 0;
    for (int64_t i = 0; i < s->V; i++)
        if (s->w[i] > light) s->list[s->listed++] = (Candidate){s->x[i], s->w[i], (int32_t)i};
    const Candidate last = find_cut(s, max, p * total);
    memset(s->w, 0, (size_t)s->padded * sizeof *s->w);
    for (int64_t i = 0; i < s->listed; i++)
        if (!before(last, s->list[i])) s->w[s->list[i].id] = s->list[i].weight;
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
    if (p->top_p < 1.0) keep_top_p(s, max, p->top_p, total);
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

// sample_lanes of tokens i .. i + LANES - 1.
static double lanes_sum(const float *w)
{
    const Four a = (four_at(w) + four_at(w + 4)) + (four_at(w + 8) + four_at(w + 12));
    return (double)((a[0] + a[1]) + (a[2] + a[3]));
}

static int32_t pick(const Sampler *s, double u)
{
    double total = 0, sum = 0;
    int64_t block = 0, last = 0;
    for (int64_t i = 0; i < s->padded; i += LANES) total += lanes_sum(s->w + i);
    for (int64_t i = 0; i < s->padded; i += LANES) {
        double here = lanes_sum(s->w + i);
        if (here > 0) block = i;
        if (sum + here > u * total) break;
        sum += here;
    }
    for (int64_t i = block; i < block + LANES; i++) {
        if (s->w[i] == 0) continue;
        last = i;
        sum += (double)s->w[i];
        if (sum > u * total) break;
    }
    return (int32_t)last;
}

int32_t sampler_draw(Sampler *s, const float *logits, const uint8_t *seen, const SamplingParams *p, double u, float *logp)
{
    PROFILE(PHASE_DRAW);
    float max;
    if (!load(s, logits, &max)) return -1;
    double total = exp_all(s, max);
    double lse = (double)max + log(total);
    bool changed = penalise(s, seen, p->repetition_penalty);
    if (changed) max = max_of(s);
    int32_t token;
    if (p->temperature < SAMPLE_GREEDY_BELOW) {
        token = argmax(s);
    } else {
        filter(s, p, max, !changed, total);
        token = pick(s, u);
    }
    *logp = (float)((double)logits[token] - lse);
    return token;
}

SampleRow sampler_row(const SamplingParams *p, uint8_t *seen, double u)
{
    return (SampleRow){.seen = seen, .temperature = p->temperature, .top_p = p->top_p, .penalty = p->repetition_penalty, .u = u,
                       .top_k = p->top_k};
}

static void draw_row(Sampler *s, const float *logits, SampleRow *r, float *logp)
{
    const SamplingParams p = {r->temperature, r->top_p, r->top_k, r->penalty, 1};
    r->token = sampler_draw(s, logits, r->seen, &p, r->u, logp);
    if (r->seen && r->token >= 0) r->seen[r->token] = 1;
}

Err sampler_draw_rows(Sampler *s, Ctx *ctx, const SampleArgs *a, float *logp)
{
    if (!ctx->device) {
        for (int64_t i = 0; i < a->rows; i++) draw_row(s, a->logits + i * a->V, &a->row[i], &logp[i]);
        return OK;
    }
    TRY(cuda_sample(ctx, a));
    TRY(ctx_wait(ctx));
    for (int64_t i = 0; i < a->rows; i++) {
        const SampleRow *r = &a->row[i];
        if (r->token >= 0) logp[i] = (float)((double)r->logit - ((double)r->max + log(r->total)));
    }
    return OK;
}
