// SPDX-License-Identifier: Apache-2.0
// The fixed-order gemms: for machines where oneDNN's bits depend on M and for operands with padded rows (gemm_panel), and for
// packed weights (gemm_packed).
//
// Method: a piece is a panel of PANEL columns of c. For each block of KC values of k the panel of b is packed into the
// stack (which makes all three forms alike), then tiles of c take up the block; loading c between blocks continues the
// same ascending sum. Drawback: packing costs as much as 8 rows of products, so small M is slow.
// A packed weight is its own panel: nothing is packed, it streams through once in the order of memory, whatever M is.
#include "kernels/cpu/fast.h"

enum { KC = 256 };
_Static_assert(GEMM_PANEL % (NV * VL) == 0, "a panel is cut into whole tiles");

static void pack(const Gemm *g, int64_t k0, int64_t depth, int64_t j0, int64_t width, float *out)
{
    if (width < GEMM_PANEL) memset(out, 0, (size_t)(depth * GEMM_PANEL) * sizeof(float));
    if (g->form == GEMM_NT) {
        for (int64_t j = 0; j < width; j++)
            for (int64_t k = 0; k < depth; k++) out[k * GEMM_PANEL + j] = g->b[(j0 + j) * g->ldb + k0 + k];
        return;
    }
    for (int64_t k = 0; k < depth; k++)
        memcpy(out + k * GEMM_PANEL, g->b + (k0 + k) * g->ldb + j0, (size_t)width * sizeof(float));
}

// The last, narrow panel: through a copy of c that is PANEL wide.
static void narrow(int64_t M, int64_t width, int64_t K, Mat a, const float *b, float *c, int64_t ldc, bool accumulate)
{
    float copy[MR * GEMM_PANEL];
    for (int64_t i = 0; i < M; i += MR) {
        int64_t rows = lesser(MR, M - i);
        Mat at = {a.p + i * a.rs, a.rs, a.cs};
        memset(copy, 0, sizeof copy);
        for (int64_t r = 0; r < rows; r++) memcpy(copy + r * GEMM_PANEL, c + (i + r) * ldc, (size_t)width * sizeof(float));
        mm(rows, GEMM_PANEL, K, at, b, GEMM_PANEL, copy, GEMM_PANEL, accumulate);
        for (int64_t r = 0; r < rows; r++) memcpy(c + (i + r) * ldc, copy + r * GEMM_PANEL, (size_t)width * sizeof(float));
    }
}

void NAME(gemm_panel)(const void *args, int64_t from, int64_t to)
{
    const Gemm *g = args;
    _Alignas(64) float b[KC * GEMM_PANEL];
    int64_t rs = g->form == GEMM_TN ? 1 : g->lda, cs = g->form == GEMM_TN ? g->lda : 1;
    for (int64_t panel = from; panel < to; panel++) {
        int64_t j = panel * GEMM_PANEL, width = lesser(GEMM_PANEL, g->N - j);
        for (int64_t k = 0; k < g->K; k += KC) {
            int64_t depth = lesser(KC, g->K - k);
            Mat a = {g->a + k * cs, rs, cs};
            bool add = g->accumulate || k > 0;
            pack(g, k, depth, j, width, b);
            if (width == GEMM_PANEL) mm(g->M, GEMM_PANEL, depth, a, b, GEMM_PANEL, g->c + j, g->ldc, add);
            else narrow(g->M, width, depth, a, b, g->c + j, g->ldc, add);
        }
    }
}

void NAME(gemm_packed)(const void *args, int64_t from, int64_t to)
{
    const GemmArgs *a = args;
    const bool chained = a->add.p && a->add.p == a->y.p;
    for (int64_t panel = from; panel < to; panel++) {
        int64_t j = panel * PACK_PANEL, width = panel_width(a->out, panel);
        const float *w = (const float *)a->w.p + j * a->in;
        float *y = (float *)a->y.p + j;
        for (int64_t k = 0; k < a->in; k += KC) {
            Mat x = {(const float *)a->x.p + k, a->x.stride, 1};
            mm(a->T, width, lesser(KC, a->in - k), x, w + k * width, width, y, a->y.stride, chained || k > 0);
        }
    }
}
