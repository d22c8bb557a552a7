// SPDX-License-Identifier: Apache-2.0
// Packing and rounding of bf16, element by element.
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/plain.h"

static uint16_t at(const Tensor *w, int64_t i, int64_t j)
{
    if (w->dtype == DT_BF16) return ((const uint16_t *)w->p)[i * w->stride + j];
    return bf16_from_f32(row_f32(w, i)[j]);
}

// Element k of row n of a packed matrix [rows][K].
static uint16_t *place(const Pack16 *a, int64_t K, int64_t n, int64_t k)
{
    return (uint16_t *)a->packed + ((n / BF16_PANEL * bf16_pairs(K) + k / 2) * BF16_PANEL + n % BF16_PANEL) * 2 + k % 2;
}

static void clear(const Pack16 *a, int64_t K, int64_t from, int64_t to)
{
    int64_t panel = bf16_pairs(K) * BF16_PANEL;
    memset(a->packed + from * panel, 0, (size_t)((to - from) * panel) * sizeof *a->packed);
}

void plain_pack16(const void *args, int64_t from, int64_t to)
{
    const Pack16 *a = args;
    clear(a, a->cols, from, to);
    for (int64_t n = from * BF16_PANEL; n < to * BF16_PANEL && n < a->rows; n++)
        for (int64_t k = 0; k < a->cols; k++) *place(a, a->cols, n, k) = at(&a->w, n, k);
}

void plain_pack16_t(const void *args, int64_t from, int64_t to)
{
    const Pack16 *a = args;
    clear(a, a->rows, from, to);
    for (int64_t n = from * BF16_PANEL; n < to * BF16_PANEL && n < a->cols; n++)
        for (int64_t k = 0; k < a->rows; k++) *place(a, a->rows, n, k) = at(&a->w, k, n);
}

void plain_round16(const void *args, int64_t from, int64_t to)
{
    const Round16 *a = args;
    for (int64_t t = from; t < to; t++)
        for (int64_t i = 0; i < a->n; i++) a->y[t * a->ldy + i] = bf16_from_f32(a->x[t * a->ldx + i]);
}

void plain_widen16(const void *args, int64_t from, int64_t to)
{
    const Widen16 *a = args;
    for (int64_t t = from; t < to; t++)
        for (int64_t i = 0; i < a->n; i++) a->y[t * a->ldy + i] = bf16_to_f32(a->x[t * a->ldx + i]);
}
