// SPDX-License-Identifier: Apache-2.0
// From logits to one token: the arithmetic that CPU (src/decode/sampler.c) and GPU (kernels/cuda/sample.cuh) share, and the order of
// their sums, so that equal fp32 logits give equal tokens. src/decode/sampler.h says what is computed.
//
// Order of sums, with V logits and -inf behind them:
//   - of e^(x - max): SAMPLE_LANES sums in fp32 (logit i belongs to lane i % SAMPLE_LANES) over a chunk of SAMPLE_CHUNK logits; lanes
//     one after the other in double, chunk after chunk;
//   - of the weights that are drawn from: SAMPLE_LANES neighbours as sample_lanes does, those one after the other in double;
//   - up to a cut: bins of sample_bin one after the other in double, then the candidates of the last one, largest first, likewise. A
//     bin's own sum may be formed in any order: its weights lie within a factor of 4, so that 2^28 of them add exactly in double.
// No operation may be contracted to fma: nvcc compiles it with --fmad=false, g++ and gcc with -ffp-contract=off.
#ifndef IMF_KERNELS_SAMPLE_H
#define IMF_KERNELS_SAMPLE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef BOTH  // kernels/cuda/ptx.cuh was included: for kernels too
#define SAMPLE_INLINE BOTH
#else
#define SAMPLE_INLINE static inline
#endif

enum { SAMPLE_LANES = 16, SAMPLE_CHUNK = 4096, SAMPLE_BINS = 256, SAMPLE_BINS_PER_LOGIT = 8 };
#define SAMPLE_GREEDY_BELOW 1e-5  // vLLM's _SAMPLING_EPS

// A row's question and its answer.
typedef struct SampleRow {
    uint8_t *seen;   // [V] nonzero: a token of prompt or output; the chosen one is added. NULL: no penalty
    double temperature, top_p, penalty;
    double u;        // uniform in [0, 1)
    int32_t top_k;
    int32_t token;   // out: the chosen one; -1: the logits hold a NaN, an inf, or nothing finite
    float logit, max;  // out: its logit and the largest one, unmodified
    double total;    // out: sum of e^(logit - max)
} SampleRow;

// Draws for each of `rows` rows of logits.
typedef struct SampleArgs {
    const float *logits;  // [rows][V]
    SampleRow *row;       // [rows]
    int64_t rows, V;
} SampleArgs;

// e^d for d <= 0, relative error below 2e-7; 0 below -87. 2^n * polynomial(r), |r| <= ln 2 / 2 (Taylor to degree 7).
SAMPLE_INLINE float sample_exp(float d)
{
    if (d < -87.0f) return 0;
    const float n = (d * 1.44269504f + 12582912.0f) - 12582912.0f;         // rounds to the nearest integer
    const float r = (d - n * 0.693359375f) + n * 2.12194440e-4f;           // ln 2 in two parts (Cody and Waite)
    float p = 1.0f / 5040, power;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const int32_t bits = (int32_t)((uint32_t)((int32_t)n + 127) << 23);
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

SAMPLE_INLINE float sample_penalised(float x, float penalty) { return x > 0 ? x / penalty : x * penalty; }

// Bins of an eighth of a logit below the largest; all that is further down is in the last one.
SAMPLE_INLINE int sample_bin(float x, float max)
{
    const float d = (max - x) * SAMPLE_BINS_PER_LOGIT;
    return d < (float)(SAMPLE_BINS - 1) ? (int)d : SAMPLE_BINS - 1;
}

// All tokens of a weight <= (1 - p) total / V hold (1 - p) total together at the most: they lie below top-p's cut (half of it leaves
// room for rounding), so they need not be looked at.
SAMPLE_INLINE float sample_light(double p, double total, int64_t V) { return (float)(0.5 * (1 - p) * total / (double)V); }

// The weight of SAMPLE_LANES neighbours.
SAMPLE_INLINE float sample_lanes(const float *w)
{
    float a[4];
    for (int j = 0; j < 4; j++) a[j] = (w[j] + w[j + 4]) + (w[j + 8] + w[j + 12]);
    return (a[0] + a[1]) + (a[2] + a[3]);
}

#endif
