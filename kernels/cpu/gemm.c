// f32 gemm: oneDNN where its bits do not depend on M or on the number of threads, else a plain loop.
//
// Method: dnnl_sgemm, no packing kept between calls. The guard computes a few shapes whole and by rows, on one thread
// and on the team, and compares bit for bit (law 1: a row's result must not depend on how many rows share the call).
// Drawback: the guard samples shapes; it cannot prove all of them.
#include <dnnl.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "base/mem.h"
#include "kernels/cpu/cpu.h"

void gemm_plain(const Gemm *g)
{
    int64_t ai = g->form == GEMM_TN ? 1 : g->lda, ak = g->form == GEMM_TN ? g->lda : 1;
    int64_t bj = g->form == GEMM_NT ? g->ldb : 1, bk = g->form == GEMM_NT ? 1 : g->ldb;
    for (int64_t i = 0; i < g->M; i++)
        for (int64_t j = 0; j < g->N; j++) {
            float sum = 0;
            for (int64_t k = 0; k < g->K; k++) sum += g->a[i * ai + k * ak] * g->b[j * bj + k * bk];
            g->c[i * g->ldc + j] = g->accumulate ? g->c[i * g->ldc + j] + sum : sum;
        }
}

static bool gemm_dnnl(const Gemm *g)
{
    return dnnl_sgemm(g->form == GEMM_TN ? 'T' : 'N', g->form == GEMM_NT ? 'T' : 'N', g->M, g->N, g->K, 1.0f, g->a, g->lda,
                      g->b, g->ldb, g->accumulate ? 1.0f : 0.0f, g->c, g->ldc) == dnnl_success;
}

Err gemm(const Ctx *ctx, const Gemm *g)
{
    ASSERT(g->M >= 0 && g->N >= 0 && g->K >= 0);
    if (g->M == 0 || g->N == 0 || (g->K == 0 && g->accumulate)) return OK;
    if (ctx->plain || !ctx->gemm_dnnl || g->K == 0) {
        gemm_plain(g);
        return OK;
    }
    CHECK(gemm_dnnl(g), ERR_INTERNAL, "oneDNN refused a gemm of %ld x %ld x %ld", (long)g->M, (long)g->N, (long)g->K);
    return OK;
}

static void set_team(int threads)
{
#ifdef _OPENMP
    omp_set_num_threads(threads);
#else
    (void)threads;
#endif
}

// Whole result on one thread against the first m rows alone, on one thread and on the team.
static bool guard_shape(GemmForm form, int64_t N, int64_t K, float *buf, int threads)
{
    enum { M = 65 };
    static const int64_t rows[] = {1, 2, 3, 17, 64, M};
    float *a = buf, *b = a + M * K, *whole = b + N * K, *part = whole + M * N;
    Gemm g = {.form = form, .M = M, .N = N, .K = K, .a = a, .b = b, .c = whole, .lda = K, .ldb = form == GEMM_NT ? K : N, .ldc = N};
    for (int64_t i = 0; i < (M + N) * K; i++) buf[i] = (float)((i * 7919 + i / 13) % 2003 - 1001) / 1001.0f;
    set_team(1);
    if (!gemm_dnnl(&g)) return false;
    bool same = true;
    g.c = part;
    for (int team = 1; team <= threads; team += threads > 1 ? threads - 1 : 1) {
        set_team(team);
        for (int i = 0; i < 6 && same; i++) {
            g.M = rows[i];
            same = gemm_dnnl(&g) && !memcmp(whole, part, (size_t)(g.M * N) * sizeof(float));
        }
    }
    set_team(threads);
    return same;
}

bool gemm_guard(int threads)
{
    static const int64_t shapes[][2] = {{128, 64}, {96, 576}, {200, 1536}};
    float *buf = NULL;
    if (MEM_ARRAY(&buf, 65 * 1536 + 200 * 1536 + 2 * 65 * 200) != OK) return false;
    bool same = true;
    for (int i = 0; i < 3 && same; i++)
        same = guard_shape(GEMM_NT, shapes[i][0], shapes[i][1], buf, threads) &&
               guard_shape(GEMM_NN, shapes[i][0], shapes[i][1], buf, threads);
    mem_free(buf);
    return same;
}
