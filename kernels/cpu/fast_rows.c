// SPDX-License-Identifier: Apache-2.0
// Fast forms of the ops that work token by token, of the row pieces of log-probabilities and of the optimiser.
// Sums: one vector of partial sums, lane i taking elements i, i + VL, ..., then a fixed tree.
#include <math.h>

#include "kernels/cpu/fast16.h"

// The same loops for fp32 and bf16.
#define EITHER(f, t) ((t).dtype == DT_BF16 ? f(a, from, to, true) : f(a, from, to, false))
#define ALWAYS static inline __attribute__((always_inline))

ALWAYS void rmsnorm_rows(const RmsNormArgs *a, int64_t from, int64_t to, bool half)
{
    for (int64_t t = from; t < to; t++) {
        const float *x = row_f32(&a->x, t);
        vf sum = vset(0);
        for (int64_t h = 0; h < a->H; h += VL) {
            vf v = vload(x + h, a->H - h);
            sum += v * v;
        }
        float rstd = 1 / sqrtf(vsum(sum) / (float)a->H + a->eps);
        for (int64_t h = 0; h < a->H; h += VL)
            vstore_at(half, &a->y, t, h, vload(x + h, a->H - h) * vset(rstd) * vload(a->w + h, a->H - h), a->H - h);
        if (a->rstd) a->rstd[t] = rstd;
    }
}

void NAME(rmsnorm_fwd)(const void *args, int64_t from, int64_t to)
{
    const RmsNormArgs *a = args;
    EITHER(rmsnorm_rows, a->y);
}

void NAME(rmsnorm_bwd_x)(const void *args, int64_t from, int64_t to)
{
    const RmsNormBwdArgs *a = args;
    for (int64_t t = from; t < to; t++) {
        const float *x = row_f32(&a->x, t), *dy = row_f32(&a->dy, t);
        const float *residual = a->dx_in.p ? row_f32(&a->dx_in, t) : NULL;
        float *dx = row_f32(&a->dx, t), r = a->rstd[t];
        vf sum = vset(0);
        for (int64_t h = 0; h < a->H; h += VL)
            sum += vload(a->w + h, a->H - h) * vload(dy + h, a->H - h) * vload(x + h, a->H - h);
        float dot = vsum(sum) * r * r / (float)a->H;
        for (int64_t h = 0; h < a->H; h += VL) {
            vf grad = (vload(a->w + h, a->H - h) * vload(dy + h, a->H - h) - vload(x + h, a->H - h) * vset(dot)) * vset(r);
            vstore(dx + h, residual ? vload(residual + h, a->H - h) + grad : grad, a->H - h);
        }
    }
}

void NAME(rmsnorm_bwd_w)(const void *args, int64_t from, int64_t to)
{
    const RmsNormBwdArgs *a = args;
    for (int32_t r = 0; r < a->rows; r++)
        for (int64_t h = from; h < to; h += VL) {
            vf sum = vset(0);
            for (int64_t t = a->row[r]; t < a->row[r + 1]; t++)
                sum += vload(row_f32(&a->dy, t) + h, to - h) * vload(row_f32(&a->x, t) + h, to - h) * vset(a->rstd[t]);
            vstore(a->dw + h, vload(a->dw + h, to - h) + sum, to - h);
        }
}

ALWAYS void rope_rows(const RopeArgs *a, int64_t from, int64_t to, bool half_type)
{
    int64_t half = a->D / 2;
    vf sign = vset(a->inverse ? -1.0f : 1.0f);
    for (int64_t t = from; t < to; t++) {
        const float *cosine = a->table + a->pos[t] * a->D, *sine = cosine + half;
        for (int64_t n = 0; n < a->heads; n++)
            for (int64_t i = 0; i < half; i += VL) {
                int64_t lo_at = n * a->D + i, hi_at = lo_at + half;
                vf lo = vload_at(half_type, &a->x, t, lo_at, half - i), hi = vload_at(half_type, &a->x, t, hi_at, half - i);
                vf c = vload(cosine + i, half - i), s = vload(sine + i, half - i) * sign;
                vstore_at(half_type, &a->x, t, lo_at, lo * c - hi * s, half - i);
                vstore_at(half_type, &a->x, t, hi_at, hi * c + lo * s, half - i);
            }
    }
}

void NAME(rope)(const void *args, int64_t from, int64_t to)
{
    const RopeArgs *a = args;
    EITHER(rope_rows, a->x);
}

// Both gates are x sigmoid(w): w = x for SwiGLU, 2 z for GeGLU (ops.h).
ALWAYS vf gate_inner(vf x, bool gelu)
{
    return gelu ? x * (vset((float)(2 * GELU_SCALE)) + vset((float)(2 * GELU_SCALE * GELU_CUBE)) * x * x) : x;
}

