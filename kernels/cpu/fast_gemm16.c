// SPDX-License-Identifier: Apache-2.0
// The bf16 gemm around its tiles: packing, turning packed weights, the tile of levels without bf16 instructions, and the
// epilogue that adds, rounds and stores.
//
// Method: a piece is a strip of up to GEMM16_STRIP rows times TILE16_COLUMNS columns. Its sums lie in fp32 on the stack; block
// of k after block of k, tile after tile adds to them in ascending k; then the epilogue writes them. For dx = dy . w the
// forward's packing of w is turned a block at a time, once a strip.
// Drawback: levels without bf16 instructions widen both operands of every block to fp32.
#include "kernels/cpu/fast16.h"

// --- packing ---------------------------------------------------------------------------------------------------------

// Eight pairs of one row, rounded.
static inline void pairs8(const Tensor *w, const char *row, int64_t n, uint32_t out[8])
{
    uint16_t h[16] = {0};
    if (w->dtype == DT_BF16) memcpy(h, row, (size_t)n * sizeof *h);
    else
        for (int64_t i = 0; i < n; i += VL) vstore_bf16(h + i, vload((const float *)(const void *)row + i, n - i), n - i);
    memcpy(out, h, sizeof h);
}

void NAME(pack16)(const void *args, int64_t from, int64_t to)
{
    const Pack16 *a = args;
    int64_t pairs = bf16_pairs(a->cols), size = a->w.dtype == DT_BF16 ? 2 : 4;
    for (int64_t panel = from; panel < to; panel++) {
        uint32_t *out = a->packed + panel * pairs * BF16_PANEL;
        int64_t rows = lesser(BF16_PANEL, a->rows - panel * BF16_PANEL);
        memset(out, 0, (size_t)(pairs * BF16_PANEL) * sizeof *out);
        for (int64_t k = 0; k < a->cols; k += 16)
            for (int64_t r = 0; r < rows; r++) {
                uint32_t line[8];
                const char *row = (const char *)a->w.p + ((panel * BF16_PANEL + r) * a->w.stride + k) * size;
                pairs8(&a->w, row, lesser(16, a->cols - k), line);
                for (int64_t p = 0; p < 8; p++) out[(k / 2 + p) * BF16_PANEL + r] = line[p];
            }
    }
}

// One pair of rows of x, 16 columns from j on: lane i is (x[0][j + i], x[1][j + i]).
static inline void interleave(const uint16_t *x0, const uint16_t *x1, int64_t n, uint32_t *out)
{
    if (n == BF16_PANEL)
        for (int i = 0; i < BF16_PANEL; i++) out[i] = (uint32_t)x0[i] | (uint32_t)x1[i] << 16;
    else
        for (int i = 0; i < n; i++) out[i] = (uint32_t)x0[i] | (uint32_t)x1[i] << 16;
}

void NAME(pack16_t)(const void *args, int64_t from, int64_t to)
{
    static const uint16_t nothing[BF16_PANEL] = {0};
    const Pack16 *a = args;
    int64_t panel = bf16_pairs(a->rows) * BF16_PANEL, used = (a->rows + 1) / 2 * BF16_PANEL;
    if (a->cols < to * BF16_PANEL) memset(a->packed + (to - 1) * panel, 0, (size_t)panel * sizeof *a->packed);
    for (int64_t p = from; p < to; p++) memset(a->packed + p * panel + used, 0, (size_t)(panel - used) * sizeof *a->packed);
    // A few rows at a time: whole columns would fight for the same sets of the cache.
    for (int64_t t0 = 0; t0 < a->rows; t0 += BF16_PANEL)
        for (int64_t p = from; p < to; p++)
            for (int64_t t = t0; t < lesser(a->rows, t0 + BF16_PANEL); t += 2) {
                const uint16_t *x = row_bf16(&a->w, t) + p * BF16_PANEL;
                interleave(x, t + 1 < a->rows ? x + a->w.stride : nothing, lesser(BF16_PANEL, a->cols - p * BF16_PANEL),
                           a->packed + p * panel + t / 2 * BF16_PANEL);
            }
}

