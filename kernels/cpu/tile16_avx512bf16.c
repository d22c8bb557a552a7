// SPDX-License-Identifier: Apache-2.0
// A tile of the bf16 gemm with AVX-512's dot instruction: 8 rows times two panels in 16 accumulators.
//
// vdpbf16ps adds both products of a pair to each lane, rounding after each; subnormal results count as zero.
#include "kernels/cpu/bf16.h"

#include <immintrin.h>

enum { R = 8 };

static inline __attribute__((always_inline)) void dots(int rows, int panels, const Tile16 *t, const uint32_t *a,
                                                       const uint32_t *b, float *c)
{
    __m512 sum[R][2];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < panels; j++)
            sum[i][j] = t->first ? _mm512_setzero_ps() : _mm512_loadu_ps(c + i * TILE16_COLUMNS + j * BF16_PANEL);
    for (int64_t p = 0; p < t->pairs; p++) {
        __m512bh line[2];
        for (int j = 0; j < panels; j++) line[j] = (__m512bh)_mm512_loadu_si512(b + j * t->b_panel + p * BF16_PANEL);
        for (int i = 0; i < rows; i++) {
            __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[i * t->a_row + p * t->a_pair]);
            for (int j = 0; j < panels; j++) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], x, line[j]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < panels; j++) _mm512_storeu_ps(c + i * TILE16_COLUMNS + j * BF16_PANEL, sum[i][j]);
}

#define ROWS(PANELS)                                          \
    switch (rows) {                                           \
    case 1: dots(1, PANELS, t, a, b, c); break;               \
    case 2: dots(2, PANELS, t, a, b, c); break;               \
    case 3: dots(3, PANELS, t, a, b, c); break;               \
    case 4: dots(4, PANELS, t, a, b, c); break;               \
    case 5: dots(5, PANELS, t, a, b, c); break;               \
    case 6: dots(6, PANELS, t, a, b, c); break;               \
    case 7: dots(7, PANELS, t, a, b, c); break;               \
    default: dots(R, PANELS, t, a, b, c); break;              \
    }

void tile16_avx512bf16(const Tile16 *t)
{
    for (int64_t j = 0; j < t->panels; j += 2)
        for (int64_t i = 0; i < t->rows; i += R) {
            const uint32_t *a = t->a + i / BF16_PANEL * t->a_panel + i % BF16_PANEL * t->a_row, *b = t->b + j * t->b_panel;
            float *c = t->c + i * TILE16_COLUMNS + j * BF16_PANEL;
            int64_t rows = t->rows - i;
            if (t->panels - j >= 2) ROWS(2)
            else ROWS(1)
        }
}
