// SPDX-License-Identifier: Apache-2.0
// A tile of the bf16 gemm with AMX: 32 rows times two panels, four accumulators in tile registers.
//
// TDPBF16PS sums the products of even and of odd k of 16 pairs apart and adds both sums to the accumulator; subnormals count as
// zero. A tile of a is 16 rows of 16 pairs; rows that are not there, and pairs behind the last one, come from a zeroed copy.
// With AMX_ON_C the tile registers are plain memory, so that tests can run this file on a machine without AMX.
#include "kernels/cpu/bf16.h"

#ifdef AMX_ON_C
#include "kernels/cpu/amx_on_c.h"
#else
#include <immintrin.h>
#endif

enum { ROWS = 32, LANES = 16 };

typedef struct TileConfig {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} TileConfig;

static void configure(void)
{
    TileConfig c = {.palette = 1};
    for (int i = 0; i < 8; i++) c.row_bytes[i] = 64, c.rows[i] = LANES;
    _tile_loadconfig(&c);
}

// Rows [i, i + n) of a as [32][depth] pairs, zero where there is nothing; depth = pairs rounded up to 16.
static void stage(const Tile16 *t, int64_t i, int64_t n, int64_t depth, uint32_t *out)
{
    memset(out, 0, (size_t)(ROWS * depth) * sizeof *out);
    for (int64_t r = 0; r < n; r++) {
        const uint32_t *a = t->a + (i + r) / BF16_PANEL * t->a_panel + (i + r) % BF16_PANEL * t->a_row;
        for (int64_t p = 0; p < t->pairs; p++) out[r * depth + p] = a[p * t->a_pair];
    }
}

static void load_sums(bool first, const float *c, const float *c1)
{
    const int ldc = TILE16_COLUMNS * (int)sizeof(float);
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        return;
    }
    _tile_loadd(0, c, ldc);
    _tile_loadd(1, c1, ldc);
    _tile_loadd(2, c + LANES * TILE16_COLUMNS, ldc);
    _tile_loadd(3, c1 + LANES * TILE16_COLUMNS, ldc);
}

// c[32][32] (second panel: c1) = or += a[32][depth] . b; lda in pairs.
static void dots(const uint32_t *a, int64_t lda, int64_t depth, const uint32_t *b0, const uint32_t *b1, bool first, float *c,
                 float *c1)
{
    const int ldc = TILE16_COLUMNS * (int)sizeof(float);
    load_sums(first, c, c1);
    for (int64_t p = 0; p < depth; p += BF16_PAIRS) {
        _tile_loadd(4, a + p, (int)lda * 4);
        _tile_loadd(6, b0 + p * BF16_PANEL, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b1 + p * BF16_PANEL, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + LANES * lda + p, (int)lda * 4);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, ldc);
    _tile_stored(1, c1, ldc);
    _tile_stored(2, c + LANES * TILE16_COLUMNS, ldc);
    _tile_stored(3, c1 + LANES * TILE16_COLUMNS, ldc);
}

void tile16_amx(const Tile16 *t)
{
    _Alignas(64) uint32_t copy[ROWS * TILE16_DEPTH];
    _Alignas(64) float spare[ROWS * TILE16_COLUMNS];  // the second panel's sums where there is none
    int64_t depth = bf16_pairs(2 * t->pairs);
    configure();
    for (int64_t i = 0; i < t->rows; i += ROWS) {
        int64_t n = t->rows - i < ROWS ? t->rows - i : ROWS, lda = depth;
        const uint32_t *a = copy;
        if (n == ROWS && t->pairs == depth && t->a_pair == 1) a = t->a + i / BF16_PANEL * t->a_panel, lda = t->a_row;
        else stage(t, i, n, depth, copy);
        for (int64_t j = 0; j < t->panels; j += 2) {
            float *c = t->c + i * TILE16_COLUMNS + j * BF16_PANEL;
            bool two = j + 1 < t->panels;
            const uint32_t *b = t->b + j * t->b_panel;
            dots(a, lda, depth, b, two ? b + t->b_panel : b, t->first, c, two ? c + BF16_PANEL : spare);
        }
    }
}