void NAME(round16)(const void *args, int64_t from, int64_t to)
{
    const Round16 *a = args;
    for (int64_t t = from; t < to; t++) {
        const float *x = a->x + t * a->ldx;
        uint16_t *y = a->y + t * a->ldy;
        for (int64_t i = 0; i < a->n; i += VL) vstore_bf16(y + i, vload(x + i, a->n - i), a->n - i);
    }
}

void NAME(widen16)(const void *args, int64_t from, int64_t to)
{
    const Widen16 *a = args;
    for (int64_t t = from; t < to; t++)
        for (int64_t i = 0; i < a->n; i += VL)
            vstore(a->y + t * a->ldy + i, vload_bf16(a->x + t * a->ldx + i, a->n - i), a->n - i);
}

// --- turning ---------------------------------------------------------------------------------------------------------

// (w[o][i], w[o][i+1], w[o+1][i], w[o+1][i+1]) to (w[o][i], w[o+1][i], w[o][i+1], w[o+1][i+1]).
static inline uint64_t swap_middle(uint64_t x)
{
    return (x & 0xffff00000000ffffu) | (x >> 16 & 0xffff0000u) | (x & 0xffff0000u) << 16;
}

// From w[K][N] packed (panels of K, pairs of n) the block of pairs [k0, k0 + depth) of k and `panels` panels of n, from n0
// on, as the packing of w^T has it. k0 is a multiple of 8, n0 of 16.
static void turn(const Gemm16 *g, int64_t k0, int64_t depth, int64_t n0, int64_t panels, uint32_t *out)
{
    int64_t stride = bf16_pairs(g->N) * BF16_PANEL, last = bf16_panels(g->K);
    for (int64_t panel = 0; panel < panels; panel++)
        for (int64_t k = 0; k < depth; k += 8) {
            uint64_t block[8][8], *to = (uint64_t *)(void *)(out + (panel * depth + k) * BF16_PANEL);
            const uint32_t *from = g->b + (k0 + k) / 8 * stride + (n0 / 2 + panel * 8) * BF16_PANEL;
            if ((k0 + k) / 8 < last) memcpy(block, from, sizeof block);
            else memset(block, 0, sizeof block);
            for (int q = 0; q < 8; q++)
                for (int p = 0; p < 8; p++) to[q * 8 + p] = swap_middle(block[p][q]);
        }
}

// --- the tile of levels without bf16 instructions ----------------------------------------------------------------------

enum { WIDE = NV * VL };
_Static_assert(TILE16_COLUMNS % WIDE == 0, "a tile is cut into whole strips of columns");

// Even and odd values of k of `width` columns.
static inline void widen_b(const Tile16 *t, int64_t column, int64_t width, float *out)
{
    for (int64_t p = 0; p < t->pairs; p++)
        for (int64_t j = 0; j < width; j += BF16_PANEL) {
            const uint32_t *b = t->b + (column + j) / BF16_PANEL * t->b_panel + p * BF16_PANEL + (column + j) % BF16_PANEL;
            for (int64_t i = 0; i < lesser(BF16_PANEL, WIDE); i++) {
                uint32_t even = b[i] << 16, odd = b[i] & 0xffff0000u;
                memcpy(out + (2 * p) * WIDE + j + i, &even, sizeof even);
                memcpy(out + (2 * p + 1) * WIDE + j + i, &odd, sizeof odd);
            }
        }
}

static inline void widen_a(const Tile16 *t, int64_t i, int64_t rows, float *out)
{
    for (int64_t r = 0; r < rows; r++) {
        const uint32_t *a = t->a + (i + r) / BF16_PANEL * t->a_panel + (i + r) % BF16_PANEL * t->a_row;
        for (int64_t p = 0; p < t->pairs; p++) {
            uint32_t pair = a[p * t->a_pair], even = pair << 16, odd = pair & 0xffff0000u;
            memcpy(out + r * 2 * TILE16_DEPTH + 2 * p, &even, sizeof even);
            memcpy(out + r * 2 * TILE16_DEPTH + 2 * p + 1, &odd, sizeof odd);
        }
    }
}

