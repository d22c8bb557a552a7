// SPDX-License-Identifier: Apache-2.0
// Plain forms of the row pieces of log-probabilities, and the table of plain forms.
#include <math.h>

#include "kernels/cpu/plain.h"

static double capped(float x, float cap) { return cap > 0 ? cap * tanh((double)x / cap) : x; }

// Online log-sum-exp: after chunk c, max and sum describe chunks 0..c.
void plain_logprob_fwd(const void *args, int64_t from, int64_t to)
{
    const LogprobBlock *b = args;
    for (int64_t t = from; t < to; t++) {
        float *x = b->logits + t * b->width;
        double max = b->max[t], sum = 0;
        for (int64_t j = 0; j < b->width; j++) {
            x[j] = (float)capped(x[j], b->softcap);
            if (x[j] > max) max = x[j];
        }
        for (int64_t j = 0; j < b->width; j++) sum += exp(x[j] - max);
        b->sum[t] = (float)(b->sum[t] * exp((double)b->max[t] - max) + sum);
        b->max[t] = (float)max;
        int64_t target = b->target[t] - b->first;
        if (target >= 0 && target < b->width) b->picked[t] = x[target];
    }
}

// logits become coef (onehot - softmax), times the derivative of the soft-cap.
void plain_logprob_bwd(const void *args, int64_t from, int64_t to)
{
    const LogprobBlock *b = args;
    for (int64_t t = from; t < to; t++) {
        float *x = b->logits + t * b->width;
        for (int64_t j = 0; j < b->width; j++) {
            double y = capped(x[j], b->softcap), one = b->first + j == b->target[t];
            double d = b->coef[t] * (one - exp(y - (double)b->lse[t]));
            if (b->softcap > 0) d *= 1 - y / b->softcap * (y / b->softcap);
            x[j] = (float)d;
        }
    }
}

const Form form_plain = {
    .rmsnorm_fwd = plain_rmsnorm_fwd,
    .rmsnorm_bwd_x = plain_rmsnorm_bwd_x,
    .rmsnorm_bwd_w = plain_rmsnorm_bwd_w,
    .rope = plain_rope,
    .swiglu_fwd = plain_swiglu_fwd,
    .swiglu_bwd = plain_swiglu_bwd,
    .geglu_fwd = plain_geglu_fwd,
    .geglu_bwd = plain_geglu_bwd,
    .add = plain_add,
    .attn_fwd = plain_attn_fwd,
    .attn_bwd = plain_attn_bwd,
    .attn_decode = plain_attn_decode,
    .gemm_packed = plain_gemm_packed,
    .logprob_fwd = plain_logprob_fwd,
    .logprob_bwd = plain_logprob_bwd,
    .adamw = plain_adamw,
    .sqnorm = plain_sqnorm,
    .pack16 = plain_pack16,
    .pack16_t = plain_pack16_t,
    .round16 = plain_round16,
    .widen16 = plain_widen16,
};