ALWAYS void glu_rows(const SwigluArgs *a, int64_t from, int64_t to, bool half, bool gelu)
{
    for (int64_t t = from; t < to; t++)
        for (int64_t f = 0; f < a->F; f += VL) {
            int64_t n = a->F - f;
            vf gate = vload_at(half, &a->g, t, f, n);
            vstore_at(half, &a->y, t, f, gate / (vset(1) + vexp(-gate_inner(gate, gelu))) * vload_at(half, &a->u, t, f, n), n);
        }
}

ALWAYS void swiglu_rows(const SwigluArgs *a, int64_t from, int64_t to, bool half) { glu_rows(a, from, to, half, false); }
ALWAYS void geglu_rows(const SwigluArgs *a, int64_t from, int64_t to, bool half) { glu_rows(a, from, to, half, true); }

void NAME(swiglu_fwd)(const void *args, int64_t from, int64_t to)
{
    const SwigluArgs *a = args;
    EITHER(swiglu_rows, a->g);
}

void NAME(geglu_fwd)(const void *args, int64_t from, int64_t to)
{
    const GegluArgs *a = args;
    EITHER(geglu_rows, a->g);
}

ALWAYS void glu_bwd_rows(const SwigluBwdArgs *a, int64_t from, int64_t to, bool half, bool gelu)
{
    for (int64_t t = from; t < to; t++)
        for (int64_t f = 0; f < a->F; f += VL) {
            int64_t n = a->F - f;
            vf gate = vload_at(half, &a->g, t, f, n), up = vload_at(half, &a->u, t, f, n), d = vload_at(half, &a->dy, t, f, n);
            vf s = vset(1) / (vset(1) + vexp(-gate_inner(gate, gelu))), y = gate * s, slope = y * (vset(1) - s);
            if (gelu) slope *= vset((float)(2 * GELU_SCALE)) + vset((float)(6 * GELU_SCALE * GELU_CUBE)) * gate * gate;
            vstore_at(half, &a->dg, t, f, d * up * (s + slope), n);
            vstore_at(half, &a->du, t, f, d * y, n);
        }
}

ALWAYS void swiglu_bwd_rows(const SwigluBwdArgs *a, int64_t from, int64_t to, bool half)
{
    glu_bwd_rows(a, from, to, half, false);
}
ALWAYS void geglu_bwd_rows(const SwigluBwdArgs *a, int64_t from, int64_t to, bool half)
{
    glu_bwd_rows(a, from, to, half, true);
}

void NAME(swiglu_bwd)(const void *args, int64_t from, int64_t to)
{
    const SwigluBwdArgs *a = args;
    EITHER(swiglu_bwd_rows, a->g);
}

void NAME(geglu_bwd)(const void *args, int64_t from, int64_t to)
{
    const GegluBwdArgs *a = args;
    EITHER(geglu_bwd_rows, a->g);
}

void NAME(add)(const void *args, int64_t from, int64_t to)
{
    const AddArgs *a = args;
    for (int64_t t = from; t < to; t++)
        for (int64_t h = 0; h < a->H; h += VL) {
            vf x = vload(row_f32(&a->a, t) + h, a->H - h);
            vstore(row_f32(&a->y, t) + h, x + vload(row_f32(&a->b, t) + h, a->H - h), a->H - h);
        }
}

static inline vf vcap(vf x, float cap) { return cap > 0 ? vset(cap) * vtanh(x * vset(1 / cap)) : x; }

// Lanes beyond the row's end become -inf for the maximum and the sum.
static inline vf logits_at(const LogprobBlock *b, const float *x, int64_t j)
{
    vf v = vload(x + j, b->width - j);
    if (b->width - j >= VL) return v;
    for (int64_t i = b->width - j; i < VL; i++) v[i] = -INFINITY;
    return v;
}

void NAME(logprob_fwd)(const void *args, int64_t from, int64_t to)
{
    const LogprobBlock *b = args;
    for (int64_t t = from; t < to; t++) {
        float *x = b->logits + t * b->width;
        vf top = vset(b->max[t]), sum = vset(0);
        for (int64_t j = 0; j < b->width; j += VL) {
            vf v = vcap(logits_at(b, x, j), b->softcap);
            top = vmax(v, top);
            if (b->softcap > 0) vstore(x + j, v, b->width - j);
        }
        float max = vmax_lanes(top), old = vexp(vset(b->max[t] - max))[0];
        for (int64_t j = 0; j < b->width; j += VL) sum += vexp(logits_at(b, x, j) - vset(max));
        b->sum[t] = b->sum[t] * old + vsum(sum);
        b->max[t] = max;
        int64_t target = b->target[t] - b->first;
        if (target >= 0 && target < b->width) b->picked[t] = x[target];
    }
}

