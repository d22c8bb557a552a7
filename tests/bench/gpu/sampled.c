// SPDX-License-Identifier: Apache-2.0
#include "sampled.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/cpu/bf16.h"

enum { PLACES = 16, MOST_D = 256, COLUMNS = 32, TOKENS = 4, WORDS = 8 };

static double widen(uint16_t x) { return (double)bf16_to_f32(x); }

static const uint16_t *head_of(const Tensor *t, int64_t row, int64_t head, int64_t D)
{
    return (const uint16_t *)t->p + row * t->stride + head * D;
}

static double dot(const uint16_t *a, const uint16_t *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += widen(a[i]) * widen(b[i]);
    return sum;
}

static void add(double *sum, double factor, const uint16_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) sum[i] += factor * widen(x[i]);
}

// tiny: where all of a row is nothing but the noise of fp32.
static long off(const double *got, const double *want, int64_t n, double tiny)
{
    double square = 0;
    long count = 0;
    for (int64_t i = 0; i < n; i++) square += want[i] * want[i] / (double)n;
    for (int64_t i = 0; i < n; i++) count += !(fabs(got[i] - want[i]) <= 0x1p-6 * (sqrt(square) + fabs(want[i])) + tiny);
    return count;
}

static long off_bf16(const uint16_t *got, const double *want, int64_t n)
{
    double wide[MOST_D];
    for (int64_t i = 0; i < n; i++) wide[i] = widen(got[i]);
    return off(wide, want, n, 4e-6);
}

// Place number s of 0 .. T - 1: both ends, and others that share no tile's offset.
static int64_t place(int64_t s, int64_t T) { return s == PLACES - 1 ? T - 1 : (T * s / PLACES + 13 * s) % T; }

long sampled_attn_fwd(const AttnArgs *a)
{
    double *score = calloc((size_t)a->T, sizeof *score);
    long count = 0;
    for (int64_t s = 0; s < PLACES; s++) {
        const int64_t i = place(s, a->T), head = 7 * s % a->N, key = head / (a->N / a->K), D = a->D;
        double most = -INFINITY, sum = 0, o[MOST_D] = {0};
        for (int64_t j = 0; j <= i; j++) {
            score[j] = (double)a->scale * dot(head_of(&a->q, i, head, D), head_of(&a->k, j, key, D), D);
            most = fmax(most, score[j]);
        }
        for (int64_t j = 0; j <= i; j++) sum += exp(score[j] - most);
        for (int64_t j = 0; j <= i; j++) add(o, exp(score[j] - most) / sum, head_of(&a->v, j, key, D), D);
        const double lse = most + log(sum);
        count += off_bf16(head_of(&a->o, i, head, D), o, D) +
                 !(fabs((double)a->lse[head * a->T + i] - lse) <= 1e-5 * (1 + fabs(lse)));
    }
    free(score);
    return count;
}

// p of query i and key j, and the gradient of its score.
static double probability(const AttnBwdArgs *a, int64_t i, int64_t head, int64_t j, double *gradient)
{
    const int64_t D = a->D, key = head / (a->N / a->K);
    const uint16_t *dout = head_of(&a->dout, i, head, D);
    const double p =
        exp((double)a->scale * dot(head_of(&a->q, i, head, D), head_of(&a->k, j, key, D), D) - (double)a->lse[head * a->T + i]);
    *gradient = (double)a->scale * p * (dot(dout, head_of(&a->v, j, key, D), D) - dot(dout, head_of(&a->o, i, head, D), D));
    return p;
}

long sampled_attn_bwd(const AttnBwdArgs *a)
{
    const int64_t D = a->D, share = a->N / a->K;
    long count = 0;
    for (int64_t s = 0; s < PLACES; s++) {
        const int64_t at = place(s, a->T), head = 7 * s % a->N, key = head / share;
        double dq[MOST_D] = {0}, dk[MOST_D] = {0}, dv[MOST_D] = {0}, gradient;
        for (int64_t j = 0; j <= at; j++) {
            (void)probability(a, at, head, j, &gradient);
            add(dq, gradient, head_of(&a->k, j, key, D), D);
        }
        for (int64_t h = key * share; h < (key + 1) * share; h++)
            for (int64_t i = at; i < a->T; i++) {
                add(dv, probability(a, i, h, at, &gradient), head_of(&a->dout, i, h, D), D);
                add(dk, gradient, head_of(&a->q, i, h, D), D);
            }
        count += off_bf16(head_of(&a->dq, at, head, D), dq, D) + off_bf16(head_of(&a->dk, at, key, D), dk, D) +
                 off_bf16(head_of(&a->dv, at, key, D), dv, D);
    }
    return count;
}

// --- the log-prob loss -------------------------------------------------------------------------------------------------------

// coef (onehot - softmax) of token t and word v, as the op has it: hidden states count as bf16.
static double logit_gradient(const LogprobBwdArgs *a, const uint16_t *hidden, int64_t t, int64_t v)
{
    const double logit = dot(hidden + t * a->H, (const uint16_t *)a->head.p + v * a->head.stride, a->H);
    return (double)a->coef[t] * ((a->target[t] == v) - exp(logit - (double)a->lse[t]));
}

static long off_floats(const Tensor *got, int64_t row, const int64_t *column, const double *want)
{
    double wide[COLUMNS];
    for (int i = 0; i < COLUMNS; i++) wide[i] = (double)tensor_get(got, row, column[i]);
    return off(wide, want, COLUMNS, 1e-9);
}

long sampled_logprob_bwd(const LogprobBwdArgs *a)
{
    uint16_t *hidden = malloc((size_t)(a->T * a->H) * sizeof *hidden);
    int64_t column[COLUMNS];
    long count = 0;
    for (int64_t t = 0; t < a->T; t++)
        for (int64_t i = 0; i < a->H; i++)
            hidden[t * a->H + i] = bf16_from_f32(tensor_get(&a->hidden, t, i));
    for (int i = 0; i < COLUMNS; i++) column[i] = (i * a->H / COLUMNS + 5 * i) % a->H;
    for (int64_t s = 0; s < TOKENS; s++) {
        const int64_t t = place(s * (PLACES - 1) / (TOKENS - 1), a->T);
        double want[COLUMNS] = {0};
        for (int64_t v = 0; v < a->V; v++) {
            const double g = logit_gradient(a, hidden, t, v);
            for (int i = 0; i < COLUMNS; i++) want[i] += g * (double)tensor_get(&a->head, v, column[i]);
        }
        count += off_floats(&a->dhidden, t, column, want);
    }
    for (int64_t s = 0; s < WORDS; s++) {  // half of them are some token's target
        const int64_t v = s % 2 ? a->target[place(2 * s, a->T)] : place(2 * s, a->V);
        double want[COLUMNS] = {0};
        for (int64_t t = 0; t < a->T; t++) {
            const double g = logit_gradient(a, hidden, t, v);
            for (int i = 0; i < COLUMNS; i++) want[i] += g * widen(hidden[t * a->H + column[i]]);
        }
        count += off_floats(&a->dhead, v, column, want);
    }
    free(hidden);
    return count;
}
