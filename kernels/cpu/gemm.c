// SPDX-License-Identifier: Apache-2.0
// f32 gemm: oneDNN's matmul where its bits do not depend on M or on the number of threads, else our own
// fixed-order kernel (fast_gemm.c).
//
// Method: a matmul primitive for each shape is kept in a direct-mapped cache, since making one costs more than a small
// product. (dnnl_sgemm has no such cost but was measured to change bits for M < 4: it turns to another kernel.) The
// guard computes a few shapes whole and by rows, on one thread and on the team, and compares bit for bit (law 1: a
// row's result must not depend on how many rows share the call).
// Drawback: the guard samples shapes; it cannot prove all of them. Only one thread of a process may call gemm().
#include <dnnl.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "base/hash.h"
#include "base/mem.h"
#include "base/profile.h"
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

typedef struct Product {  // a cached primitive and its three operands
    Gemm key;             // pointers are NULL
    dnnl_primitive_t primitive;
    dnnl_memory_t a, b, c;
} Product;

enum { CACHE = 512 };
static Product cache[CACHE];
static dnnl_engine_t engine;
static dnnl_stream_t stream;

static Gemm key_of(const Gemm *g)
{
    Gemm key;
    memset(&key, 0, sizeof key);  // padding too: keys are compared as bytes
    key.form = g->form;
    key.M = g->M, key.N = g->N, key.K = g->K;
    key.lda = g->lda, key.ldb = g->ldb, key.ldc = g->ldc;
    key.accumulate = g->accumulate;
    return key;
}

static void product_free(Product *p)
{
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    if (p->a) dnnl_memory_destroy(p->a);
    if (p->b) dnnl_memory_destroy(p->b);
    if (p->c) dnnl_memory_destroy(p->c);
    memset(p, 0, sizeof *p);
}

// A rows x cols matrix; transposed: stored [cols][rows].
static bool matrix_desc(dnnl_memory_desc_t *d, int64_t rows, int64_t cols, int64_t ld, bool transposed)
{
    dnnl_dims_t dims = {rows, cols}, strides = {transposed ? 1 : ld, transposed ? ld : 1};
    return dnnl_memory_desc_init_by_strides(d, 2, dims, dnnl_f32, strides) == dnnl_success;
}

static bool accumulate_attr(dnnl_primitive_attr_t *attr)
{
    dnnl_post_ops_t sum = NULL;
    bool ok = dnnl_primitive_attr_create(attr) == dnnl_success && dnnl_post_ops_create(&sum) == dnnl_success &&
              dnnl_post_ops_append_sum(sum, 1.0f) == dnnl_success &&
              dnnl_primitive_attr_set_post_ops(*attr, sum) == dnnl_success;
    if (sum) dnnl_post_ops_destroy(sum);
    return ok;
}

static bool product_make(Product *p, const Gemm *key)
{
    dnnl_memory_desc_t a, b, c;
    dnnl_matmul_desc_t op;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_attr_t attr = NULL;
    product_free(p);
    bool ok = matrix_desc(&a, key->M, key->K, key->lda, key->form == GEMM_TN) &&
              matrix_desc(&b, key->K, key->N, key->ldb, key->form == GEMM_NT) &&
              matrix_desc(&c, key->M, key->N, key->ldc, false) &&
              (!key->accumulate || accumulate_attr(&attr)) &&
              dnnl_matmul_desc_init(&op, &a, &b, NULL, &c) == dnnl_success &&
              dnnl_primitive_desc_create(&desc, &op, attr, engine, NULL) == dnnl_success &&
              dnnl_primitive_create(&p->primitive, desc) == dnnl_success &&
              dnnl_memory_create(&p->a, &a, engine, DNNL_MEMORY_NONE) == dnnl_success &&
              dnnl_memory_create(&p->b, &b, engine, DNNL_MEMORY_NONE) == dnnl_success &&
              dnnl_memory_create(&p->c, &c, engine, DNNL_MEMORY_NONE) == dnnl_success;
    if (desc) dnnl_primitive_desc_destroy(desc);
    if (attr) dnnl_primitive_attr_destroy(attr);
    if (ok) p->key = *key;
    else product_free(p);
    return ok;
}

static Product *product_find(const Gemm *g)
{
    if (!engine && (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success ||
                    dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) != dnnl_success))
        return NULL;
    Gemm key = key_of(g);
    Product *p = &cache[hash_bytes(&key, (int64_t)sizeof key).lo % CACHE];
    if (p->primitive && !memcmp(&p->key, &key, sizeof key)) return p;
    return product_make(p, &key) ? p : NULL;
}

// oneDNN takes mutable pointers but only reads a and b.
static bool set_operand(dnnl_memory_t memory, const float *p)
{
    union { const float *in; void *out; } cast = {.in = p};
    return dnnl_memory_set_data_handle(memory, cast.out) == dnnl_success;
}