void NAME(logprob_bwd)(const void *args, int64_t from, int64_t to)
{
    const LogprobBlock *b = args;
    for (int64_t t = from; t < to; t++) {
        float *x = b->logits + t * b->width;
        vf coef = vset(b->coef[t]), lse = vset(b->lse[t]);
        int64_t target = b->target[t] - b->first;
        bool here = target >= 0 && target < b->width;
        float slope = 1;
        if (here && b->softcap > 0) slope = 1 - tanhf(x[target] / b->softcap) * tanhf(x[target] / b->softcap);
        for (int64_t j = 0; j < b->width; j += VL) {
            vf y = vcap(vload(x + j, b->width - j), b->softcap), d = -coef * vexp(y - lse);
            if (b->softcap > 0) d *= vset(1) - y * y / vset(b->softcap * b->softcap);
            vstore(x + j, d, b->width - j);
        }
        if (here) x[target] += b->coef[t] * slope;
    }
}

static inline vf vsqrt(vf v)
{
    float lane[VL];
    memcpy(lane, &v, sizeof lane);
    for (int k = 0; k < VL; k++) lane[k] = sqrtf(lane[k]);
    memcpy(&v, lane, sizeof v);
    return v;
}

void NAME(adamw)(const void *args, int64_t from, int64_t to)
{
    const AdamWArgs *a = args;
    double t = (double)*a->step, lr = (double)*a->lr;
    float rate = (float)(lr / (1 - pow((double)a->beta1, t))), keep = (float)(1 - lr * (double)a->decay);
    float scale = (float)(1 / sqrt(1 - pow((double)a->beta2, t)));
    vf b1 = vset(a->beta1), b2 = vset(a->beta2), c1 = vset(1 - a->beta1), c2 = vset(1 - a->beta2), clip = vset(*a->clip);
    int64_t end = lesser(to * NORM_BLOCK, a->n);
    for (int64_t i = from * NORM_BLOCK; i < end; i += VL) {
        int64_t n = end - i;
        vf g = vload(a->g + i, n) * clip;
        vf m = b1 * vload(a->m + i, n) + c1 * g, v = b2 * vload(a->v + i, n) + c2 * g * g, root = vsqrt(v);
        vf w = vload(a->w + i, n) * vset(keep) - vset(rate) * m / (root * vset(scale) + vset(a->eps));
        vstore(a->m + i, m, n);
        vstore(a->v + i, v, n);
        vstore(a->w + i, w, n);
    }
    for (int64_t i = from * NORM_BLOCK; a->rounded && i < end; i++) a->rounded[i] = bf16_from_f32(a->w[i]);
}

void NAME(sqnorm)(const void *args, int64_t from, int64_t to)
{
    const SqNormArgs *a = args;
    for (int64_t b = from; b < to; b++) {
        double lane[8] = {0};
        int64_t i = b * NORM_BLOCK, end = lesser((b + 1) * NORM_BLOCK, a->n);
        for (; i + 8 <= end; i += 8)
            for (int k = 0; k < 8; k++) lane[k] += (double)a->g[i + k] * (double)a->g[i + k];
        for (int k = 0; i < end; i++, k++) lane[k] += (double)a->g[i] * (double)a->g[i];
        a->sum[b] = ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
    }
}

const Form NAME(form) = {
    .rmsnorm_fwd = NAME(rmsnorm_fwd),
    .rmsnorm_bwd_x = NAME(rmsnorm_bwd_x),
    .rmsnorm_bwd_w = NAME(rmsnorm_bwd_w),
    .rope = NAME(rope),
    .swiglu_fwd = NAME(swiglu_fwd),
    .swiglu_bwd = NAME(swiglu_bwd),
    .geglu_fwd = NAME(geglu_fwd),
    .geglu_bwd = NAME(geglu_bwd),
    .add = NAME(add),
    .attn_pack = NAME(attn_pack),
    .attn_fwd = NAME(attn_fwd),
    .attn_bwd_pack = NAME(attn_bwd_pack),
    .attn_bwd = NAME(attn_bwd),
    .attn_bwd_sum = NAME(attn_bwd_sum),
    .attn_decode = NAME(attn_decode),
    .logprob_fwd = NAME(logprob_fwd),
    .logprob_bwd = NAME(logprob_bwd),
    .adamw = NAME(adamw),
    .sqnorm = NAME(sqnorm),
    .gemm_packed = NAME(gemm_packed),
    .gemm_panel = NAME(gemm_panel),
    .gemm16 = NAME(gemm16),
    .attn16_pack = NAME(attn16_pack),
    .attn16_bwd_pack = NAME(attn16_bwd_pack),
    .attn16_fwd = NAME(attn16_fwd),
    .attn16_bwd = NAME(attn16_bwd),
    .attn16_decode = NAME(attn16_decode),
    .pack16 = NAME(pack16),
    .pack16_t = NAME(pack16_t),
    .round16 = NAME(round16),
    .widen16 = NAME(widen16),
};
