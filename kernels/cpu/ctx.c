// SPDX-License-Identifier: Apache-2.0
// The context: instruction set level, team size, and whether oneDNN's f32 gemm may be used.
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "base/mem.h"
#include "base/profile.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cuda/device.h"

const char *isa_name(Isa isa)
{
    static const char *const names[] = {"base", "avx2", "avx512", "avx512bf16", "amx"};
    return names[isa];
}

static Isa best_isa(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (!avx512) return avx2 ? ISA_AVX2 : ISA_BASE;
    if (!__builtin_cpu_supports("avx512bf16")) return ISA_AVX512;
    return tile16_amx_ready() ? ISA_AMX : ISA_AVX512BF16;
#else
    return ISA_BASE;
#endif
}

Err ctx_init(Ctx *ctx, int threads)
{
    *ctx = (Ctx){.isa = best_isa(), .threads = threads > 0 ? threads : 1};
    const char *want = getenv("IMF_ISA");
    if (want && *want) {
        int level = ISA_AMX;
        while (level >= ISA_BASE && strcmp(want, isa_name((Isa)level))) level--;
        CHECK(level >= ISA_BASE, ERR_USAGE, "IMF_ISA=%s is none of base, avx2, avx512, avx512bf16, amx", want);
        CHECK((Isa)level <= ctx->isa, ERR_UNAVAILABLE, "IMF_ISA=%s: this machine has %s only; unset IMF_ISA or lower it", want,
              isa_name(ctx->isa));
        ctx->isa = (Isa)level;
    }
#ifdef _OPENMP
    omp_set_num_threads(ctx->threads);
#endif
    ctx->gemm_dnnl = gemm_guard(ctx->threads);
    return OK;
}

Err ctx_alloc(Ctx *ctx, void *pp, int64_t n, int64_t size)
{
    return ctx->device ? device_alloc_managed(ctx->device, pp, n * size) : mem_alloc(pp, n, size);
}

void ctx_free(Ctx *ctx, void *p)
{
    if (ctx->device) device_free(ctx->device, p);
    else mem_free(p);
}

Err ctx_wait(Ctx *ctx)
{
    PROFILE(PHASE_WAIT);
    return ctx->device ? device_wait(ctx->device) : OK;
}

const Form *form_of(const Ctx *ctx)
{
    static const Form *const forms[] = {&form_base, &form_avx2, &form_avx512, &form_avx512, &form_avx512};
    return ctx->plain ? &form_plain : forms[ctx->isa];
}

void pieces(const Ctx *ctx, Piece *fn, const void *args, int64_t n, int64_t grain)
{
    int64_t count = (n + grain - 1) / grain;
    if (ctx->threads <= 1 || count <= 1) {
        for (int64_t i = 0; i < count; i++) fn(args, i * grain, i + 1 < count ? (i + 1) * grain : n);
        return;
    }
#ifdef _OPENMP
#pragma omp parallel for num_threads(ctx->threads) schedule(dynamic)
#endif
    for (int64_t i = 0; i < count; i++) fn(args, i * grain, i + 1 < count ? (i + 1) * grain : n);
}