#define TILE16 FAST_PASTE(tile16, ISA)
void TILE16(const Tile16 *t)
{
    _Alignas(64) float a[TILE16_ROWS * 2 * TILE16_DEPTH], b[2 * TILE16_DEPTH * WIDE];
    widen_a(t, 0, t->rows, a);
    for (int64_t j = 0; j < t->panels * BF16_PANEL; j += WIDE) {
        int64_t width = lesser(WIDE, t->panels * BF16_PANEL - j);
        widen_b(t, j, width, b);
        mm(t->rows, width, 2 * t->pairs, (Mat){a, 2 * TILE16_DEPTH, 1}, b, WIDE, t->c + j, TILE16_COLUMNS, !t->first);
    }
}

// --- strips ------------------------------------------------------------------------------------------------------------

static void store_row(const Gemm16 *g, const float *sum, int64_t i, int64_t j0, int64_t width)
{
    const float *add = g->add ? g->add + i * g->ld_add + j0 : NULL;
    float *c = (float *)g->c.p + i * g->c.stride + j0;
    uint16_t *h = (uint16_t *)g->c.p + i * g->c.stride + j0;
    for (int64_t j = 0; j < width; j += VL) {
        int64_t n = width - j;
        vf x = vload(sum + j, n);
        if (g->bias) x += vload(g->bias + j0 + j, n);
        if (add) x += vload(add + j, n);
        if (g->c.dtype == DT_BF16) vstore_bf16(h + j, x, n);
        else vstore(c + j, x, n);
    }
}

// Blocks of k of about the same size.
static int64_t even_depth(int64_t pairs)
{
    int64_t blocks = (pairs + TILE16_DEPTH - 1) / TILE16_DEPTH;
    return (pairs + blocks * BF16_PAIRS - 1) / (blocks * BF16_PAIRS) * BF16_PAIRS;
}

static void strip(const Gemm16 *g, int64_t i0, int64_t rows, int64_t j0, int64_t panels)
{
    _Alignas(64) float sum[GEMM16_STRIP * TILE16_COLUMNS];
    _Alignas(64) uint32_t turned[TILE16_DEPTH * TILE16_COLUMNS];
    int64_t pairs = (g->K + 1) / 2;
    for (int64_t k = 0, depth = even_depth(pairs); k < pairs; k += depth) {
        Tile16 t = {.panels = panels, .pairs = lesser(depth, pairs - k), .first = k == 0, .a_panel = g->a_panel, .a_row = g->a_row,
                    .a_pair = g->a_pair, .b_panel = bf16_pairs(g->K) * BF16_PANEL};
        t.b = g->b + j0 / BF16_PANEL * t.b_panel + k * BF16_PANEL;
        if (g->turned) {
            t.b_panel = bf16_pairs(2 * t.pairs) * BF16_PANEL;
            t.b = turned;
            turn(g, k, t.b_panel / BF16_PANEL, j0, panels, turned);
        }
        for (int64_t i = 0; i < rows; i += TILE16_ROWS) {
            t.rows = lesser(TILE16_ROWS, rows - i);
            t.a = g->a + (i0 + i) / BF16_PANEL * g->a_panel + k * g->a_pair;
            t.c = sum + i * TILE16_COLUMNS;
            g->tile(&t);
        }
    }
    for (int64_t i = 0; i < rows; i++)
        store_row(g, sum + i * TILE16_COLUMNS, i0 + i, j0, lesser(panels * BF16_PANEL, g->N - j0));
}

void NAME(gemm16)(const void *args, int64_t from, int64_t to)
{
    const Gemm16 *g = args;
    int64_t strips = (g->M + GEMM16_STRIP - 1) / GEMM16_STRIP;
    for (int64_t item = from; item < to; item++) {
        int64_t i = item % strips * GEMM16_STRIP, j = item / strips * TILE16_COLUMNS;
        strip(g, i, lesser(GEMM16_STRIP, g->M - i), j, lesser(TILE16_PANELS, bf16_panels(g->N - j)));
    }
}
