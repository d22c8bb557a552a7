// SPDX-License-Identifier: Apache-2.0
// Plain forms of the ops that work token by token, and of the optimiser. Sums are taken in double in index order.
#include <math.h>
#include <stddef.h>

#include "kernels/cpu/bf16.h"
#include "kernels/cpu/plain.h"

void plain_rmsnorm_fwd(const void *args, int64_t from, int64_t to)
{
    const RmsNormArgs *a = args;
    for (int64_t t = from; t < to; t++) {
        const float *x = row_f32(&a->x, t);
        double sum = 0;
        for (int64_t h = 0; h < a->H; h++) sum += (double)x[h] * x[h];
        float rstd = (float)(1 / sqrt(sum / (double)a->H + (double)a->eps));
        for (int64_t h = 0; h < a->H; h++) tensor_put(&a->y, t, h, x[h] * rstd * a->w[h]);
        if (a->rstd) a->rstd[t] = rstd;
    }
}

// y_h = x_h r w_h with r = (mean x^2 + eps)^-1/2, so dx_h = r (w_h dy_h - x_h r^2 mean(w dy x)).
void plain_rmsnorm_bwd_x(const void *args, int64_t from, int64_t to)
{
    const RmsNormBwdArgs *a = args;
    for (int64_t t = from; t < to; t++) {
        const float *x = row_f32(&a->x, t), *dy = row_f32(&a->dy, t);
        const float *residual = a->dx_in.p ? row_f32(&a->dx_in, t) : NULL;
        float *dx = row_f32(&a->dx, t);
        double dot = 0, r = (double)a->rstd[t];
        for (int64_t h = 0; h < a->H; h++) dot += (double)a->w[h] * dy[h] * x[h];
        dot *= r * r / (double)a->H;
        for (int64_t h = 0; h < a->H; h++) {
            float through = (float)(r * ((double)a->w[h] * dy[h] - x[h] * dot));
            dx[h] = residual ? residual[h] + through : through;
        }
    }
}

void plain_rmsnorm_bwd_w(const void *args, int64_t from, int64_t to)
{
    const RmsNormBwdArgs *a = args;
    for (int32_t r = 0; r < a->rows; r++)
        for (int64_t h = from; h < to; h++) {
            double sum = 0;
            for (int64_t t = a->row[r]; t < a->row[r + 1]; t++)
                sum += (double)row_f32(&a->dy, t)[h] * row_f32(&a->x, t)[h] * a->rstd[t];
            a->dw[h] += (float)sum;
        }
}

void plain_rope(const void *args, int64_t from, int64_t to)
{
    const RopeArgs *a = args;
    int64_t half = a->D / 2;
    for (int64_t t = from; t < to; t++) {
        const float *c = a->table + a->pos[t] * a->D, *s = c + half;
        for (int64_t n = 0; n < a->heads; n++)
            for (int64_t i = 0; i < half; i++) {
                int64_t at = n * a->D + i;
                float lo = tensor_get(&a->x, t, at), hi = tensor_get(&a->x, t, at + half), sine = a->inverse ? -s[i] : s[i];
                tensor_put(&a->x, t, at, lo * c[i] - hi * sine);
                tensor_put(&a->x, t, at + half, hi * c[i] + lo * sine);
            }
    }
}

void plain_swiglu_fwd(const void *args, int64_t from, int64_t to)
{
    const SwigluArgs *a = args;
    for (int64_t t = from; t < to; t++)
        for (int64_t f = 0; f < a->F; f++) {
            double gate = tensor_get(&a->g, t, f);
            tensor_put(&a->y, t, f, (float)(gate / (1 + exp(-gate)) * tensor_get(&a->u, t, f)));
        }
}

