// SPDX-License-Identifier: Apache-2.0
// From logits to one token: vLLM's filters and one draw.
//
// Order (vLLM 0.6 and later; spec 3.1), all in fp32 as there:
//   1. repetition penalty, for every token of prompt and output: logit > 0 is divided, otherwise multiplied;
//   2. temperature: logit / temperature (below 1e-5: greedy, the largest logit, lowest id on ties);
//   3. top-k: tokens with logit < the k-th largest are dropped. Ties with the k-th stay, so more than k may be kept;
//   4. top-p: the smallest prefix of the descending order whose probability (renormalised after top-k) reaches top_p is
//      kept, at least one token: a token is kept while the probability above it is < top_p. Among equal logits the
//      higher id comes first. That is what torch's stable ascending sort with `cumsum <= 1 - p` gives;
//   5. draw: the first token in id order at which the running sum of the kept weights exceeds u * total.
#ifndef IMF_DECODE_SAMPLER_H
#define IMF_DECODE_SAMPLER_H

#include <stdint.h>

#include "base/err.h"
#include "kernels/ops.h"
#include "kernels/sample.h"

typedef struct SamplingParams {
    double temperature;         // 0: greedy
    double top_p;               // 1: off
    int32_t top_k;              // 0: off
    double repetition_penalty;  // 1: off; covers prompt and output tokens
    int64_t max_new_tokens;
} SamplingParams;

typedef struct Sampler Sampler;  // scratch for one vocabulary size; nothing is carried from call to call

Err sampler_new(Sampler **out, int64_t V) ERR_MUST_CHECK;
void sampler_free(Sampler *s);

// Refuses parameters outside their ranges (ERR_RECIPE names the parameter).
Err sampler_check(const SamplingParams *p) ERR_MUST_CHECK;

// Draws the next token from logits[V]. seen[V]: nonzero for tokens of prompt and output (NULL when the penalty is 1). u:
// uniform in [0, 1). *logp: the token's log-probability under the unmodified logits. Returns -1 when the logits hold a NaN
// or nothing finite.
int32_t sampler_draw(Sampler *s, const float *logits, const uint8_t *seen, const SamplingParams *p, double u, float *logp);

// The question of a row for sampler_draw_rows.
SampleRow sampler_row(const SamplingParams *p, uint8_t *seen, double u);

// Draws for several rows, where ctx's ops run: logits, rows and `seen` are memory that they reach. row[i].token and logp[i] (the
// host's memory) are as sampler_draw gives them; a->row[i].seen gets the token. Returns when all can be read.
Err sampler_draw_rows(Sampler *s, Ctx *ctx, const SampleArgs *a, float *logp) ERR_MUST_CHECK;

// The weights that step 5 draws from (0: dropped), [V], valid until the next call; NULL for bad logits. For tests.
const float *sampler_weights(Sampler *s, const float *logits, const uint8_t *seen, const SamplingParams *p);

#endif