static bool gemm_dnnl(const Gemm *g)
{
    Product *p = product_find(g);
    if (!p || !set_operand(p->a, g->a) || !set_operand(p->b, g->b) || !set_operand(p->c, g->c)) return false;
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, p->a}, {DNNL_ARG_WEIGHTS, p->b}, {DNNL_ARG_DST, p->c}};
    return dnnl_primitive_execute(p->primitive, stream, 3, args) == dnnl_success && dnnl_stream_wait(stream) == dnnl_success;
}

// oneDNN takes operands with padded rows too, but through the kernel whose bits depend on M.
static bool is_dense(const Gemm *g)
{
    return g->lda == (g->form == GEMM_TN ? g->M : g->K) && g->ldb == (g->form == GEMM_NT ? g->K : g->N) && g->ldc == g->N;
}

Err gemm(const Ctx *ctx, const Gemm *g)
{
    PROFILE(PHASE_GEMM);
    ASSERT(g->M >= 0 && g->N >= 0 && g->K >= 0);
    if (g->M == 0 || g->N == 0 || (g->K == 0 && g->accumulate)) return OK;
    if (ctx->plain || g->K == 0) {
        gemm_plain(g);
    } else if (ctx->gemm_dnnl && is_dense(g)) {
        CHECK(gemm_dnnl(g), ERR_INTERNAL, "oneDNN refused a gemm of %ld x %ld x %ld", (long)g->M, (long)g->N, (long)g->K);
    } else {
        pieces(ctx, form_of(ctx)->gemm_panel, g, (g->N + GEMM_PANEL - 1) / GEMM_PANEL, 1);
    }
    return OK;
}

// Primitives remember the team that they were made for, so a new size of the team empties the cache.
static void set_team(int threads)
{
    for (int i = 0; i < CACHE; i++) product_free(&cache[i]);
#ifdef _OPENMP
    omp_set_num_threads(threads);
#else
    (void)threads;
#endif
}

enum { GUARD_M = 65, GUARD_N = 200, GUARD_K = 4096 };
typedef struct GuardShape {
    GemmForm form;
    int64_t N, K;
    bool accumulate;
} GuardShape;

static bool guard_run(const Gemm *shape, float *c)
{
    Gemm g = *shape;
    g.c = c;
    for (int64_t i = 0; i < GUARD_M * g.ldc; i++) c[i] = (float)(i % 7);
    return gemm_dnnl(&g);
}

// Whole result on one thread against the first m rows alone, on one thread and on the team.
static bool guard_shape(const GuardShape *s, float *buf, int threads)
{
    static const int64_t rows[] = {1, 2, 3, 17, 64, GUARD_M};
    float *whole = buf + GUARD_K * (GUARD_M + GUARD_N), *part = whole + GUARD_M * GUARD_N;
    Gemm g = {.form = s->form, .M = GUARD_M, .N = s->N, .K = s->K, .a = buf, .b = buf + GUARD_M * s->K,
              .lda = s->form == GEMM_TN ? GUARD_M : s->K, .ldb = s->form == GEMM_NT ? s->K : s->N,
              .ldc = s->N, .accumulate = s->accumulate};
    set_team(1);
    bool same = guard_run(&g, whole);
    for (int pass = 0; pass < 2 && same; pass++) {
        if (pass) set_team(threads);
        for (int i = s->form == GEMM_TN ? 5 : 0; i < 6 && same; i++) {
            g.M = rows[i];
            same = guard_run(&g, part);
            for (int64_t r = 0; r < g.M && same; r++)
                same = !memcmp(whole + r * g.ldc, part + r * g.ldc, (size_t)s->N * sizeof(float));
        }
    }
    return same;
}

bool gemm_guard(int threads)
{
    static const GuardShape shapes[] = {
        {GEMM_NT, 128, 64, false}, {GEMM_NT, 200, 1536, false}, {GEMM_NT, 96, 576, true}, {GEMM_NN, 64, 128, false},
        {GEMM_NN, 200, 1024, true}, {GEMM_TN, 96, 576, true}, {GEMM_NT, 64, GUARD_K, false}};
    int64_t operands = GUARD_K * (GUARD_M + GUARD_N), result = GUARD_M * GUARD_N;
    float *buf = NULL;
    if (MEM_ARRAY(&buf, operands + 2 * result) != OK) return false;
    for (int64_t i = 0; i < operands; i++) buf[i] = (float)((i * 7919 + i / 13) % 2003 - 1001) / 1001.0f;
    bool same = true;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0] && same; i++) same = guard_shape(&shapes[i], buf, threads);
    set_team(threads);
    mem_free(buf);
    return same;
}
