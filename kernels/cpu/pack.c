// SPDX-License-Identifier: Apache-2.0
// Packed weights: op_pack, and the plain forms of what reads them.
//
// A panel of PACK_PANEL output features is the same stretch of memory before and after, [features][in] and [in][features], so
// panels are packed one by one through a copy.
#include <string.h>

#include "kernels/cpu/plain.h"

enum { BLOCK = 16 };  // values of `in` that are moved together: a line of each feature

static float *panel_at(const Tensor *w, int64_t in, int64_t p) { return (float *)w->p + p * PACK_PANEL * in; }

static void transpose(const float *from, int64_t in, int64_t width, float *to)
{
    for (int64_t k0 = 0; k0 < in; k0 += BLOCK)
        for (int64_t j = 0; j < width; j++)
            for (int64_t k = k0; k < in && k < k0 + BLOCK; k++) to[k * width + j] = from[j * in + k];
}

int64_t op_pack_workspace(const PackArgs *a) { return PACK_PANEL * a->in * (int64_t)sizeof(float); }

Err op_pack(Ctx *ctx, const PackArgs *a)
{
    (void)ctx;
    CHECK_F32(a->w);
    ASSERT(a->w.stride == a->in && a->out > 0);
    for (int64_t p = 0; p * PACK_PANEL < a->out; p++) {
        int64_t width = panel_width(a->out, p);
        memcpy(a->workspace, panel_at(&a->w, a->in, p), (size_t)(width * a->in) * sizeof(float));
        transpose(a->workspace, a->in, width, panel_at(&a->w, a->in, p));
    }
    return OK;
}

void unpack_row(const Tensor *w, int64_t in, int64_t out, int64_t row, float *y)
{
    int64_t p = row / PACK_PANEL, width = panel_width(out, p);
    const float *panel = panel_at(w, in, p) + row % PACK_PANEL;
    for (int64_t k = 0; k < in; k++) y[k] = panel[k * width];
}

void plain_gemm_packed(const void *args, int64_t from, int64_t to)
{
    const GemmArgs *a = args;
    const bool chained = a->add.p && a->add.p == a->y.p;
    for (int64_t p = from; p < to; p++) {
        int64_t width = panel_width(a->out, p);
        const float *w = panel_at(&a->w, a->in, p);
        for (int64_t t = 0; t < a->T; t++)
            for (int64_t j = 0; j < width; j++) {
                float *y = row_f32(&a->y, t) + p * PACK_PANEL + j, sum = chained ? *y : 0;
                for (int64_t k = 0; k < a->in; k++) sum += row_f32(&a->x, t)[k] * w[k * width + j];
                *y = sum;
            }
    }
}