// silu'(g) = s + g s (1 - s), s = sigmoid(g)
void plain_swiglu_bwd(const void *args, int64_t from, int64_t to)
{
    const SwigluBwdArgs *a = args;
    for (int64_t t = from; t < to; t++)
        for (int64_t f = 0; f < a->F; f++) {
            double gate = tensor_get(&a->g, t, f), up = tensor_get(&a->u, t, f), dy = tensor_get(&a->dy, t, f);
            double s = 1 / (1 + exp(-gate));
            tensor_put(&a->dg, t, f, (float)(dy * up * (s + gate * s * (1 - s))));
            tensor_put(&a->du, t, f, (float)(dy * gate * s));
        }
}

// gelu(x) = x s, s = sigmoid(2 z)
void plain_geglu_fwd(const void *args, int64_t from, int64_t to)
{
    const GegluArgs *a = args;
    for (int64_t t = from; t < to; t++)
        for (int64_t f = 0; f < a->F; f++) {
            double gate = tensor_get(&a->g, t, f), z = GELU_SCALE * (gate + GELU_CUBE * gate * gate * gate);
            tensor_put(&a->y, t, f, (float)(gate / (1 + exp(-2 * z)) * tensor_get(&a->u, t, f)));
        }
}

// gelu'(x) = s + x s (1 - s) 2 z'
void plain_geglu_bwd(const void *args, int64_t from, int64_t to)
{
    const GegluBwdArgs *a = args;
    for (int64_t t = from; t < to; t++)
        for (int64_t f = 0; f < a->F; f++) {
            double gate = tensor_get(&a->g, t, f), up = tensor_get(&a->u, t, f), dy = tensor_get(&a->dy, t, f);
            double z = GELU_SCALE * (gate + GELU_CUBE * gate * gate * gate), slope = GELU_SCALE * (1 + 3 * GELU_CUBE * gate * gate);
            double s = 1 / (1 + exp(-2 * z));
            tensor_put(&a->dg, t, f, (float)(dy * up * (s + gate * s * (1 - s) * 2 * slope)));
            tensor_put(&a->du, t, f, (float)(dy * gate * s));
        }
}

void plain_add(const void *args, int64_t from, int64_t to)
{
    const AddArgs *a = args;
    for (int64_t t = from; t < to; t++) {
        const float *x = row_f32(&a->a, t), *z = row_f32(&a->b, t);
        float *y = row_f32(&a->y, t);
        for (int64_t h = 0; h < a->H; h++) y[h] = x[h] + z[h];
    }
}

void plain_adamw(const void *args, int64_t from, int64_t to)
{
    const AdamWArgs *a = args;
    double t = (double)*a->step, lr = (double)*a->lr;
    double first = 1 - pow((double)a->beta1, t), second = 1 - pow((double)a->beta2, t);
    int64_t end = to * NORM_BLOCK < a->n ? to * NORM_BLOCK : a->n;
    for (int64_t i = from * NORM_BLOCK; i < end; i++) {
        double g = (double)a->g[i] * *a->clip, w = a->w[i] - lr * a->decay * a->w[i];
        double m = a->beta1 * (double)a->m[i] + (1 - (double)a->beta1) * g;
        double v = a->beta2 * (double)a->v[i] + (1 - (double)a->beta2) * g * g;
        a->m[i] = (float)m;
        a->v[i] = (float)v;
        a->w[i] = (float)(w - lr / first * m / (sqrt(v) / sqrt(second) + (double)a->eps));
        if (a->rounded) a->rounded[i] = bf16_from_f32(a->w[i]);
    }
}

void plain_sqnorm(const void *args, int64_t from, int64_t to)
{
    const SqNormArgs *a = args;
    for (int64_t b = from; b < to; b++) {
        int64_t end = (b + 1) * NORM_BLOCK < a->n ? (b + 1) * NORM_BLOCK : a->n;
        double sum = 0;
        for (int64_t i = b * NORM_BLOCK; i < end; i++) sum += (double)a->g[i] * a->g[i];
        a->sum[b] = sum;
    }
}
