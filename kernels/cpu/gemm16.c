// SPDX-License-Identifier: Apache-2.0
// Which form computes the bf16 gemm, and its definition.
#include "base/profile.h"
#include "kernels/cpu/bf16.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

// CPUID leaf 7, EDX: bit 22 is amx-bf16, bit 24 amx-tile (clang 14 knows no names for them). Tile data is 8 KB of state that
// Linux gives a process only when asked: component 18, arch_prctl 0x1023.
bool tile16_amx_ready(void)
{
#if defined(__x86_64__) && defined(__linux__)
    const unsigned need = 1U << 22 | 1U << 24;
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & need) == need && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
    return false;
#endif
}

Tile16Form *tile16_of(const Ctx *ctx)
{
    static Tile16Form *const forms[] = {tile16_base, tile16_avx2, tile16_avx512, tile16_avx512bf16, tile16_amx};
    return forms[ctx->isa];
}

static float packed_at(const uint32_t *packed, int64_t K, int64_t n, int64_t k)
{
    uint32_t pair = packed[(n / BF16_PANEL * bf16_pairs(K) + k / 2) * BF16_PANEL + n % BF16_PANEL];
    return bf16_to_f32((uint16_t)(k % 2 ? pair >> 16 : pair));
}

static float a_at(const Gemm16 *g, int64_t i, int64_t k)
{
    uint32_t pair = g->a[i / BF16_PANEL * g->a_panel + i % BF16_PANEL * g->a_row + k / 2 * g->a_pair];
    return bf16_to_f32((uint16_t)(k % 2 ? pair >> 16 : pair));
}

// The definition: products of bf16 are exact in fp32, and are added in ascending order of k.
static void gemm16_plain(const Gemm16 *g)
{
    for (int64_t i = 0; i < g->M; i++)
        for (int64_t j = 0; j < g->N; j++) {
            float sum = 0;
            for (int64_t k = 0; k < g->K; k++)
                sum += a_at(g, i, k) * (g->turned ? packed_at(g->b, g->N, k, j) : packed_at(g->b, g->K, j, k));
            if (g->bias) sum += g->bias[j];
            if (g->add) sum += g->add[i * g->ld_add + j];
            if (g->c.dtype == DT_BF16) ((uint16_t *)g->c.p)[i * g->c.stride + j] = bf16_from_f32(sum);
            else ((float *)g->c.p)[i * g->c.stride + j] = sum;
        }
}

Err gemm16(const Ctx *ctx, const Gemm16 *g)
{
    PROFILE(PHASE_GEMM);
    Gemm16 form = *g;
    ASSERT(g->M >= 0 && g->N >= 0 && g->K >= 0);
    form.tile = tile16_of(ctx);
    int64_t strips = (g->M + GEMM16_STRIP - 1) / GEMM16_STRIP, columns = (g->N + TILE16_COLUMNS - 1) / TILE16_COLUMNS;
    if (ctx->plain) gemm16_plain(g);
    else pieces(ctx, form_of(ctx)->gemm16, &form, strips * columns, 1);
    return OK;
}
